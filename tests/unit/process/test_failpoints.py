"""Failpoints strike where and when they were told to, cost nothing otherwise, and never in production."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from payments_ledger.process.failpoints import (
    Action,
    FailpointStruck,
    Place,
    Strike,
    arm,
    failpoint,
    read_failpoints,
)
from payments_ledger.process.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm({})


def test_what_is_to_happen_where_is_read_from_one_line() -> None:
    assert read_failpoints("relay.after_confirm=kill@3, batch.before_commit=delay:200,batch.after_commit=error") == {
        Place.RELAY_AFTER_CONFIRM: Strike(Action.KILL, 0, 3),
        Place.BATCH_BEFORE_COMMIT: Strike(Action.DELAY, 200, None),
        Place.BATCH_AFTER_COMMIT: Strike(Action.ERROR, 0, None),
    }
    assert read_failpoints("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "nowhere=kill",
        "relay.after_confirm",
        "relay.after_confirm=explode",
        "relay.after_confirm=kill@0",
        "relay.after_confirm=kill@soon",
        "relay.after_confirm=kill:5",
        "relay.after_confirm=delay",
        "relay.after_confirm=delay:-1",
    ],
)
def test_a_process_does_not_start_with_a_failpoint_that_it_does_not_understand(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FAILPOINTS", text)
    with pytest.raises(ValidationError, match="failpoints"):
        Settings(_env_file=None)


async def test_an_error_strikes_at_the_pass_that_was_named_and_at_no_other_place() -> None:
    arm(read_failpoints("relay.after_confirm=error@2"))
    await failpoint(Place.RELAY_AFTER_CONFIRM)
    with pytest.raises(FailpointStruck, match=r"relay.after_confirm, pass 2"):
        await failpoint(Place.RELAY_AFTER_CONFIRM)
    await failpoint(Place.RELAY_AFTER_CONFIRM)
    await failpoint(Place.RELAY_BEFORE_PUBLISH)


async def test_a_delay_holds_each_pass() -> None:
    arm(read_failpoints("relay.after_confirm=delay:30"))
    began = time.monotonic()
    await failpoint(Place.RELAY_AFTER_CONFIRM)
    await failpoint(Place.RELAY_AFTER_CONFIRM)
    assert time.monotonic() - began >= 0.06


def test_a_kill_leaves_no_time_for_anything() -> None:
    program = (
        "import asyncio\n"
        "from payments_ledger.process.failpoints import *\n"
        "arm(read_failpoints('batch.before_commit=kill'))\n"
        "try:\n    asyncio.run(failpoint(Place.BATCH_BEFORE_COMMIT))\n"
        "finally:\n    print('still there')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
