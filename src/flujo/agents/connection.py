"""Connections to a model's server, kept open between requests of one event loop."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_ai.models import Model

LINGER_S = 15.0
"""How long connections stay open for the next request."""


class _LoopConnection:
    """The model of one event loop, with its connections."""

    def __init__(self, model: "Model", linger_s: float) -> None:
        self.model = model
        self.pid = os.getpid()
        self._linger_s = linger_s
        self._last_ask = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Model", None]:
        loop = asyncio.get_running_loop()
        async with self.model:  # pydantic-ai counts the entries, and closes after the last exit
            if self._keeper is None or self._keeper.done():
                self._keeper = loop.create_task(self._keep(), name="flujo-connection")
            try:
                yield self.model
            finally:
                self._last_ask = loop.time()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        self._last_ask = loop.time()
        async with self.model:
            # Each request moves the deadline, so there is no event to wait for.
            while (left := self._last_ask + self._linger_s - loop.time()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(left)


class Connection:
    """Opens a model for a request, and keeps its connections open for `linger_s` afterwards.

    Connections belong to the event loop that opened them and cannot be shared with a forked child, so each
    loop gets a model of its own (pydantic-ai has one client for all loops). They close themselves: a task of
    the loop closes them when the model has been idle, or when the loop shuts down and cancels the task.
    """

    def __init__(self, make: Callable[[], "Model"], *, linger_s: float = LINGER_S) -> None:
        self._make = make
        self.model = make()  # made here, so that the caller learns what is missing
        self._unused = [self.model]
        self._linger_s = linger_s
        self._by_loop: dict[asyncio.AbstractEventLoop, _LoopConnection] = {}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Model", None]:
        """Yield the model, with its connections open."""
        loop = asyncio.get_running_loop()
        mine = self._by_loop.get(loop)
        if mine is None or mine.pid != os.getpid():
            mine = self._by_loop[loop] = _LoopConnection(self._model(), self._linger_s)
        async with mine.open() as model:
            yield model

    def _model(self) -> "Model":
        for loop in [each for each in list(self._by_loop) if each.is_closed()]:
            self._by_loop.pop(loop, None)
        try:
            return self._unused.pop()
        except IndexError:
            return self._make()
