"""Every answer comes in time: from the application, or in its place."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_ledger.web import deadline
from payments_ledger.web.deadline import Deadline

pytestmark = pytest.mark.anyio

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/v1/ledger/balances"}
OK = ({"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body", "body": b"ok"})


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "RESPONSE_SECONDS_MAX", 0.05)


async def nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ask(app: ASGIApp, receive: Receive = nothing, sent: list[Message] | None = None) -> list[Message]:
    sent = [] if sent is None else sent

    async def send(message: Message) -> None:
        sent.append(message)

    await Deadline(app)(SCOPE, receive, send)
    return sent


def app_that(before: Callable[[Receive], Any], *messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await before(receive)
        for message in messages:
            await send(message)

    return app


async def test_an_answer_in_time_is_passed_on() -> None:
    assert await ask(app_that(lambda _: asyncio.sleep(0), *OK)) == list(OK)


async def test_an_application_that_hangs_is_answered_for_and_what_it_says_later_is_not_heard() -> None:
    goes_on = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await goes_on.wait()
        await send(OK[0])
        await send(OK[1])
        ended.set()

    sent: list[Message] = []
    request = asyncio.create_task(ask(app, sent=sent))
    async with asyncio.timeout(5):
        while len(sent) < 2:
            await asyncio.sleep(0.01)
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["code"] == "outcome_unknown"
    goes_on.set()
    await asyncio.wait_for(request, 5)
    assert ended.is_set()
    assert len(sent) == 2


async def test_an_error_after_the_deadline_disturbs_nobody() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.15)
        raise ZeroDivisionError

    assert (await ask(app))[0]["status"] == 503


async def test_the_clients_own_time_does_not_count() -> None:
    async def slowly() -> Message:
        await asyncio.sleep(0.15)
        return await nothing()

    assert await ask(app_that(lambda receive: receive(), *OK), slowly) == list(OK)


async def test_an_answer_on_its_way_is_finished() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OK[0])
        await asyncio.sleep(0.15)
        await send(OK[1])

    assert await ask(app) == list(OK)


async def test_an_error_of_the_application_is_its_own() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(app)


async def test_an_answer_that_comes_in_the_moment_of_the_apology_leaves_the_apology_whole() -> None:
    """As after a halt of the whole process: the deadline has passed, and the answer is there at once, too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        time.sleep(0.1)  # noqa: ASYNC251  # nobody runs meanwhile
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await send(OK[0])
        await send(OK[1])

    sent = await ask(app)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503
