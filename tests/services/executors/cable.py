"""A network cable between two processes, which can be cut without either of them noticing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self


class Cable:
    """Passes the bytes of each connection on. While it is cut they stay where they are, and nothing is closed or refused.

    So TCP behaves for as long as it repeats what was lost: a cable that is repaired delivers everything, later.

    Args:
        host: of the other end.
        port: of the other end.
    """

    def __init__(self, host: str, port: int) -> None:
        self._end = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._is_whole = asyncio.Event(), asyncio.Event()
        """To the other end, and back."""
        self._far: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._thread.start()
        self._server: asyncio.Server = self._call(self._started())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    async def _started(self) -> asyncio.Server:
        for direction in self._is_whole:
            direction.set()
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._open.add(back)
        serving = self._loop.create_task(self._serve(near, back))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        writers = [back]
        try:
            await self._is_whole[0].wait()
            answers, requests = await asyncio.open_connection(*self._end)
            writers.append(requests)
            self._open.add(requests)
            self._far.add(requests)
            await asyncio.gather(self._pass(near, requests, 0), self._pass(answers, back, 1))
        except (ConnectionError, asyncio.CancelledError):
            pass  # an end has closed, or the test is over
        finally:
            for each in writers:
                each.transport.abort()
            self._far.difference_update(writers)
            self._open.difference_update(writers)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: int) -> None:
        while True:
            data = await source.read(65536)
            await self._is_whole[direction].wait()
            if not data:
                raise ConnectionError
            sink.write(data)
            await sink.drain()

    def cut(self, *directions: int) -> None:
        """Cut it: both directions, or 0 to the other end, or 1 back."""
        for each in directions or (0, 1):
            self._loop.call_soon_threadsafe(self._is_whole[each].clear)

    def repair(self) -> None:
        """Deliver the bytes that wait, and pass on those that come."""
        for each in self._is_whole:
            self._loop.call_soon_threadsafe(each.set)

    def give_up_there(self) -> None:
        """Let the other end lose its connections, as when its TCP has repeated for too long. This end learns nothing."""

        async def aborted() -> None:
            for each in list(self._far):
                each.transport.abort()

        self._call(aborted())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        serving = list(self._serving)
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for writer in self._open:  # of a connection that was accepted a moment ago, and not served yet
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close
