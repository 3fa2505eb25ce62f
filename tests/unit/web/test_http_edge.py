"""What a connection may send: a table of what is refused, of what is let pass, and of what the application sees."""

import json

import pytest

from payments_ledger.web import http_edge
from payments_ledger.web.http_edge import HEAD_BYTES_MAX, PIPELINED_MAX, TRAILER_BYTES_MAX
from tests.unit.web.http_connection import SLOW, SLOW_SECONDS, Outcome, converse

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
POST_3 = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"


def head(*lines: bytes, method: bytes = b"GET", target: bytes = b"/") -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: x", *lines, b"", b""])


def in_all_splittings(wire: bytes) -> list[Outcome]:
    """In one piece, byte by byte, and cut in two in some places."""
    places = range(1, len(wire), max(1, len(wire) // 40))
    bytewise = [wire[place : place + 1] for place in range(len(wire))] if len(wire) < 5000 else [wire]
    return [converse(wire), converse(*bytewise), *(converse(wire[:place], wire[place:]) for place in places)]


# ----------------------------------------------------------------------------------------------------------------------
# Refused: the statuses that the client gets, and how many requests the application sees to their end

REFUSED = {
    # The second request is the body of the first, to whoever goes by Content-Length.
    "Upgrade": (head(b"Connection: Upgrade", b"Upgrade: x", b"Content-Length: 27") + GET, [400], 0),
    "Upgrade to a websocket": (head(b"Connection: upgrade", b"Upgrade: websocket"), [400], 0),
    "Upgrade to HTTP/2": (
        head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
        [400],
        0,
    ),
    "Upgrade behind a good request": (GET + head(b"Connection: Upgrade", b"Upgrade: x") + GET, [200, 400], 1),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + GET, [400], 0),
    "HTTP/2 itself": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], 0),
    "HTTP/2.0 by name": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", [505], 0),
    "HTTP/0.9 by name": (b"GET / HTTP/0.9\r\n\r\n", [505], 0),
    "HTTP/0.9": (b"GET /\r\n\r\n", [505], 0),
    "a line feed in the path": (head(target=b"/metrics%0a"), [400], 0),
    "a line feed in the path, upper case": (head(target=b"/docs%0A?a=b"), [400], 0),
    "a NUL in the path": (head(target=b"/a%00b"), [400], 0),
    "a delete in the path": (head(target=b"/a%7f"), [400], 0),
    "a C1 control character in the path": (head(target=b"/a%c2%85b"), [400], 0),
    "a control character in an absolute path": (head(target=b"http://x/a%0d"), [400], 0),
    "a raw control character in the path": (head(target=b"/a\x01b"), [400], 0),
    "a raw tabulator in the path": (head(target=b"/a\tb"), [400], 0),
    "a control character behind a good request": (GET + head(target=b"/%0a") + GET, [200, 400], 1),
    "bytes that are no ASCII in the path": (head(target="/ä".encode()), [400], 0),
    "a NUL in a header": (head(b"A: b\0c"), [400], 0),
    "a line feed alone in a header": (head(b"A: b\nC: d"), [400], 0),
    "a carriage return alone in a header": (head(b"A: b\rC: d"), [400], 0),
    "a blank before the colon": (head(b"A : b"), [400], 0),
    "a folded header": (head(b"A: b", b" c"), [400], 0),
    "two lengths": (head(b"Content-Length: 3", b"Content-Length: 4") + b"abcd", [400], 0),
    "two equal lengths": (head(b"Content-Length: 3", b"Content-Length: 3") + b"abc", [400], 0),
    "a length and chunks": (head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", [400], 0),
    "chunks and a length": (head(b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n", [400], 0),
    "a negative length": (head(b"Content-Length: -3"), [400], 0),
    "a length with a sign": (head(b"Content-Length: +3") + b"abc", [400], 0),
    "a hexadecimal length": (head(b"Content-Length: 0x3") + b"abc", [400], 0),
    "an endless length": (head(b"Content-Length: " + b"9" * 40), [400], 0),
    "chunked, and then something else": (head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", [400], 0),
    "chunked, spelled differently": (head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", [400], 0),
    "a chunk of no size": (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", [400], 0),
    "a chunk of a size with a sign": (CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", [400], 0),
    "a chunk that is longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", [400], 0),
    "a chunk of an endless size": (CHUNKED + b"f" * 20 + b"\r\nabc", [400], 0),
    "a chunk ended by a line feed alone": (CHUNKED + b"3\nabc\n0\n\n", [400], 0),
    "a broken body behind a good request": (GET + CHUNKED + b"x\r\n", [200, 400], 1),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00", [400], 0),
    "nonsense behind a good request": (GET + b"\0\0\0", [200, 400], 1),
    "a long header": (head(b"A: " + b"x" * HEAD_BYTES_MAX), [431], 0),
    "many headers": (head(*[b"A: b"] * (HEAD_BYTES_MAX // 5)), [431], 0),
    "many empty headers": (head(*[b"A:"] * (HEAD_BYTES_MAX // 4)), [431], 0),
    "a long header behind a good request": (GET + head(b"A: " + b"x" * HEAD_BYTES_MAX), [200, 431], 1),
    "a long trailer": (CHUNKED + b"0\r\nA: " + b"x" * TRAILER_BYTES_MAX + b"\r\n\r\n", [431], 0),
    "many trailers": (CHUNKED + b"0\r\n" + b"A: b\r\n" * (TRAILER_BYTES_MAX // 5 + 2), [431], 0),
    "many trailers behind a chunk": (CHUNKED + b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 2000 + b"\r\n" + GET, [431], 0),
    "many trailers behind a good request": (GET + CHUNKED + b"0\r\n" + b"A: b\r\n" * 2000, [200, 431], 1),
    "more requests than may wait": (GET * (PIPELINED_MAX + 1), [200] * PIPELINED_MAX + [400], PIPELINED_MAX),
}


@pytest.mark.parametrize(("wire", "statuses", "whole"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_a_status_and_the_connection_closed(wire: bytes, statuses: list[int], whole: int) -> None:
    outcome = converse(wire)
    assert outcome.statuses == statuses
    assert outcome.is_closed
    assert len([seen for seen in outcome.seen if seen.body is not None]) == whole


@pytest.mark.parametrize(
    ("wire", "statuses", "whole"),
    [case for case in REFUSED.values() if len(case[0]) < 200],
    ids=[name for name, case in REFUSED.items() if len(case[0]) < 200],
)
def test_wherever_the_packets_end_the_refusal_is_the_same(wire: bytes, statuses: list[int], whole: int) -> None:
    for outcome in in_all_splittings(wire):
        assert outcome.statuses == statuses
        assert outcome.is_closed
        assert len([seen for seen in outcome.seen if seen.body is not None]) == whole


# What has no end, and what bounds it.
ENDLESS = {
    "an endless header": head(b"A: " + b"x" * 2 * HEAD_BYTES_MAX)[:-4],
    "an endless header name": GET[:-2] + b"x" * 2 * HEAD_BYTES_MAX,
    "an endless path": b"GET /" + b"x" * 2 * HEAD_BYTES_MAX,
    "an endless trailer": CHUNKED + b"0\r\nA: " + b"x" * 2 * TRAILER_BYTES_MAX,
    "an endless trailer name": CHUNKED + b"0\r\n" + b"x" * 2 * TRAILER_BYTES_MAX,
    "an endless extension of a chunk": CHUNKED + b"3;a=" + b"x" * 2 * TRAILER_BYTES_MAX,
    "endlessly many trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * TRAILER_BYTES_MAX,
    "endlessly many empty trailers": CHUNKED + b"0\r\n" + b"A:\r\n" * TRAILER_BYTES_MAX,
    "endlessly many headers": GET[:-2] + b"A: b\r\n" * HEAD_BYTES_MAX,
}


@pytest.mark.parametrize("wire", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_has_no_end_is_cut_off_at_its_bound(wire: bytes) -> None:
    packets = [wire[place : place + 1000] for place in range(0, len(wire), 1000)]
    outcome = converse(*packets)
    assert outcome.statuses == [431]
    assert outcome.is_closed
    bound = TRAILER_BYTES_MAX if wire.startswith(CHUNKED) else HEAD_BYTES_MAX
    assert converse(*packets[: bound // 1000 - 1]).statuses == []


# ----------------------------------------------------------------------------------------------------------------------
# Let pass: the bodies that the application sees

TRAILERS = b"Authorization: Bearer x\r\nX-Tenant-Id: y\r\nIdempotency-Key: z\r\nX-Forwarded-For: 1.2.3.4\r\n"
PASSED = {
    "a request": (GET, [b""]),
    "two in a row": (GET + GET, [b"", b""]),
    "as many as may wait": (GET * PIPELINED_MAX, [b""] * PIPELINED_MAX),
    "blank lines in front": (b"\r\n\r\n" + GET + b"\r\n" + GET, [b"", b""]),
    "a body, then a request": (POST_3 + b"abc" + GET, [b"abc", b""]),
    "a body that looks like a request": (head(b"Content-Length: 27", method=b"POST") + GET, [GET]),
    "chunks": (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" + GET, [b"abcde", b""]),
    "a chunk with extensions": (CHUNKED + b'3;a=b;c="d e"\r\nabc\r\n0;f\r\n\r\n' + GET, [b"abc", b""]),
    "a chunk of a size with zeros": (CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n" + GET, [b"abc", b""]),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\n" + TRAILERS + b"\r\n" + GET, [b"abc", b""]),
    "trailers without a body": (CHUNKED + b"0\r\n" + TRAILERS + b"\r\n" + GET, [b"", b""]),
    "an empty trailer": (CHUNKED + b"0\r\nAuthorization:\r\n\r\n" + GET, [b"", b""]),
    "trailers up to their bound": (
        CHUNKED + b"0\r\nA: " + b"x" * (TRAILER_BYTES_MAX - 5) + b"\r\n\r\n" + GET,
        [b"", b""],
    ),
    "a long head": (head(b"A: " + b"x" * (HEAD_BYTES_MAX - 100)) + GET, [b"", b""]),
    "an upgrade that Connection does not name": (head(b"Upgrade: h2c") + GET, [b"", b""]),
    "a percent-encoded path": (head(target=b"/%41%20%C3%A4%2f%250a"), [b""]),
    "a control character in the query": (head(target=b"/?a=%0a"), [b""]),
    "a large body and the beginning of a request": (
        head(b"Content-Length: 150000", method=b"POST") + b"x" * 150_000 + GET[:-3],
        [b"x" * 150_000],
    ),
}


@pytest.mark.parametrize(("wire", "bodies"), PASSED.values(), ids=PASSED.keys())
def test_let_pass_and_nothing_of_a_body_becomes_a_header(wire: bytes, bodies: list[bytes]) -> None:
    for outcome in in_all_splittings(wire) if len(wire) < 1000 else [converse(wire)]:
        assert [seen.body for seen in outcome.seen] == bodies
        assert outcome.statuses == [200] * len(bodies)
        names = {name for seen in outcome.seen for name, _ in seen.headers}
        assert names <= {b"host", b"content-length", b"transfer-encoding", b"upgrade", b"a"}


def test_a_refusal_is_a_problem_document_that_names_what_was_asked_for() -> None:
    head_of_it, _, body = converse(head(target=b"/a%0a?b=c")).sent.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (problem["status"], problem["code"], problem["instance"]) == (400, "bad_request", "/a%0a")
    assert f"x-correlation-id: {problem['correlation_id']}".encode() in head_of_it
    assert f"content-length: {len(body)}".encode() in head_of_it


@pytest.mark.parametrize("rest", [b"", GET[:-2]], ids=["alone", "with the beginning of another behind it"])
def test_the_time_for_a_head_is_not_that_for_a_response(monkeypatch: pytest.MonkeyPatch, rest: bytes) -> None:
    monkeypatch.setattr(http_edge, "HEAD_SECONDS_MAX", SLOW_SECONDS / 4)
    outcome = converse(head(target=SLOW) + rest, seconds=SLOW_SECONDS * 2)
    assert outcome.statuses == [200]


def test_whoever_does_not_end_a_head_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_edge, "HEAD_SECONDS_MAX", SLOW_SECONDS / 4)
    for wire in (b"", b"\r\n", GET[:-2]):
        assert converse(wire, seconds=SLOW_SECONDS).is_closed


def test_after_connection_close_nothing_more_is_served() -> None:
    outcome = converse(head(b"Connection: close") + GET)
    assert len(outcome.seen) == 1
    assert outcome.statuses == [200]
    assert outcome.is_closed


def test_a_refusal_waits_for_the_response_to_the_request_before() -> None:
    """Whoever counts responses would otherwise take it for the response to that request."""
    outcome = converse(POST_3 + b"abc", b"\0", GET)
    assert outcome.statuses == [200, 400]
    assert outcome.is_closed
