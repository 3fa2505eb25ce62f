"""Failpoints: named places where a test can have this process killed, delayed or made to fail.

FAILPOINTS=relay.after_confirm=kill@3,batch.before_commit=delay:200 kills the process when it passes the first place for
the third time, and holds it for 200 ms whenever it passes the second one. `Settings` refuses it in production.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Place(Enum):
    """Where a process can be struck. Each lies between two steps that must not be lost or done twice."""

    BATCH_BEFORE_COMMIT = "batch.before_commit"
    BATCH_AFTER_COMMIT = "batch.after_commit"
    ANSWERS_BEFORE_KEPT = "answers.before_kept"
    RELAY_BEFORE_PUBLISH = "relay.before_publish"
    RELAY_AFTER_CONFIRM = "relay.after_confirm"
    RELAY_AFTER_MARK = "relay.after_mark"
    CONSUMER_BEFORE_HANDLE = "consumer.before_handle"
    CONSUMER_AFTER_COPY = "consumer.after_copy"
    CONSUMER_BEFORE_ACK = "consumer.before_ack"
    CONSUMER_AFTER_ACK = "consumer.after_ack"
    LOG_BEFORE_COMMIT = "log.before_commit"


class Action(Enum):
    """What happens at a place: SIGKILL, a pause in milliseconds, or FailpointStruck."""

    KILL = "kill"
    DELAY = "delay"
    ERROR = "error"


class FailpointStruck(Exception):
    """Raised where FAILPOINTS asks for an error. No part of the engine foresees it."""


@dataclass(slots=True)
class Strike:
    """What happens at a place: at its `nth` pass only (from 1), or at each pass without one."""

    action: Action
    delay_ms: int
    nth: int | None
    passes: int = 0


_armed: Final[dict[Place, Strike]] = {}


async def failpoint(place: Place) -> None:
    """Does nothing, unless the process was started with FAILPOINTS: one look at an empty dictionary."""
    if _armed:
        await _pass(place)


def arm(strikes: Mapping[Place, Strike]) -> None:
    """Replaces what happens where in this process; with nothing in it, failpoints are off."""
    _armed.clear()
    _armed.update(strikes)


def read_failpoints(text: str) -> dict[Place, Strike]:
    """`place=kill|delay:milliseconds|error[@nth]`, separated by commas; raises ValueError for anything else."""
    strikes: dict[Place, Strike] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        place, _, what = part.partition("=")
        what, _, nth = what.partition("@")
        action, _, delay_ms = what.partition(":")
        if (action == Action.DELAY.value) != bool(delay_ms):
            raise ValueError(f"{part}: a delay, and nothing else, needs its milliseconds")
        strike = Strike(Action(action), int(delay_ms or 0), int(nth) if nth else None)
        if strike.delay_ms < 0 or (strike.nth is not None and strike.nth < 1):
            raise ValueError(f"{part}: milliseconds are not negative, and passes count from 1")
        strikes[Place(place)] = strike
    return strikes


async def _pass(place: Place) -> None:
    strike = _armed.get(place)
    if strike is None:
        return
    strike.passes += 1
    if strike.nth is not None and strike.passes != strike.nth:
        return
    match strike.action:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.DELAY:
            await asyncio.sleep(strike.delay_ms / 1000)
        case Action.ERROR:
            raise FailpointStruck(f"{place.value}, pass {strike.passes}")
