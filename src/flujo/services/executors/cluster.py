"""Executors whose workers belong to a cluster: the adapter of all kinds, and what their connections share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flujo.agents.thread_pool import THREADS
from flujo.domain.executor import Needs
from flujo.domain.forks import renew_in_children
from flujo.exceptions import CodeDiffers, ExecutorUnavailable, FlujoError, ResourcesUnavailable, WorkerLost
from flujo.services.executors.batches import Batches
from flujo.services.executors.shipped_code import packed
from flujo.services.executors.wire import encoded_unit, output_of, to_install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flujo.domain.executor import ExecutorFacts, Unit
    from flujo.services.executors.batches import Batch, Place
    from flujo.services.executors.shipped_code import Packed
    from flujo.services.executors.wire import ProjectOnWorker
    from flujo.settings_executors import ExecutorTable

_OFTEN_MEMORY = "a worker is often killed for its memory; `memory` in `resources` of the step reserves it"


class Cluster:
    """Executes units on a cluster, over one connection, which is opened at the first unit.

    Args:
        name: the executor's name in flujo.toml.
        kind: the class of the connection.
        table: its table there.
        project: what the workers need to know.
        code_of: returns the digest of a target's code in this process.
    """

    leaves_process = True

    def __init__(
        self,
        name: str,
        kind: type[ClusterConnection],
        table: ExecutorTable,
        project: ProjectOnWorker,
        code_of: Callable[[str], str | None],
    ) -> None:
        self.name = name
        self._connect = partial(kind, name, table, project)
        self._code_of = code_of
        self._begin()
        renew_in_children(self, type(self)._begin)

    def _begin(self) -> None:
        """Begin without a connection; a forked child does not use that of its parent."""
        self._connection: ClusterConnection | None = None

    async def submit(self, unit: Unit) -> Any:
        """Execute a unit; see `Executor`."""
        connection = await self._connected()
        if (error := connection.problem(unit.needs)) is not None:
            raise error
        data = encoded_unit(unit, self._code_of(unit.target))
        return output_of(await connection.batches.ask(data, unit.needs), unit, self.name)

    async def check(self) -> ExecutorFacts:
        """Connect, and return what the workers have."""
        return await (await self._connected()).facts()

    async def aclose(self) -> None:
        """Cancel what is under way, and disconnect. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> ClusterConnection:
        """Return the connection of this event loop: a new one if there is none, or it has ended."""
        known = self._connection
        if known is None or known.end is not None or known.loop is not asyncio.get_running_loop():
            known = self._connection = self._connect(before=known)
        await known.opened()
        return known


class ClusterConnection(ABC):
    """A connection to a cluster, of one event loop. One that has ended never returns.

    Args:
        name: the executor's name in flujo.toml.
        table: its table there.
        project: what the workers need to know.
        before: the connection that it replaces, which it closes.
    """

    place: ClassVar[str]
    """What its places are called in messages."""
    hint_for_places: ClassVar[str] = ""
    """What else to do when no place has what a unit needs."""

    def __init__(
        self, name: str, table: ExecutorTable, project: ProjectOnWorker, *, before: ClusterConnection | None
    ) -> None:
        self.batches = Batches(name, table.batch_size, self._send)
        self.end: FlujoError | None = None
        """Why it cannot be used any more."""
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._table = table
        self._project = project
        self._opening: asyncio.Task[None] | None = None
        self._closing_before = (
            self.loop.create_task(before.close()) if before is not None and before.loop is self.loop else None
        )

    async def opened(self) -> None:
        """Open it at the first call, and wait until it is open.

        Raises:
            ExecutorUnavailable: it cannot be opened, or was closed before that.
            CodeDiffers: no worker can be used.
        """
        if self._opening is None:
            self._opening = self.loop.create_task(self._begin())
            self._opening.add_done_callback(_retrieved)
        try:
            await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._closed() from None

    async def _begin(self) -> None:
        try:
            await self._open()
        except FlujoError as error:
            self.end = self.end or error
            await self._leave()
            raise

    async def close(self) -> None:
        """Cancel what is under way, and disconnect."""
        if self._opening is not None:
            if self.end is None:  # otherwise it fails by itself, and says why
                self._opening.cancel()
            await asyncio.wait([self._opening])
        await self._leave()
        if self._closing_before is not None:
            await self._closing_before

    def problem(self, needs: Needs) -> FlujoError | None:
        """Return the error of units that no place can ever execute; None if one can."""
        places = self.batches.places.values()
        if self.end is not None or any(place.fits(needs) for place in places):
            return self.end
        if not places:
            return self._without_places()
        has, place = "; ".join(sorted({str(place.has) for place in places})), self.place
        return ResourcesUnavailable(
            f"no {place} of executor {self._name!r} has {needs}; the {place}s have {has}",
            hint=f"lower `resources` of the step, or start a {place} that has them{self.hint_for_places}",
            executor=self._name,
        )

    async def facts(self) -> ExecutorFacts:
        """Return what the places have, and the versions of the workers.

        Raises:
            CodeDiffers: a worker cannot load Flujo, or has another version.
            ExecutorUnavailable: the cluster is gone, or has no workers.
        """
        if (error := self.problem(Needs(cpu=0))) is not None:
            raise error
        return self.batches.facts(await self._abouts())

    async def _packed(self) -> Packed | None:
        """Return the project's modules; None if the workers have them."""
        if self._table.code != "ship":
            return None
        return await THREADS.submit(partial(packed, Path(self._project.root), self._name))

    def _lost(self, text: str, hint: str | None = None) -> WorkerLost:
        """Return the error of units that were sent and have no answer."""
        return WorkerLost(text, hint=hint or _OFTEN_MEMORY, executor=self._name)

    def _differs(self, text: str) -> CodeDiffers:
        """Return the error of a worker without Flujo or with other versions."""
        return CodeDiffers(text, hint=to_install(self._project), executor=self._name)

    @abstractmethod
    async def _open(self) -> None:
        """Connect, and take the places.

        Raises:
            FlujoError: it cannot be opened.
        """

    @abstractmethod
    async def _leave(self) -> None:
        """Let everything fail that waits for this connection, and disconnect. Idempotent."""

    @abstractmethod
    async def _send(self, place: Place, batch: Batch) -> list[bytes]:
        """Return the answers to a batch; cancelled when no caller waits for them.

        Raises:
            WorkerLost: the worker or the cluster is gone.
            CodeDiffers: the worker cannot load Flujo.
        """

    @abstractmethod
    async def _abouts(self) -> Iterable[Mapping[str, str]]:
        """Return the versions of Python and Flujo that workers have."""

    @abstractmethod
    def _without_places(self) -> FlujoError:
        """Return the error of units while there is no place."""

    @abstractmethod
    def _closed(self) -> ExecutorUnavailable:
        """Return the error of units whose connection was closed before it was open."""


def _retrieved(opening: asyncio.Task[None]) -> None:
    """Mark the error of an opening as seen: its caller may have been cancelled."""
    if not opening.cancelled():
        opening.exception()
