"""What a login leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass

from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody proved who they are: the user who is the principal of `origin`."""

    tenant_id: str
    origin: Origin


async def record_logins(conn: Connection, logins: Sequence[Login]) -> list[None]:
    """A row in the audit log for each; the e-mail address is not in it, the user's id is."""
    defer_audit(
        conn, [AuditRecord(login.tenant_id, login.origin, "user.log_in", login.origin.principal) for login in logins]
    )
    return [None] * len(logins)
