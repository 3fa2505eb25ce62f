"""A TCP proxy between a process and a service, which can do what networks do: delay, swallow, reset, lose a reply."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tests.faults.background import Background

CHUNK_BYTES_MAX = 64 * 1024
# Between a service's last words and its end.
HANGING_UP_SECONDS = 0.05


class Proxy:
    """Listens on loopback at `port` and carries every connection to `target`, a port or the path of a socket.

    What it does to connections holds for those that exist and those to come, until `heal`.
    """

    def __init__(self, background: Background, target: int | Path) -> None:
        self._background = background
        self._target = target
        self._links: set[_Link] = set()
        self._delay_seconds = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._reply_bytes_max: int | None = None
        self._losing: tuple[bytes, bool] | None = None
        self._last_words: tuple[bytes, bytes] | None = None
        self.losses = 0
        self.port = 0
        self._server = background.run(self._listen())

    def delay(self, seconds: float) -> None:
        """Every chunk takes so long, in both directions."""
        self._apply(lambda: setattr(self, "_delay_seconds", seconds))

    def black_hole(self) -> None:
        """Nothing arrives any more, and nobody is told. What was swallowed arrives when the network is healed."""
        self._apply(self._flows.clear)

    def reset(self) -> None:
        """Resets every connection."""
        self._apply(self._reset)

    def refuse(self) -> None:
        """Resets every connection, and each new one as soon as it is there."""

        def change() -> None:
            self._refuses = True
            self._reset()

        self._apply(change)

    def cut_replies_after(self, number_of_bytes: int) -> None:
        """Resets each connection as soon as so many bytes have come back over it from now on."""

        def change() -> None:
            self._reply_bytes_max = number_of_bytes
            for link in self._links:
                link.reply_bytes = 0

        self._apply(change)

    def lose_reply_to(self, request: bytes) -> None:
        """Of the next request that holds these bytes the reply is lost, and its connection with it."""
        self._apply(lambda: setattr(self, "_losing", (request, True)))

    def lose_request(self, request: bytes) -> None:
        """The next request that holds these bytes is lost, and its connection with it."""
        self._apply(lambda: setattr(self, "_losing", (request, False)))

    def reply_instead(self, request: bytes, reply: bytes) -> None:
        """The next request that holds these bytes arrives, but is answered with `reply`, and then cut off."""
        self._apply(lambda: setattr(self, "_last_words", (request, reply)))

    def heal(self) -> None:
        def change() -> None:
            self._delay_seconds = 0.0
            self._refuses = False
            self._reply_bytes_max = None
            self._losing = None
            self._last_words = None
            self._flows.set()

        self._apply(change)

    def close(self) -> None:
        self._background.run(self._close())

    def _apply(self, change: Callable[[], object]) -> None:
        async def apply() -> None:
            change()

        self._background.run(apply())

    def _reset(self) -> None:
        for link in list(self._links):
            link.abort()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self) -> None:
        self._server.close()
        self._reset()
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there, back = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, back)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(link, reader, back, self._forward))
                tasks.create_task(self._pump(link, there, writer, self._reply))
        except* OSError:
            pass
        finally:
            link.abort()
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pump(
        self,
        link: "_Link",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        may_pass: Callable[["_Link", bytes], Awaitable[bool]],
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES_MAX):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._flows.wait()
            if not await may_pass(link, chunk):
                raise ConnectionResetError
            if may_pass == self._reply and link.last_words is not None:
                writer.write(link.last_words)
                await asyncio.sleep(HANGING_UP_SECONDS)
                raise ConnectionResetError
            writer.write(chunk)
            await writer.drain()
        # Either side's end is the end of both, as with the clients that are carried here.
        raise ConnectionResetError

    async def _forward(self, link: "_Link", chunk: bytes) -> bool:
        if self._losing and self._losing[0] in chunk:
            _, arrives = self._losing
            self._losing = None
            self.losses += 1
            link.loses_reply = arrives
            return arrives
        if self._last_words and self._last_words[0] in chunk:
            _, link.last_words = self._last_words
            self._last_words = None
            self.losses += 1
        return True

    async def _reply(self, link: "_Link", chunk: bytes) -> bool:
        link.reply_bytes += len(chunk)
        if self._reply_bytes_max is not None and link.reply_bytes > self._reply_bytes_max:
            self.losses += 1
            return False
        return not link.loses_reply


class _Link:
    """One connection: towards the client and towards the service."""

    def __init__(self, client: asyncio.StreamWriter, service: asyncio.StreamWriter) -> None:
        self._writers = (client, service)
        self.reply_bytes = 0
        self.loses_reply = False
        # What is said in place of the next reply, before the connection ends.
        self.last_words: bytes | None = None

    def abort(self) -> None:
        for writer in self._writers:
            with suppress(OSError):
                writer.transport.abort()
