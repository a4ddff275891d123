"""Units that wait for a cluster: each is sent in a batch when there is room, and never more than fits."""

from __future__ import annotations

import asyncio
import copy
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flujo.domain.executor import ExecutorFacts, Needs
from flujo.domain.wording import reason
from flujo.exceptions import FlujoError, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

AHEAD = 2
"""How many units of one core a place gets for each of its cores: one that runs, and one that is ready."""


@dataclass(eq=False, kw_only=True)
class Place:
    """A worker, or a whole cluster that places units itself: what it has, and what it was sent.

    Args:
        key: under which it is one of the places.
        name: for messages.
        has: what it has; a `memory` of 0 means that no limit is known.
    """

    key: str
    name: str
    has: Needs
    cpu: float = 0.0
    """Of the units that it was sent and has not answered, as the next two."""
    gpu: float = 0.0
    memory: int = 0
    stopping: int = 0
    """How many batches it must abandon and has not confirmed; until then it is sent nothing."""
    batches: set[Batch] = field(default_factory=set)

    def fits(self, needs: Needs) -> bool:
        """Return whether it can execute such a unit when it has nothing else to do."""
        has = self.has
        return (
            needs.cpu <= has.cpu and needs.gpu <= has.gpu and (not has.memory or needs.memory <= has.memory)
        )

    def room(self, needs: Needs) -> int:
        """Return how many batches with these needs it can be sent now."""
        if self.stopping or not self.fits(needs):
            return 0
        cores = self.has.cpu * (AHEAD if needs.cpu <= 1 and not needs.gpu and not needs.memory else 1)
        room = (cores - self.cpu) / needs.cpu
        if needs.gpu:
            room = min(room, (self.has.gpu - self.gpu) / needs.gpu)
        if needs.memory and self.has.memory:
            room = min(room, (self.has.memory - self.memory) / needs.memory)
        return max(0, math.floor(room + 1e-9))

    def take(self, needs: Needs, sign: int = 1) -> None:
        """Count a batch that was sent; with a `sign` of -1, one that has ended."""
        self.cpu += sign * needs.cpu
        self.gpu += sign * needs.gpu
        self.memory += sign * needs.memory


class Asked:
    """A unit as data, and the future of its answer."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class Batch:
    """Units that are executed one after the other by one task of the cluster."""

    def __init__(self, asked: Sequence[Asked], needs: Needs) -> None:
        self.asked = asked
        self.needs = needs
        self.task: asyncio.Task[None] | None = None
        self._left = len(asked)
        for each in asked:
            each.answer.add_done_callback(self._ended)

    @property
    def units(self) -> list[bytes]:
        """The units as data."""
        return [each.data for each in self.asked]

    def _ended(self, answer: asyncio.Future[bytes]) -> None:
        """Cancel the task when no caller waits for any of its answers."""
        self._left -= 1
        if self._left == 0 and answer.cancelled() and self.task is not None:
            self.task.cancel()

    def settle(self, answers: Sequence[bytes]) -> None:
        """Give each unit its answer."""
        for each, answer in zip(self.asked, answers, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)

    def fail(self, error: FlujoError) -> None:
        """Give each unit without an answer a copy of an error."""
        for each in self.asked:
            if not each.answer.done():
                each.answer.set_exception(copy.copy(error))


class Batches:
    """Sends units to places, at most what fits there, in the order in which they came.

    It never waits for more units: a batch has what is there when a place has room, shared among the places
    that have room. All of it belongs to one event loop.

    Args:
        executor: its name, for errors.
        batch_size: how many units one task of the cluster executes at most.
        send: sends a batch, and returns the answers in its order. It is cancelled when no caller waits for
            them.
    """

    def __init__(
        self,
        executor: str,
        batch_size: int,
        send: Callable[[Place, Batch], Awaitable[Sequence[bytes]]],
    ) -> None:
        self._executor = executor
        self.places: dict[str, Place] = {}
        self._batch_size = batch_size
        self._send = send
        self._waiting: dict[Needs, deque[Asked]] = {}
        self._is_due = False

    async def ask(self, data: bytes, needs: Needs) -> bytes:
        """Return the answer to a unit, once a place had room for it and has executed it.

        Raises:
            WorkerLost: its place is gone.
        """
        asked = Asked(data)
        self._waiting.setdefault(needs, deque()).append(asked)
        self.move()
        return await asked.answer

    def move(self) -> None:
        """Send what fits, after what else is ready in this turn of the event loop."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._move)

    def _move(self) -> None:
        self._is_due = False
        for needs, waiting in list(self._waiting.items()):
            while waiting and self._send_next(needs, waiting):
                pass
            if not waiting:
                del self._waiting[needs]

    def _send_next(self, needs: Needs, waiting: deque[Asked]) -> bool:
        """Send one batch; return False when nothing has room."""
        rooms = [(place, room) for place in self.places.values() if (room := place.room(needs))]
        if not rooms:
            return False
        place = min((place for place, _ in rooms), key=lambda each: each.cpu / each.has.cpu)
        count = min(self._batch_size, math.ceil(len(waiting) / sum(room for _, room in rooms)))
        asked = [waiting.popleft() for _ in range(count)]
        asked = [each for each in asked if not each.answer.done()]
        if asked:
            batch = Batch(asked, needs)
            place.take(needs)
            place.batches.add(batch)
            batch.task = asyncio.get_running_loop().create_task(self._run(place, batch))
        return True

    async def _run(self, place: Place, batch: Batch) -> None:
        try:
            batch.settle(await self._send(place, batch))
        except FlujoError as error:
            batch.fail(error)
        except Exception as error:  # noqa: BLE001 - of the library; the batch may have been executed
            text = f"{place.name} gave no answer (executor {self._executor!r}): {reason(error)}"
            batch.fail(WorkerLost(text, executor=self._executor))
        finally:
            place.batches.discard(batch)
            place.take(batch.needs, -1)
            self.move()

    def lose(self, key: str, error: FlujoError) -> None:
        """Forget a place that is gone: the units that it was sent fail."""
        place = self.places.pop(key, None)
        for batch in [] if place is None else list(place.batches):
            batch.fail(error)
            if batch.task is not None:
                batch.task.cancel()

    def refuse(self, error_of: Callable[[Needs], FlujoError | None]) -> None:
        """Let waiting units fail whose needs have an error."""
        for needs, waiting in self._waiting.items():
            for each in list(waiting):
                if not each.answer.done() and (error := error_of(needs)) is not None:
                    each.answer.set_exception(copy.copy(error))
                    waiting.remove(each)

    def facts(self, abouts: Iterable[Mapping[str, str]]) -> ExecutorFacts:
        """Return what the places have together.

        Args:
            abouts: of each worker the versions that it has, as `python` and `flujo`.
        """
        has, known = [place.has for place in self.places.values()], list(abouts)
        return ExecutorFacts(
            workers=len(has),
            has=Needs(
                cpu=sum(each.cpu for each in has),
                gpu=sum(each.gpu for each in has),
                memory=sum(each.memory for each in has),
            ),
            python=tuple(sorted({about["python"] for about in known})),
            flujo=tuple(sorted({about["flujo"] for about in known})),
        )
