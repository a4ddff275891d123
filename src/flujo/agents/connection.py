"""Connections to a model's server that outlive one ask, and never the event loop that opened them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_ai.models import Model

LINGER_S = 15.0
"""How long connections stay open for the next ask."""


class Connection:
    """Opens a model while it is asked, and keeps it open for a while after.

    Nobody has to close it: a task of the running loop does so when the model has been idle, and when the
    loop shuts down it cancels that task, which closes the connections first.
    """

    def __init__(self, model: "Model", *, linger_s: float = LINGER_S) -> None:
        self.model = model
        self._linger_s = linger_s
        self._last_ask = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Model", None]:
        """Give the model, with connections that stay open until this is left and a while longer."""
        loop = asyncio.get_running_loop()
        async with self.model:  # pydantic-ai counts who has entered, and closes after the last one
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
            # Each ask moves the deadline, so there is no event to wait for.
            while (left := self._last_ask + self._linger_s - loop.time()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(left)
