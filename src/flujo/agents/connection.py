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
    """The model of one event loop, with its connections.

    A task of its own enters the model and exits it, so that a request changes a number only: it can
    be cancelled at any moment, and an exit that is cancelled half-way leaves connections open for good.
    """

    def __init__(self, model: "Model", linger_s: float) -> None:
        self.model = model
        self.pid = os.getpid()
        self._linger_s = linger_s
        self._requests = 0
        self._is_idle = asyncio.Event()
        self._idle_since = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._is_entered: asyncio.Future[None]

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Model", None]:
        loop = asyncio.get_running_loop()
        self._requests += 1
        self._is_idle.clear()
        try:
            if self._keeper is None or self._keeper.done():
                self._is_entered = loop.create_future()
                self._keeper = loop.create_task(self._keep(self._is_entered), name="flujo-connection")
            if not self._is_entered.done():
                keeper = self._keeper
                await asyncio.wait((keeper, self._is_entered), return_when=asyncio.FIRST_COMPLETED)
                if keeper.done():
                    keeper.result()  # raises what the model raised
            yield self.model
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle_since = loop.time()
                self._is_idle.set()

    async def _keep(self, is_entered: "asyncio.Future[None]") -> None:
        loop = asyncio.get_running_loop()
        async with self.model:
            is_entered.set_result(None)
            try:
                while self._requests or loop.time() < self._idle_since + self._linger_s:
                    await self._is_idle.wait()
                    await asyncio.sleep(self._idle_since + self._linger_s - loop.time())
            finally:
                self._keeper = None  # a request that comes while this one closes needs another


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
