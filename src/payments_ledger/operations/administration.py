"""The use cases of administration, by an operator whom no role and no policy binds."""

from datetime import UTC, datetime

from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import UseCase
from payments_ledger.errors import Rejected
from payments_ledger.postgres.database import Database
from payments_ledger.tenants.administration import Administrator, Change


async def administer[C: Change, O](owner: Database, use_case: UseCase[C, O | Rejected], command: C) -> O:
    """The outcome of the command, in a transaction of its own; a refusal is raised."""
    async with owner.transaction([command.tenant_id]) as conn:
        [outcome] = await use_case(conn, [command])
        if isinstance(outcome, Rejected):
            raise outcome.error
    return outcome


def operator_of(origin: Origin) -> Administrator:
    """The operator as the author of a change that they ask for now."""
    return Administrator(origin, home=None, at=datetime.now(UTC))
