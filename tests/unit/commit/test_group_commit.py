"""Group commit: commands share transactions, and none can harm another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any, cast
from unittest.mock import patch

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payments_ledger.commit import group_commit as batching
from payments_ledger.commit.group_commit import BATCHES_AT_ONCE, GroupCommit
from payments_ledger.errors import DatabaseUnavailable, OutcomeUnknown, TooBusy
from payments_ledger.postgres.database import Connection

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Add:
    number: int
    tenant_id: str = "t"


class FakeDatabase:
    """Keeps what was committed, and forgets what was rolled back."""

    def __init__(self) -> None:
        self.committed: list[list[int]] = []
        self.tenants: list[set[str]] = []
        self.writes: list[int] = []
        self.begins = 0
        self.is_up = True
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    @asynccontextmanager
    async def transaction(self, tenants: Collection[str]) -> AsyncIterator[Connection]:
        self.begins += 1
        if not self.is_up:
            raise DatabaseUnavailable
        self.tenants.append(set(tenants))
        writes: list[int] = []
        yield cast("Connection", writes)
        await self.may_commit.wait()
        if writes:
            self.committed.append(writes)


async def add(conn: Connection, commands: Sequence[Add]) -> list[int]:
    """Refuses negative numbers the way a database does: by failing the whole statement."""
    for command in commands:
        if command.number < 0:
            raise psycopg.errors.CheckViolation("negative")
    cast("Any", conn).extend(command.number for command in commands)
    return [command.number * 10 for command in commands]


async def subtract(conn: Connection, commands: Sequence[Add]) -> list[int]:
    return [-command.number for command in commands]


async def test_concurrent_commands_share_a_transaction_and_each_gets_its_own_outcome() -> None:
    database = FakeDatabase()
    commands = GroupCommit(database.transaction)
    outcomes = await asyncio.gather(
        *(commands.submit(add, Add(number, f"t{number % 2}")) for number in range(10)),
        *(commands.submit(subtract, Add(number)) for number in range(10)),
    )
    assert outcomes == [*(number * 10 for number in range(10)), *(-number for number in range(10))]
    assert database.committed == [list(range(10))]
    assert database.tenants == [{"t", "t0", "t1"}]


async def submit_in_turn(commands: GroupCommit, number: int, *, pause_seconds: float = 0) -> list[asyncio.Task[int]]:
    """Submits so many commands, each when the one before has had the turns of the event loop to begin a batch."""
    waiting = []
    for each in range(number):
        waiting.append(asyncio.create_task(commands.submit(add, Add(each))))
        for _ in range(5):
            await asyncio.sleep(pause_seconds)
    return waiting


async def test_while_a_batch_commits_the_next_one_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LATE_SECONDS", 60)
    database = FakeDatabase()
    database.may_commit.clear()
    commands = GroupCommit(database.transaction)
    waiting = await submit_in_turn(commands, 20)
    database.may_commit.set()
    await asyncio.gather(*waiting)
    assert [len(batch) for batch in database.committed] == [1, 19]


async def test_a_command_that_comes_right_after_an_answer_need_not_wait_for_another() -> None:
    commands = GroupCommit(FakeDatabase().transaction)
    async with asyncio.timeout(1):
        for number in range(3):
            assert await commands.submit(add, Add(number)) == number * 10


async def test_a_batch_that_is_late_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LATE_SECONDS", 0.02)
    database = FakeDatabase()
    database.may_commit.clear()
    commands = GroupCommit(database.transaction)
    late = await submit_in_turn(commands, BATCHES_AT_ONCE, pause_seconds=0.006)
    waiting = late + await submit_in_turn(commands, 20 - BATCHES_AT_ONCE)
    database.may_commit.set()
    await asyncio.gather(*waiting)
    # One after the other began beside those that were late, as many as may; one of them takes all that came after.
    assert [len(batch) for batch in database.committed] == [1] * BATCHES_AT_ONCE + [20 - BATCHES_AT_ONCE]


async def test_a_batch_is_bounded() -> None:
    database = FakeDatabase()
    commands = GroupCommit(database.transaction)
    await asyncio.gather(*(commands.submit(add, Add(number)) for number in range(batching.BATCH_SIZE_MAX * 2 + 1)))
    assert sorted(len(batch) for batch in database.committed) == [1, batching.BATCH_SIZE_MAX, batching.BATCH_SIZE_MAX]


@given(st.lists(st.integers(min_value=-3, max_value=100), min_size=1, max_size=30))
@settings(deadline=None)
def test_a_command_that_the_database_refuses_harms_only_itself(numbers: list[int]) -> None:
    database, outcomes = asyncio.run(_add_all(numbers))
    for number, outcome in zip(numbers, outcomes, strict=True):
        assert isinstance(outcome, psycopg.errors.CheckViolation) if number < 0 else outcome == number * 10
    assert sorted(chain.from_iterable(database.committed)) == sorted(number for number in numbers if number >= 0)


class Fault(Enum):
    """What may happen to a transaction."""

    NONE = "nothing"
    COLLISION = "it stands in another one's way"
    AWAY = "the database cannot be reached"
    LOST_BEFORE = "the connection is lost during COMMIT, which did not take place"
    LOST_AFTER = "the connection is lost during COMMIT, which took place"
    HANGS = "COMMIT takes its time"


class FaultyDatabase(FakeDatabase):
    """One fault after another, then none."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        super().__init__()
        self._faults = iter(faults)

    @asynccontextmanager
    async def transaction(self, tenants: Collection[str]) -> AsyncIterator[Connection]:
        fault = next(self._faults, Fault.NONE)
        if fault is Fault.AWAY:
            raise DatabaseUnavailable
        writes: list[int] = []
        yield cast("Connection", writes)
        if fault is Fault.COLLISION:
            raise psycopg.errors.DeadlockDetected
        if fault is Fault.HANGS:
            await self.may_commit.wait()
        if fault is not Fault.LOST_BEFORE:
            self.committed.append(writes)
        if fault in (Fault.LOST_BEFORE, Fault.LOST_AFTER):
            raise OutcomeUnknown


@given(
    refused=st.lists(st.booleans(), min_size=1, max_size=30),
    faults=st.lists(st.sampled_from(Fault), max_size=12),
    ticks=st.lists(st.integers(0, 4), min_size=30, max_size=30),
    hang_ups=st.sets(st.integers(0, 29), max_size=5),
    queue_size_max=st.integers(1, 20),
    batch_size_max=st.integers(1, 10),
)
def test_whatever_happens_an_answer_is_the_truth(
    refused: list[bool],
    faults: list[Fault],
    ticks: list[int],
    hang_ups: set[int],
    queue_size_max: int,
    batch_size_max: int,
) -> None:
    """A success was committed, once; what was not done was not; and nobody is left without an answer."""
    numbers = [-number if no else number for number, no in enumerate(refused, start=1)]
    with (
        patch.object(batching, "RETRY_SECONDS_MAX", 0.0),
        patch.object(batching, "RESPONSE_SECONDS_MAX", 0.05),
    ):
        bounds = {"batch_size_max": batch_size_max, "queue_size_max": queue_size_max}
        database, answers = asyncio.run(_submit_all(numbers, faults, ticks, hang_ups, bounds))
    committed = Counter(chain.from_iterable(database.committed))
    assert all(len(batch) <= batch_size_max for batch in database.committed)
    for number, answer in zip(numbers, answers, strict=True):
        match answer:
            case int():
                assert (answer, committed[number]) == (number * 10, 1)
            case psycopg.errors.CheckViolation():
                assert (number < 0, committed[number]) == (True, 0)
            case TooBusy() | DatabaseUnavailable():
                assert committed[number] == 0
            case OutcomeUnknown() | asyncio.CancelledError():
                assert committed[number] <= 1
            case _:
                raise AssertionError(answer)


async def _submit_all(
    numbers: list[int], faults: list[Fault], ticks: list[int], hang_ups: set[int], bounds: dict[str, int]
) -> tuple[FakeDatabase, list[Any]]:
    database = FaultyDatabase(faults)
    if Fault.HANGS in faults:
        database.may_commit.clear()
    commands = GroupCommit(database.transaction, **bounds)
    clients: list[asyncio.Task[int]] = []
    for number, pause in zip(numbers, ticks, strict=False):
        clients.append(asyncio.create_task(commands.submit(add, Add(number))))
        for _ in range(pause):
            await asyncio.sleep(0)
    for number in hang_ups & set(range(len(clients))):
        clients[number].cancel()
    answers = await asyncio.gather(*clients, return_exceptions=True)
    database.may_commit.set()
    await commands.drain()
    return database, answers


async def _add_all(numbers: list[int]) -> tuple[FakeDatabase, list[Any]]:
    database = FakeDatabase()
    commands = GroupCommit(database.transaction)
    submitted = (commands.submit(add, Add(number)) for number in numbers)
    return database, await asyncio.gather(*submitted, return_exceptions=True)


@pytest.mark.parametrize("collision", [psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected])
async def test_a_collision_runs_the_whole_batch_again(collision: type[Exception]) -> None:
    database = FakeDatabase()
    commands = GroupCommit(database.transaction)
    collisions = iter([collision, collision])

    async def collide(conn: Connection, batch: Sequence[Add]) -> list[int]:
        for error in collisions:
            raise error
        return await add(conn, batch)

    assert await asyncio.gather(*(commands.submit(collide, Add(number)) for number in (1, 2))) == [10, 20]
    assert database.begins == 3
    assert database.committed == [[1, 2]]


async def test_a_command_that_always_collides_is_given_up() -> None:
    database = FakeDatabase()

    async def collide(conn: Connection, batch: Sequence[Add]) -> list[int]:
        raise psycopg.errors.SerializationFailure

    with pytest.raises(TooBusy):
        await GroupCommit(database.transaction).submit(collide, Add(1))
    assert database.begins == batching.ATTEMPTS_MAX


async def test_a_database_that_is_away_is_told_to_every_command_and_not_asked_again() -> None:
    database = FakeDatabase()
    database.is_up = False
    commands = GroupCommit(database.transaction)
    outcomes = await asyncio.gather(*(commands.submit(add, Add(n)) for n in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 5
    assert database.begins == 1


async def test_a_full_queue_refuses_at_once() -> None:
    database = FakeDatabase()
    database.may_commit.clear()
    commands = GroupCommit(database.transaction, queue_size_max=3)
    waiting = [asyncio.create_task(commands.submit(add, Add(number))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(TooBusy):
        await commands.submit(add, Add(3))
    database.may_commit.set()
    assert await asyncio.gather(*waiting) == [0, 10, 20]


async def test_a_command_that_waited_too_long_is_dropped_unexecuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAIT_SECONDS_MAX", -1.0)
    database = FakeDatabase()
    with pytest.raises(TooBusy):
        await GroupCommit(database.transaction).submit(add, Add(1))
    assert database.begins == 0


async def test_a_batch_that_hangs_is_answered_with_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "RESPONSE_SECONDS_MAX", 0.01)
    database = FakeDatabase()
    database.may_commit.clear()
    commands = GroupCommit(database.transaction)
    with pytest.raises(OutcomeUnknown):
        await commands.submit(add, Add(1))
    database.may_commit.set()
    await commands.drain()
    assert database.committed == [[1]]


async def test_a_command_that_never_began_is_answered_with_too_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "RESPONSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(batching, "BATCHES_AT_ONCE", 0)
    with pytest.raises(TooBusy):
        await GroupCommit(FakeDatabase().transaction).submit(add, Add(1))


async def test_a_client_that_hangs_up_does_not_cancel_its_batch() -> None:
    database = FakeDatabase()
    database.may_commit.clear()
    commands = GroupCommit(database.transaction)
    # Whoever hangs up comes first: the outcomes of those behind must be reached.
    hasty, patient = (asyncio.create_task(commands.submit(add, Add(number))) for number in (1, 2))
    for _ in range(5):
        await asyncio.sleep(0)
    hasty.cancel()
    database.may_commit.set()
    assert await patient == 20
    await commands.drain()
    assert database.committed == [[1, 2]]


async def test_draining_finishes_what_is_queued_and_takes_no_more() -> None:
    database = FakeDatabase()
    commands = GroupCommit(database.transaction)
    waiting = [asyncio.create_task(commands.submit(add, Add(number))) for number in range(5)]
    await asyncio.sleep(0)
    await commands.drain()
    with pytest.raises(TooBusy):
        await commands.submit(add, Add(9))
    assert await asyncio.gather(*waiting) == [0, 10, 20, 30, 40]
