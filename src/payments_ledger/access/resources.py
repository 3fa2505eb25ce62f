"""What the API's process holds for its requests: made once from the settings, closed when the process ends."""

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, FastAPI, Request

from payments_ledger.access.access_cache import AccessCache
from payments_ledger.access.attempts import attempts_of
from payments_ledger.access.logins import Logins
from payments_ledger.access.refusals import Refusals
from payments_ledger.access.tokens import Tokens
from payments_ledger.chaos.faults import Chaos, chaos_of
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.postgres.database import LOOKUP_SETTINGS, Database
from payments_ledger.postgres.roles import runtime_role
from payments_ledger.process.settings import Settings
from payments_ledger.web.cursors import CursorSigner
from payments_ledger.web.rate_limit import RateLimiter, counters_of

# Bulk requests that may wait in one process: some 10 MB, and no longer than their clients do.
BULK_QUEUE_SIZE_MAX = 20


@dataclass(frozen=True, slots=True)
class Resources:
    """`bulk_commands` are a group commit of their own: a bulk request is a batch by itself, and few may wait.

    So are `ledger_commands`: a batch then takes its locks in one order, and never those of payments besides.
    """

    settings: Settings
    database: Database
    commands: GroupCommit
    ledger_commands: GroupCommit
    bulk_commands: GroupCommit
    access: AccessCache
    tokens: Tokens
    rate_limiter: RateLimiter
    logins: Logins
    refusals: Refusals
    chaos: Chaos
    cursors: CursorSigner

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Connects to nothing yet."""
        database = Database(
            settings.database_url,
            role=runtime_role(settings.database_url),
            pool_size_max=settings.database_pool_size,
            server_settings=LOOKUP_SETTINGS,
        )
        secret = settings.jwt_secret.get_secret_value()
        counters = counters_of(settings.redis_url)
        return cls(
            settings=settings,
            database=database,
            commands=GroupCommit(database.transaction),
            ledger_commands=GroupCommit(database.transaction),
            bulk_commands=GroupCommit(database.transaction, batch_size_max=1, queue_size_max=BULK_QUEUE_SIZE_MAX),
            access=AccessCache(database.transaction),
            tokens=Tokens(
                secret=secret,
                secrets_previous=[previous.get_secret_value() for previous in settings.jwt_secrets_previous],
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                lifetime_seconds=settings.token_expires_seconds,
            ),
            rate_limiter=RateLimiter(settings, counters),
            logins=Logins(settings, counters, attempts_of(settings.redis_url)),
            refusals=Refusals(database.transaction),
            chaos=chaos_of(settings),
            cursors=CursorSigner(secret),
        )

    async def close(self) -> None:
        """Finishes the commands that were taken, writes what is queued, and closes the connections."""
        await self.chaos.close()
        await self.commands.drain()
        await self.ledger_commands.drain()
        await self.bulk_commands.drain()
        await self.rate_limiter.close()
        await self.logins.close()
        await self.access.drain()
        await self.refusals.drain()
        await self.database.close()


def provide(app: FastAPI, resources: Resources) -> None:
    """Has `resources_of` find them in the application's requests."""
    app.state.resources = resources


def resources_of(request: Request) -> Resources:
    """What `provide` gave the request's application."""
    resources: Resources = request.app.state.resources
    return resources


Shared = Annotated[Resources, Depends(resources_of)]
