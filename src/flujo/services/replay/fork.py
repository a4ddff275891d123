"""Forks of blueprints' runs, for the command line: one or several, and the calls that they did not make."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.run_forks import STUBBED, Forked
from flujo.domain.usage import NOTHING, Usage
from flujo.services.runs.forks import execute_fork, require_forkable
from flujo.services.runs.run_services import RunServices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.models import PipelineResult
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Sink
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.forks import Fork
    from flujo.services.runs.service import RunService
    from flujo.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class StubbedCall:
    """A call with an effect that a fork has not made."""

    path: StepPath
    tool: str
    by: str
    """The origin of its result: `recorded` by the parent, or the `answer` of a human."""


@dataclass(frozen=True, slots=True)
class ForkedRun:
    """A fork as it is now, and what it did after its point."""

    result: PipelineResult[Any, Any]
    forked: Forked
    stubbed: tuple[StubbedCall, ...]
    used: Usage
    """What the fork used itself."""
    seconds: float
    """From its acceptance to its end or pause."""
    input: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """An output, or an error, that some of several forks have in common."""

    status: str
    output: Any
    error: str | None
    runs: tuple[ForkedRun, ...]

    @property
    def used(self) -> Usage:
        """What these forks used together."""
        return sum((each.used for each in self.runs), NOTHING)

    @property
    def seconds(self) -> float:
        """How long they took on average."""
        return sum(each.seconds for each in self.runs) / len(self.runs)


async def fork_runs(
    ws: Workspace,
    run: str,
    wanted: Callable[[Pipeline], Fork],
    *,
    count: int = 1,
    actor: Actor,
    sink: Sink | None = None,
    stop: Stop | None = None,
) -> list[ForkedRun]:
    """Fork a run `count` times and execute the forks at once; see `Flujo.fork_async`.

    Args:
        ws: the project.
        run: an id, a unique prefix of one, or `@last`.
        wanted: returns the wanted changes, from the pipeline that the run has pinned.
        count: how many forks; only for one of them events are sent.
        actor: who forks.
        sink: gets the events of the fork.
        stop: why the forks are stopped.

    Raises:
        RunNotFound: no run, or several, are meant.
        ForkPointMissing | ForkRefused | InputRejected | SettingsError | CorruptState: see `Flujo.fork_async`.
    """
    store = await ws.store()
    record = await store.find(run)
    require_forkable(record)
    services = await RunServices.of_project(ws)
    fork = wanted((await services.of_run(record)).runtime.pipeline)
    service = await services.of_fork(record, fork.overrides)
    async with services.tasks.stay():
        if count == 1:
            return [await _executed(store, record, service, fork, actor, sink, stop)]
        try:
            async with asyncio.TaskGroup() as group:
                forks = [
                    group.create_task(_executed(store, record, service, fork, actor, None, stop))
                    for _ in range(count)
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [each.result() for each in forks]


async def _executed(
    store: StateStore,
    record: RunRecord,
    service: RunService,
    fork: Fork,
    actor: Actor,
    sink: Sink | None,
    stop: Stop | None,
) -> ForkedRun:
    result = await execute_fork(store, record, service, fork, actor, sink=sink, stop=stop)
    return await forked_run(store, result)


async def forked_run(store: StateStore, result: PipelineResult[Any, Any]) -> ForkedRun:
    """Return what a fork did after its point."""
    run = await store.run(result.run_id)
    forked = Forked.of(await store.acts(run.run_id))
    if forked is None:
        raise ValueError(f"run {run.run_id} is not a fork")
    own = [entry for entry in await store.entries(run.run_id) if entry.seq > forked.copied]
    used = sum((entry.usage for entry in own), NOTHING)
    details = ((entry.path, canonical.decode(entry.detail)) for entry in own if entry.detail)
    stubbed = tuple(
        StubbedCall(path, detail.get("tool") or detail.get("call", ""), detail[STUBBED])
        for path, detail in details
        if STUBBED in detail
    )
    forked = replace(forked, stubs=None)  # the stubbed calls have their results
    seconds = max(0.0, run.updated_at - run.created_at)
    return ForkedRun(result, forked, stubbed, used, seconds, canonical.decode(run.input))


def outcomes(forks: Sequence[ForkedRun]) -> list[Outcome]:
    """Return the distinct outcomes of several forks, the most frequent first."""
    told = [_told(each.result) for each in forks]
    ordered = [key for key, _ in Counter(told).most_common()]
    found = []
    for key in ordered:
        same = tuple(fork for fork, each in zip(forks, told, strict=True) if each == key)
        first = same[0].result
        error = None if first.error is None else first.error.message
        found.append(Outcome(str(first.status), first.output, error, same))
    return found


def _told(result: PipelineResult[Any, Any]) -> bytes:
    error = None if result.error is None else result.error.message
    return canonical.encode([str(result.status), canonical.normalise(result.output), error])
