"""Where each tenant's feed ends: what long polls wait for, with one query for all of them."""

import asyncio
from collections import Counter
from contextlib import suppress

from payments_ledger.feed.queries import last_positions
from payments_ledger.postgres.database import Database
from payments_ledger.process.draining import is_draining

LOOK_SECONDS = 0.2
# Beyond that a request gets its response at once, as without a wait: each costs a connection and some memory.
WAITING_MAX = 2000


class Heads:
    """Knows the last position of the tenants for which somebody waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: Counter[str] = Counter()
        self._known: dict[str, int] = {}
        self._news = asyncio.Event()

    async def look(self) -> None:
        """Reads the positions, if anybody waits."""
        tenants = [tenant_id for tenant_id, number in self._waiting.items() if number]
        if not tenants:
            return
        async with self._database.transaction(tenants) as conn:
            found = await last_positions(conn, tenants)
        if found != self._known:
            self._known = found
            self._news.set()
            self._news = asyncio.Event()

    async def wait_beyond(self, tenant_id: str, position: int, seconds: float) -> None:
        """Returns once the tenant's feed goes beyond the position, after so many seconds, or when the process ends."""
        if self._waiting.total() >= WAITING_MAX:
            return
        clock = asyncio.get_running_loop()
        until = clock.time() + seconds
        self._waiting[tenant_id] += 1
        try:
            while self._known.get(tenant_id, 0) <= position and not is_draining():
                left = until - clock.time()
                if left <= 0:
                    return
                # Now and then it looks up by itself, since an ending process brings no news.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 1)):
                        await self._news.wait()
        finally:
            self._waiting[tenant_id] -= 1
            if not self._waiting[tenant_id]:
                del self._waiting[tenant_id]
                self._known.pop(tenant_id, None)
