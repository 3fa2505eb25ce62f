"""What the operator's commands do, for tests that have the settings of an engine and no database open."""

from collections.abc import Callable

from payments_ledger.cli.session import on_database, operator
from payments_ledger.operations import dead_letters, tenants
from payments_ledger.operations.dead_letters import DeadMessage
from payments_ledger.process.settings import Settings


async def list_dead_letters(settings: Settings) -> list[DeadMessage]:
    return await on_database(settings, lambda database: dead_letters.list_dead_letters(database, settings))


async def replay_dead_letters(settings: Settings, wanted: Callable[[DeadMessage], bool]) -> list[DeadMessage]:
    return await on_database(
        settings, lambda database: dead_letters.replay_dead_letters(database, operator(), settings, wanted)
    )


async def drop_dead_letters(settings: Settings) -> list[DeadMessage]:
    """All of them."""
    return await on_database(
        settings, lambda database: dead_letters.drop_dead_letters(database, operator(), settings, lambda _: True)
    )


async def create_tenant(settings: Settings, tenant_id: str) -> None:
    await on_database(
        settings,
        lambda database: tenants.create_tenant(
            database, operator(), tenant_id=tenant_id, name="S", plan="pro", region="r", zone="UTC"
        ),
    )


async def suspend_tenant(settings: Settings, tenant_id: str, *, suspended: bool) -> None:
    await on_database(
        settings, lambda database: tenants.suspend_tenant(database, operator(), tenant_id, suspended=suspended)
    )
