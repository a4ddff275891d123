"""Delivers the messages of the outbox to the targets of a project, each at least once."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from flujo.blueprint.sources.callables import load_callable
from flujo.domain import canonical
from flujo.domain.outbox import MessageState, Tried
from flujo.engine.foreign_code import call_storage
from flujo.exceptions import FlujoError, StateError
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.project.imports import importable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flujo.domain.outbox import Message
    from flujo.domain.store import Outbox
    from flujo.services.project.project import Project
    from flujo.services.runs.webhooks import Webhooks
    from flujo.services.workspace import Workspace

LEASE_S = 60.0
"""After this time without a result another process sends the message."""
TRY_S = 30.0
"""How long one try may take; less than the lease, so that two processes do not send at once."""
MOST_TRIES = 18
"""With the waits below, the last try is about three days after the first one."""
_FIRST_WAIT_S, _FACTOR, _LONGEST_WAIT_S = 5.0, 3, 8 * 3600.0
_AT_ONCE = 10
_LONGEST_ERROR = 500

log = logger("flujo.notify")


def wait_s(tries: int, fraction: float) -> float:
    """Return how long to wait after so many tries; `fraction`, in [0, 1), shortens it by up to a fifth."""
    longest: float = min(_FIRST_WAIT_S * _FACTOR ** (tries - 1), _LONGEST_WAIT_S)
    return longest * (1 - fraction / 5)


class Deliveries:
    """Looks for due messages, and sends them in the background.

    A message is leased to one process at a time. A process that dies between a delivery and its record leaves
    the message to another one, which sends it again with the same id.

    Args:
        workspace: the project whose settings name the targets; other messages are left to other projects.
        store: returns the store with the messages.
    """

    def __init__(self, workspace: Workspace, store: Callable[[], Awaitable[Outbox]]) -> None:
        self._workspace = workspace
        self._targets = workspace.project.settings.notify
        self._store = store
        self._sending: set[asyncio.Task[None]] = set()
        self._webhooks: Webhooks | None = None

    async def look(self) -> int:
        """Begin to deliver due messages; return how many.

        Raises:
            StateError: the database cannot be read.
        """
        room = _AT_ONCE - len(self._sending)
        if not self._targets or room <= 0:
            return 0
        store = await self._store()
        taken = await self._take(store, room)
        for message in taken:
            task = asyncio.create_task(self._deliver_all(store, message), name="flujo-messages")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return len(taken)

    async def settled(self) -> None:
        """Wait until the messages that are being sent have been delivered or have failed."""
        while self._sending:
            await asyncio.wait(self._sending)

    async def aclose(self) -> None:
        """Stop; messages that are being sent are left to other processes. Idempotent."""
        for task in self._sending:
            task.cancel()
        await self.settled()
        if self._webhooks is not None:
            await self._webhooks.aclose()
            self._webhooks = None

    def _take(self, store: Outbox, most: int) -> Awaitable[Sequence[Message]]:
        return store.take_messages(list(self._targets), lease_s=LEASE_S, limit=most)

    async def _deliver_all(self, store: Outbox, message: Message) -> None:
        """Deliver a message, and then others one by one, until none is due."""
        taken: Sequence[Message] = (message,)
        try:
            while taken:
                await self._deliver(store, taken[0])
                taken = await self._take(store, 1)
        except StateError as error:
            log.warning("could not look for messages: %s", error)

    async def _deliver(self, store: Outbox, message: Message) -> None:
        tried = await self._tried(message)
        if tried.error is not None:
            rest = (
                "given up" if tried.state is MessageState.GIVEN_UP else f"next try in {tried.retry_s:.0f} s"
            )
            log.warning("message %s to %s: %s; %s", message.id, message.target, tried.error, rest)
        await store.settle_message(message, tried)

    async def _tried(self, message: Message) -> Tried:
        try:
            async with asyncio.timeout(TRY_S):
                await self._send(message)
        except Exception as error:  # noqa: BLE001 - of a receiver, the network or the project's callable
            words = error.message if isinstance(error, FlujoError) else str(error) or type(error).__name__
            is_final = getattr(error, "is_final", False) or message.tries >= MOST_TRIES
            wait = wait_s(message.tries, self._workspace.random.fraction())
            return Tried(GATE.text(words)[:_LONGEST_ERROR], None if is_final else wait)
        return Tried()

    async def _send(self, message: Message) -> None:
        from flujo.services.runs import webhooks

        table = self._targets[message.target]
        if table.callable is not None:
            await call_storage(
                lambda: _called(self._workspace.project, table.callable or "", message), table.callable
            )
            return
        url, secret = self._workspace.project.settings.webhook(message.target)
        key = webhooks.key_of(secret, f"notify.{message.target}")
        if self._webhooks is None:
            self._webhooks = webhooks.Webhooks()
        await self._webhooks.send(message, url, key, int(self._workspace.clock.now()))


async def _called(project: Project, target: str, message: Message) -> None:
    """Call a callable of the project with a message; the setting itself is what allows importing it."""
    importable(project.root)
    function = load_callable(target, (target.partition(":")[0],))
    given: dict[str, Any] = {"id": message.key, **canonical.decode(message.payload)}
    if inspect.iscoroutinefunction(function):
        await function(given)
    else:
        await asyncio.to_thread(function, given)
