"""Made-up connections: what the application sees is what was meant, wherever packets end and whatever was mangled.

500 of them by default, 10,000 with `--hypothesis-profile=nightly`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h11
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.web.http_edge import PIPELINED_MAX
from tests.profiles import examples
from tests.unit.web.http_connection import Outcome, Seen, converse

CONNECTIONS = 500

# ----------------------------------------------------------------------------------------------------------------------
# Requests as they are meant, and as they are written


@dataclass(frozen=True)
class Meant:
    """A request, and how its sender chose to write it."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    # The sizes of its chunks; None for a body with a Content-Length.
    chunk_sizes: tuple[int, ...] | None
    chunk_extension: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    blank_lines: int
    blanks: bytes

    def written(self) -> bytes:
        framing = (
            (b"Transfer-Encoding", b"chunked") if self.chunk_sizes is not None else (b"Content-Length", self._length)
        )
        fields = [(b"Host", b"x"), *self.headers]
        head = b"".join(name + b":" + self.blanks + value + self.blanks + b"\r\n" for name, value in fields)
        if self.chunk_sizes is not None or self.body or self.method == b"POST":
            # Tabulators around these two are refused.
            head += b": ".join(framing) + b"\r\n"
        start = b"\r\n" * self.blank_lines + self.method + b" " + self.target + b" HTTP/1.1\r\n"
        return start + head + b"\r\n" + (self._chunks() if self.chunk_sizes is not None else self.body)

    def seen(self) -> Seen:
        """As the application should have it, but for the two headers that `written` may add at the end."""
        headers = ((b"host", b"x"), *((name.lower(), value) for name, value in self.headers))
        return Seen(self.method.decode(), self.target, headers, self.body)

    @property
    def _length(self) -> bytes:
        return str(len(self.body)).encode()

    def _chunks(self) -> bytes:
        written, rest = b"", self.body
        for size in self.chunk_sizes or ():
            chunk, rest = rest[:size], rest[size:]
            if chunk:
                written += b"%x" % len(chunk) + self.chunk_extension + b"\r\n" + chunk + b"\r\n"
        if rest:
            written += b"%X" % len(rest) + self.chunk_extension + b"\r\n" + rest + b"\r\n"
        trailers = b"".join(name + b": " + value + b"\r\n" for name, value in self.trailers)
        return written + b"0" + self.chunk_extension + b"\r\n" + trailers + b"\r\n"


NAMES = st.sampled_from(
    [b"Authorization", b"X-Tenant-Id", b"Idempotency-Key", b"X-Forwarded-For", b"x-a", b"A", b"!#$%&'*+-.^_`|~9"]
)
# Without blanks at its ends; what a field may hold by RFC 9110, section 5.5.
VALUES = st.binary(max_size=20).map(lambda value: bytes(byte for byte in value if byte > 32 and byte != 127))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
SEGMENTS = st.sampled_from([b"", b"v1", b"a.b", b"%41", b"%C3%A4", b"%2f", b"~", b";x=1", b"x" * 100])
TARGETS = st.builds(
    lambda segments, query: b"/" + b"/".join(segments) + (b"?" + query if query else b""),
    # An empty first segment would make it the name of a host.
    st.lists(SEGMENTS, max_size=4).map(lambda segments: segments if segments[:1] != [b""] else segments[1:]),
    st.sampled_from([b"", b"a=b", b"a=%0a", b"a=b&c=/?"]),
).filter(lambda target: not target.startswith(b"//"))
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"0\r\n\r\n", b"\r\n\r\n", b"x" * 500]),
)
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"', b";a=b;c=d", b";" + b"x" * 100])
REQUESTS = st.builds(
    Meant,
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS"]),
    target=TARGETS,
    headers=FIELDS,
    body=BODIES,
    chunk_sizes=st.none() | st.lists(st.integers(1, 30), max_size=6).map(tuple),
    chunk_extension=EXTENSIONS,
    trailers=FIELDS,
    blank_lines=st.integers(0, 2),
    blanks=st.sampled_from([b"", b" ", b" \t "]),
)
CONVERSATIONS = st.lists(REQUESTS, min_size=1, max_size=PIPELINED_MAX // 2)


def cut_up(draw: st.DrawFn, wire: bytes) -> list[bytes]:
    """The bytes in packets: byte by byte, or with an end at any places."""
    if len(wire) <= 600 and draw(st.booleans()):
        return [wire[place : place + 1] for place in range(len(wire))]
    ends = sorted(draw(st.sets(st.integers(1, max(1, len(wire) - 1)), max_size=20)))
    return [wire[start:end] for start, end in zip([0, *ends], [*ends, len(wire)], strict=True) if start < end]


@st.composite
def connections(draw: st.DrawFn) -> tuple[list[Meant], list[bytes]]:
    """Requests, and the packets that bring them."""
    requests = draw(CONVERSATIONS)
    return requests, cut_up(draw, b"".join(request.written() for request in requests))


FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def without_framing(seen: Sequence[Seen]) -> list[Seen]:
    return [
        Seen(each.method, each.target, tuple(field for field in each.headers if field[0] not in FRAMING), each.body)
        for each in seen
    ]


@examples(CONNECTIONS)
@given(connections())
def test_the_application_sees_what_was_meant_wherever_the_packets_end(
    connection: tuple[list[Meant], list[bytes]],
) -> None:
    requests, packets = connection
    outcome = converse(*packets)
    assert without_framing(outcome.seen) == [request.seen() for request in requests]
    assert outcome.statuses == [200] * len(requests)
    assert not outcome.is_closed


# ----------------------------------------------------------------------------------------------------------------------
# Mangled

NASTY = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\x0b", b" ", b"\t", b":", b";", b",", b"0", b"f", b"-", b"+"),
        *(b"\x7f", b"\x85", b"\xff", b"%0a", b"%", b"0\r\n\r\n", b"0\r\n"),
        *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding\r\n"),
        *(b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: x\r\n", b"Expect: 100-continue\r\n"),
        *(b" folded\r\n", b"HTTP/1.0", b"HTTP/2.0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ]
)


@st.composite
def mangled(draw: st.DrawFn) -> list[bytes]:
    """The packets of a connection, with one to three things put in, taken out, doubled or changed."""
    wire = b"".join(request.written() for request in draw(CONVERSATIONS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(wire)))
        end = min(len(wire), start + draw(st.integers(0, 12)))
        put = draw(st.one_of(NASTY, st.just(b""), st.just(wire[start:end] * 2), st.binary(min_size=1, max_size=2)))
        wire = wire[:start] + put + wire[end:]
    return cut_up(draw, wire)


@examples(CONNECTIONS)
@given(mangled())
def test_mangled_bytes_mean_the_same_wherever_the_packets_end(packets: list[bytes]) -> None:
    whole, cut = converse(b"".join(packets)), converse(*packets)
    assert complete(whole) == complete(cut)
    assert (whole.is_closed, whole.statuses) == (cut.is_closed, cut.statuses)


@examples(CONNECTIONS)
@given(mangled())
def test_mangled_bytes_are_read_as_another_parser_reads_them_or_refused(packets: list[bytes]) -> None:
    """Where two parsers differ, a proxy may see other requests than we do. h11 shares nothing with ours."""
    wire = b"".join(packets)
    for ours, theirs in zip(complete(converse(wire)), read_by_h11(wire), strict=False):
        assert ours == theirs


def complete(outcome: Outcome) -> list[Seen]:
    return [seen for seen in outcome.seen if seen.body is not None]


def read_by_h11(wire: bytes) -> Iterator[Seen]:
    """The requests that h11 reads, up to the first that it refuses or that is not complete."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(wire)
    request: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            path, _, query = request.target.partition(b"#")[0].partition(b"?")
            # The application cannot tell an empty query from none.
            target = path + b"?" + query if query else path
            yield Seen(request.method.decode(), target, tuple(request.headers), body)
            connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()
        else:
            return
