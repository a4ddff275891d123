"""Explores every order in which workers can take turns and every point at which they can crash."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import GivenAnswer, Move, NewRun, Pause, RunStatus, Write
from flujo.exceptions import Fenced, IllegalMove, ResumeConflict

if TYPE_CHECKING:
    from random import Random

    from flujo.domain.ports import StateStore

STEPS = (StepPath("first"), StepPath("second"))
"""The steps of the run, in order; the second one ends it."""
QUESTION = StepPath("ask")


class Ground(Interface):
    """The atomic operations of the protocol."""

    async def claim(self, worker: str) -> int | None:
        """Claim the run and return the fence; None when the claim is refused."""
        ...

    async def recorded(self) -> list[StepPath]:
        """Return the recorded steps."""
        ...

    async def write(self, worker: str, fence: int, step: StepPath, *, last: bool) -> bool:
        """Record a step, and the end with the last one; False when the fence is outdated."""
        ...

    async def answer(self, value: int) -> bool:
        """Answer the question; False when it has another answer already."""
        ...

    async def answer_and_claim(self, worker: str, value: int) -> tuple[bool, int | None]:
        """Answer the question and claim the run at once; return whether it is answered, and the fence."""
        ...


@dataclass
class History:
    """What happened in one schedule, in order."""

    fences: list[int] = field(default_factory=list)
    written: list[tuple[int, StepPath]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def wrong(self) -> list[str]:
        """Return the violations of this schedule."""
        found = []
        if any(after <= before for before, after in zip(self.fences, self.fences[1:], strict=False)):
            found.append(f"fences do not grow: {self.fences}")
        steps = [step for _, step in self.written]
        if len(set(steps)) != len(steps):
            found.append(f"a step was recorded twice: {steps}")
        if [fence for fence, _ in self.written] != sorted(fence for fence, _ in self.written):
            found.append(f"a worker wrote with an old fence: {self.written}")
        if len(self.answers) > 1:
            found.append(f"several answers won: {self.answers}")
        return found


Worker = AsyncGenerator[None, None]


async def executing(name: str, ground: Ground, history: History) -> Worker:
    """Act as a worker: claim the run, then record the missing steps. It may crash at each `yield`."""
    fence = await ground.claim(name)
    if fence is None:
        return
    history.fences.append(fence)
    async for _ in _recording(name, fence, ground, history):
        yield


async def _recording(name: str, fence: int, ground: Ground, history: History) -> Worker:
    """Record the missing steps of a claimed run."""
    done = await ground.recorded()
    for step in STEPS:
        if step in done:
            continue
        yield
        if not await ground.write(name, fence, step, last=step == STEPS[-1]):
            return
        history.written.append((fence, step))


async def answering(value: int, ground: Ground, history: History) -> Worker:
    """Act as a human with an answer."""
    if await ground.answer(value):
        history.answers.append(value)
    yield


async def continuing(name: str, value: int, ground: Ground, history: History) -> Worker:
    """Act as a process that answers the question and executes the run."""
    yield
    answered, fence = await ground.answer_and_claim(name, value)
    if answered:
        history.answers.append(value)
    if fence is None:
        return
    history.fences.append(fence)
    async for _ in _recording(name, fence, ground, history):
        yield


@dataclass
class Explored:
    """How much was explored."""

    schedules: int = 0
    crashes: int = 0
    violations: list[str] = field(default_factory=list)


async def explore(
    begin: Callable[[int], Awaitable[tuple[Ground, History, Sequence[Worker]]]],
    *,
    crashes: int,
    most: int = 1_000_000,
    chance: Random | None = None,
    rescue: bool = True,
) -> Explored:
    """Run every schedule of the workers, each with up to `crashes` crashes at every point.

    Args:
        begin: makes a fresh ground with its workers, for the schedule of this number.
        crashes: how many workers may die in one schedule.
        most: after how many schedules to stop.
        chance: chooses the turns of random schedules instead.
        rescue: whether one more worker, running alone, must be able to complete the run.
    """
    explored = Explored()
    prefix: list[int] | None = []
    while prefix is not None and explored.schedules < most:
        ground, history, workers = await begin(explored.schedules)
        taken, died = await _schedule(workers, prefix, crashes, chance)
        explored.schedules += 1
        explored.crashes += died
        wrong = await _rescued(ground, history) if rescue else []
        wrong += history.wrong()
        explored.violations += [f"{[choice for choice, _ in taken]}: {one}" for one in wrong]
        prefix = [] if chance else following(taken)
    return explored


async def _rescued(ground: Ground, history: History) -> list[str]:
    """Let one more worker resume the run alone; return the steps still missing."""
    async for _ in executing("rescuer", ground, history):
        pass
    done = await ground.recorded()
    return [f"in the end the run has only {done}"] if sorted(done) != sorted(STEPS) else []


async def _schedule(
    workers: Sequence[Worker], prefix: Sequence[int], crashes: int, chance: Random | None
) -> tuple[list[tuple[int, int]], int]:
    """Run one schedule; return each choice with its number of options, and how many workers died."""
    alive = list(range(len(workers)))
    taken: list[tuple[int, int]] = []
    died = 0
    while alive:
        options = [(index, False) for index in alive]
        if died < crashes:
            options += [(index, True) for index in alive]
        choice = prefix[len(taken)] if len(taken) < len(prefix) else 0
        if chance:
            choice = chance.randrange(len(options))
        taken.append((choice, len(options)))
        index, dies = options[choice]
        if dies:
            died += 1
            alive.remove(index)
            await workers[index].aclose()
            continue
        try:
            await anext(workers[index])
        except StopAsyncIteration:
            alive.remove(index)
    return taken, died


def following(taken: list[tuple[int, int]]) -> list[int] | None:
    """Return the choices of the next schedule, in depth-first order; None after the last."""
    choices = list(taken)
    while choices:
        choice, options = choices.pop()
        if choice + 1 < options:
            return [*(earlier for earlier, _ in choices), choice + 1]
    return None


# The model of the protocol --------------------------------------------------------------------------------


class Model:
    """The protocol in a few lines. Leases do not block claims, because any lease may have expired."""

    def __init__(self, *, fenced: bool = True) -> None:
        self._fenced = fenced
        self._fence = 1
        self._ended = False
        self._steps: list[StepPath] = []
        self._answer: int | None = None

    async def claim(self, worker: str) -> int | None:
        if self._ended:
            return None
        self._fence += 1
        return self._fence

    async def recorded(self) -> list[StepPath]:
        return list(self._steps)

    async def write(self, worker: str, fence: int, step: StepPath, *, last: bool) -> bool:
        if self._fenced and fence != self._fence:
            return False
        self._steps.append(step)
        self._ended = self._ended or last
        return True

    async def answer(self, value: int) -> bool:
        if self._answer is not None:
            return False
        self._answer = value
        return True

    async def answer_and_claim(self, worker: str, value: int) -> tuple[bool, int | None]:
        answered = await self.answer(value)
        return answered, await self.claim(worker) if answered else None


# The real protocol ----------------------------------------------------------------------------------------


class Stored:
    """A run in a store. Its leases are always expired, so a claim may succeed at any moment."""

    def __init__(self, stores: dict[str, StateStore], run_id: RunId) -> None:
        self._stores = stores
        self._any = next(iter(stores.values()))
        self._run_id = run_id

    async def begin(self) -> None:
        """Accept the run and ask its question."""
        new = NewRun(
            run_id=self._run_id,
            pipeline="explored",
            closure="none",
            input=canonical.encode(1),
            context=canonical.encode({}),
        )
        record = await self._any.accept(new, {})
        pause = Pause(pause_id=QUESTION, message="How much?")
        await self._any.write(Write(run_id=self._run_id, fence=record.fence, pauses=(pause,)))

    async def claim(self, worker: str) -> int | None:
        try:
            claimed = await self._stores[worker].claim(self._run_id, statuses=(RunStatus.RUNNING,))
        except ResumeConflict:
            return None
        return claimed.fence

    async def recorded(self) -> list[StepPath]:
        return [entry.path for entry in await self._any.entries(self._run_id)]

    async def write(self, worker: str, fence: int, step: StepPath, *, last: bool) -> bool:
        entry = Entry(
            path=step, kind=EntryKind.WORK, seq=STEPS.index(step) + 1, output=b"1", fingerprint="step"
        )
        context = canonical.encode({})
        move = Move(status=RunStatus.COMPLETED, output=b"1", context=context, entries=2) if last else None
        try:
            await self._stores[worker].write(
                Write(run_id=self._run_id, fence=fence, entries=(entry,), move=move)
            )
        except (Fenced, IllegalMove):
            return False
        return True

    async def answer(self, value: int) -> bool:
        try:
            await self._any.answer(self._run_id, QUESTION, canonical.encode(value))
        except ResumeConflict:
            return False
        return True

    async def answer_and_claim(self, worker: str, value: int) -> tuple[bool, int | None]:
        given = GivenAnswer(pause_id=QUESTION, value=canonical.encode(value))
        statuses = (RunStatus.RUNNING,)
        try:
            claimed = await self._stores[worker].claim(self._run_id, statuses=statuses, answer=given)
        except ResumeConflict as conflict:
            return conflict.won is None, None
        return True, claimed.fence
