"""What a connection may send before we know who it is: the one place that bounds HTTP/1.1 requests and refuses them.

The parser (llhttp) decides what is a request (RFC 9112). It keeps what it is sent, however much, and it knows framings
in which a proxy would see other requests than we do. BoundedHttp refuses both, and closes the connection.
"""

import asyncio
import json
import re
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
import structlog
from uuid_utils import uuid4
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from payments_ledger.web.problems import INSTANCE_LENGTH_MAX

log = structlog.get_logger(__name__)

# Request line and headers. Room for a token, and for a header that is too long to be refused by its name.
HEAD_BYTES_MAX = 32 * 1024
# From the first byte, or from the opening of the connection, to the end of the head.
HEAD_SECONDS_MAX = 10.0
# What is still worth skipping: nobody here reads trailers (RFC 9110, section 6.5), nor a chunk's extensions.
TRAILER_BYTES_MAX = 8 * 1024
# Requests of one connection that were read and have no response yet. Clients send the next one after the response.
PIPELINED_MAX = 16
# The least that stands around a name and its value: a colon and a line's end.
FIELD_OVERHEAD = 3

HTTP_VERSIONS = frozenset({"1.0", "1.1"})
# Of the whole path, decoded: patterns that end in `$` match in front of a line feed, and logs have one line a path.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Refusal(NamedTuple):
    """A status and a detail for people, decided before there is a request."""

    status: HTTPStatus
    detail: str

    def response(self, path: str) -> bytes:
        """A whole response to whoever asked for the path, if it came so far: a problem document (RFC 9457)."""
        correlation_id = str(uuid4())
        log.info("refused", path=path, status=int(self.status), reason=self.detail, correlation_id=correlation_id)
        problem = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": path,
            "code": self.status.name.lower(),
            "correlation_id": correlation_id,
        }
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {self.status} {self.status.phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nx-correlation-id: {correlation_id}\r\nx-content-type-options: nosniff\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        return head.encode() + body


UNREADABLE = Refusal(HTTPStatus.BAD_REQUEST, "This is not HTTP/1.1.")
UPGRADE = Refusal(HTTPStatus.BAD_REQUEST, "The protocol of a connection cannot be changed here.")
CONTROL_CHARACTER = Refusal(HTTPStatus.BAD_REQUEST, "The path has a control character.")
TOO_MANY_AT_ONCE = Refusal(HTTPStatus.BAD_REQUEST, f"A connection may have {PIPELINED_MAX} requests unanswered.")
WRONG_VERSION = Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
HEAD_TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"Request line and headers have {HEAD_BYTES_MAX} bytes at most."
)
TRAILERS_TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"Trailers have {TRAILER_BYTES_MAX} bytes at most."
)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol within the bounds above. What it refuses ends the connection; trailers are dropped."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.url = b""
        self._in_head = True
        # Of the head, or of the trailers, as far as the parser has reported them.
        self._section_bytes = 0
        # Fed to the parser since it last reported anything that is not a single field.
        self._unheard_bytes = 0
        self._unanswered = 0
        self._refusal: Refusal | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal:
            return
        self._unheard_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > (HEAD_BYTES_MAX if self._in_head else TRAILER_BYTES_MAX):
            # The parser tells of a field when it has all of it, so an endless one shows only here.
            self._refuse(HEAD_TOO_LARGE if self._in_head else TRAILERS_TOO_LARGE)
        # Blank lines between requests end uvicorn's own watch over an idle connection without beginning a request.
        elif not self._unanswered:
            self._watch_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._section_bytes = self._unheard_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url), HEAD_BYTES_MAX, HEAD_TOO_LARGE)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + FIELD_OVERHEAD
        if self._in_head:
            self._count(size, HEAD_BYTES_MAX, HEAD_TOO_LARGE)
            # The parser leaves the blanks behind a value, which are no part of it (RFC 9110, section 5.5).
            super().on_header(name, value.rstrip(b" \t"))
        else:
            self._count(size, TRAILER_BYTES_MAX, TRAILERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            # The parser would take the body for the next request, whatever Content-Length says.
            self._stop(UPGRADE)
        if self.parser.get_http_version() not in HTTP_VERSIONS:
            self._stop(WRONG_VERSION)
        if b"%" in self.url and _CONTROL.search(unquote(self.url.partition(b"?")[0])):
            self._stop(CONTROL_CHARACTER)
        if self._unanswered == PIPELINED_MAX:
            self._stop(TOO_MANY_AT_ONCE)
        super().on_headers_complete()
        self._in_head = False
        self._section_bytes = self._unheard_bytes = 0
        self._unanswered += 1
        self._head_is_there()

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._unheard_bytes = 0
        self.url = b""
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        if self._refusal:
            self._refuse(self._refusal)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser ended, by an error of its own or by `_stop`."""
        self._refuse(self._refusal or UNREADABLE)

    def _count(self, size: int, bytes_max: int, refusal: Refusal) -> None:
        self._section_bytes += size
        if self._section_bytes > bytes_max:
            self._stop(refusal)

    def _stop(self, refusal: Refusal) -> None:
        """Ends the parser, from one of its callbacks."""
        self._refusal = refusal
        raise httptools.HttpParserError

    def _refuse(self, refusal: Refusal) -> None:
        """Sends the refusal and closes, once the requests that came before what is refused have their responses."""
        self._refusal = refusal
        # What is wrong with a body is wrong with a request that the application has begun.
        begun = self.cycle if not self._in_head and not self.cycle.response_complete else None
        if self._unanswered > (begun is not None) or self.transport.is_closing():
            return
        if self._in_head or (begun and not begun.response_started):
            path = self.url.partition(b"?")[0][:INSTANCE_LENGTH_MAX].decode("ascii", errors="replace")
            self.transport.write(refusal.response(path))
        self.transport.close()

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.close)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
