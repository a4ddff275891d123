"""Connections to a model's server, kept open between requests of one event loop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_ai.models import Model

LINGER_S = 15.0
"""How long connections stay open for the next request."""


class Connection:
    """Opens a model for a request, and keeps its connections open for `linger_s` afterwards.

    It closes itself: a task of the running loop closes the connections when the model has been idle, or when
    the loop shuts down and cancels the task.
    """

    def __init__(self, model: "Model", *, linger_s: float = LINGER_S) -> None:
        self.model = model
        self._linger_s = linger_s
        self._last_ask = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Model", None]:
        """Yield the model, with its connections open."""
        loop = asyncio.get_running_loop()
        async with self.model:  # pydantic-ai counts the entries, and closes after the last exit
            if self._keeper is None or self._keeper.done() or self._keeper.get_loop() is not loop:
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
