"""Plays cassettes: the blueprint on disk, with the recorded answers of models, tools and people."""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from flujo.blueprint.schemas.validator import compile_schema
from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import RunKind
from flujo.domain.run import AT_A_PAUSE, PauseKind, RunQuery, RunStatus
from flujo.domain.sent_events import NewEvent
from flujo.exceptions import CallableError, CassetteMismatch, CassetteRefused, OutputRejected
from flujo.services.project.project import find_project, replace_file
from flujo.services.replay.cassette import Cassette
from flujo.services.replay.cassette_saving import taped
from flujo.services.replay.recorded_agents import CassetteBinding, cassette_binding
from flujo.services.replay.tape import Tape
from flujo.services.runs.run_services import pinned_blueprint
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace
from flujo.testing.clock import TestClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flujo.domain.models import AppResources, PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import RunSource
    from flujo.services.workspace import Blueprint
    from flujo.state.memory_store import MemoryStateStore

_BY = Actor("cassette", Via.API)
_PATIENCE_S = 0.01
"""How often to look whether a background task has ended."""


class CassetteFailed(AssertionError):
    """A cassette that was played and did not give what it expects; the message has all reasons."""


@dataclass(frozen=True, slots=True)
class Played:
    """A cassette that was played."""

    cassette: Cassette
    result: PipelineResult[Any, Any]
    mismatches: list[CassetteMismatch] = field(default_factory=list)
    """The requests and calls that are not the recorded ones."""
    unused: list[str] = field(default_factory=list)
    """The paths of recorded conversations that did not happen, or not to their end."""

    @property
    def output(self) -> Any:
        """The output of the run."""
        return self.result.output

    def require_matches(self) -> None:
        """Return when every request and call was a recorded one, and the run has completed.

        Raises:
            CassetteFailed: with the first request or call that differs, or with the error of the run.
        """
        if self.mismatches:
            raise CassetteFailed("\n\n".join(dict.fromkeys(each.message for each in self.mismatches)))
        if not self.result.success:
            error = self.result.error
            why = f": {error.message} [{error.code}]" if error is not None else ""
            raise CassetteFailed(f"the run is {self.result.status}{why}")

    def require_expected(self) -> None:
        """Return when also the output is what the cassette expects.

        Raises:
            CassetteFailed: with every reason.
        """
        self.require_matches()
        reasons = [*_unexpected(self.cassette, canonical.normalise(self.output))]
        if reasons:
            raise CassetteFailed("\n".join(reasons))


async def play_async(path: Path, *, resources: AppResources | None = None) -> Played:
    """Run the blueprint of a cassette with the recorded answers, in memory.

    Time jumps: the run waits for nothing. Callables of steps are answered from the cassette, except those in
    its `live` and those that take the context.

    Args:
        path: the cassette; its project is the one that the folder is in.
        resources: for the callables that run.

    Raises:
        CassetteDamaged | CassetteTooNew: the file cannot be used.
        CassetteMismatch: the blueprint is another one.
        BlueprintError | CallableError: the blueprint cannot be run.
    """
    cassette = Cassette.open(path)
    pipeline, project = _blueprint(cassette, path).handed_out(), _workspace(path).project
    tape = Tape(cassette)
    return await _played(tape, pipeline, cassette_binding(project, pipeline, tape), resources)


async def _played(
    tape: Tape, pipeline: Pipeline, binding: CassetteBinding, resources: AppResources | None = None
) -> Played:
    clock = TestClock(auto_advance=True)
    store = clock.memory_store()
    async with Flujo[Any, Any, Any](
        pipeline,
        store=store,
        binding=binding,
        clock=clock,
        cache=_NothingCached(),
        resources=resources,
        recovery=False,
    ) as runner:
        result = await _Play(tape.cassette, runner, store, clock).ended()
    return Played(tape.cassette, result, tape.mismatches, tape.unused)


class _NothingCached:
    """A cache without answers: the cassette has what each cached step would have been answered."""

    async def get(self, key: str) -> bytes | None:
        """Return None."""
        del key
        return None

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Do nothing."""
        del key, value, ttl_s


@dataclass(frozen=True, slots=True)
class Saved:
    """A run as a cassette."""

    cassette: Cassette
    untried: tuple[str, ...] = ()
    """The callables that a play calls; because of them it was not played."""


async def saved_async(workspace: Workspace, source: RunSource, run_id: RunId) -> Saved:
    """Return a completed run as a cassette that gives the output of the run when it is played.

    It is played in memory, with the files that the run has pinned, and without connections and processes. It
    is not played if a play would call code of the project that changes the context.

    Raises:
        RunNotFound: there is no such run.
        CorruptState: a row or a content is damaged or missing.
        CassetteRefused: the run has not completed, is one of Python, has kept no transcripts, or its cassette
            gives something else than the run.
        FlujoError: its blueprint cannot be loaded or bound here.
    """
    found = await taped(workspace, source, run_id)
    blueprint = await pinned_blueprint(workspace, source, await source.run(run_id))
    pipeline = blueprint.handed_out()
    tape = Tape(found.cassette, found.cached)
    binding = cassette_binding(workspace.project, pipeline, tape)
    called = tuple(sorted(binding.called))
    if called and found.cached:
        at = next(iter(found.cached))
        why = f"`{at}` has an output from the cache, and `{called[0]}` changes the context"
        raise CassetteRefused(f"run {run_id} cannot be made a cassette: {why}", run_id=run_id)
    if called:
        return Saved(found.cassette, called)
    try:
        with refusing_outside_calls():
            (await _played(tape, pipeline, binding)).require_expected()
            if found.cached:  # their requests are known from the play
                tape = Tape(tape.cassette)
                binding = cassette_binding(workspace.project, pipeline, tape)
                (await _played(tape, pipeline, binding)).require_expected()
    except CassetteFailed as failed:
        raise CassetteRefused(
            f"run {run_id} cannot be made a cassette: played without its models, tools and callables, it "
            f"ends otherwise:\n{failed}",
            run_id=run_id,
        ) from None
    return Saved(tape.cassette)


async def record_async(path: Path, *, resources: AppResources | None = None) -> Cassette:
    """Run the blueprint of a cassette live, with its input and its human answers, and record it again.

    Models, tools and callables are those of the project. The file is replaced when the run has completed.

    Raises:
        CassetteDamaged | CassetteTooNew: the file cannot be used.
        CassetteRefused: the run has not completed, or has a question without a recorded answer.
        FlujoError: the blueprint cannot be run here.
    """
    cassette = Cassette.open(path)
    blueprint, workspace = _blueprint(cassette, path), _workspace(path)
    clock = TestClock(auto_advance=True)
    store = clock.memory_store()
    async with workspace:
        async with Flujo[Any, Any, Any](
            blueprint.handed_out(), store=store, clock=clock, resources=resources, recovery=False
        ) as runner:
            result = await _Play(cassette, runner, store, clock).ended()
        if result.error is not None:
            raise CassetteFailed(f"the run is {result.status}: {result.error.message} [{result.error.code}]")
        recorded = cassette.recorded_again((await saved_async(workspace, store, result.run_id)).cassette)
    replace_file(path, recorded.to_text())
    return recorded


def _workspace(path: Path) -> Workspace:
    return Workspace(find_project(path.resolve().parent))


def _blueprint(cassette: Cassette, path: Path) -> Blueprint:
    """Return the blueprint of a cassette as it is on disk.

    Raises:
        CassetteMismatch: it is another one.
    """
    workspace = _workspace(path)
    if not (workspace.project.root / cassette.blueprint).is_file():
        raise CassetteMismatch(
            f"{path} is of the blueprint {cassette.blueprint}, which this project does not have",
            hint="correct `blueprint.path` in the cassette",
        )
    blueprint = workspace.load(cassette.blueprint, overrides=cassette.overrides)
    if blueprint.name != cassette.name:
        raise CassetteMismatch(
            f"{path} is of the blueprint {cassette.name!r}, and {cassette.blueprint} is {blueprint.name!r}",
            hint="correct `blueprint.path` in the cassette, or save another run",
        )
    return blueprint


class _Play:
    """Executes one run to its end, and answers what it asks."""

    def __init__(
        self, cassette: Cassette, runner: Flujo[Any, Any, Any], store: MemoryStateStore, clock: TestClock
    ) -> None:
        self._cassette = cassette
        self._runner = runner
        self._store = store
        self._clock = clock
        self._left = list(cassette.answers)
        self._run = RunId(cassette.run_id)  # prompts and the ids of tasks may contain it

    async def ended(self) -> PipelineResult[Any, Any]:
        """Return the result of the run, once nothing can move any more."""
        result = await self._runner.run_result_async(
            self._cassette.input, initial_context_data=self._cassette.context, run_id=self._run
        )
        while result.status in AT_A_PAUSE and await self._step():
            record = await self._store.run(self._run)
            if record.status in AT_A_PAUSE and record.owner is None:
                result = await self._runner.resume_async(self._run)
        return result

    async def _step(self) -> bool:
        """Settle what can be settled, and continue background tasks; return whether anything can move."""
        runs = await self._store.runs(RunQuery(kinds=tuple(RunKind)))
        moved = False
        for run in runs:
            for pause in await self._store.pauses(run.run_id):
                moved |= pause.is_open and await self._settle(run, pause)
        for run in runs:
            if run.run_id != self._run and run.status in AT_A_PAUSE and not await self._asks(run):
                await self._runner.resume_async(run.run_id)
                moved = True
        if any(run.status is RunStatus.RUNNING for run in runs):
            await asyncio.sleep(_PATIENCE_S)
            return True
        return moved or not await self._asks(await self._store.run(self._run))

    async def _asks(self, run: RunRecord) -> bool:
        return any(pause.is_open for pause in await self._store.pauses(run.run_id))

    async def _settle(self, run: RunRecord, pause: Pause) -> bool:
        """Answer a pause from the cassette, or let its deadline pass; return whether it is settled."""
        task = "" if run.parent is None else str(run.parent.path)
        found = next((each for each in self._left if (each.task, each.at) == (task, pause.pause_id)), None)
        if found is not None:
            self._left.remove(found)
            bound = {"digest": pause.digest} if pause.kind is PauseKind.APPROVAL else {}
            value = canonical.encode({**found.value, **bound} if bound else found.value)
            if pause.kind is PauseKind.EVENT and pause.event is not None:
                number = len(self._left)
                event = NewEvent(
                    event_id=f"cassette-{number}",
                    name=pause.event,
                    payload=value,
                    actor=_BY,
                    run_id=run.run_id,
                )
                await self._store.send_event(event)
            else:
                await self._store.answer(run.run_id, StepPath(pause.pause_id), value, actor=_BY)
            return True
        if pause.deadline_at is not None:
            await self._clock.advance(seconds=max(0.0, pause.deadline_at - self._clock.now()))
            await self._store.expire(run.run_id, pause.pause_id)
            return True
        return False


def _unexpected(cassette: Cassette, output: Any) -> Iterator[str]:
    """Yield why an output is not what a cassette expects."""
    expect = cassette.expect
    if expect.output and not canonical.is_same(canonical.encode(expect.output[0]), canonical.encode(output)):
        yield "\n".join(["the output differs", *_diff(expect.output[0], output)])
    if expect.schema is not None:
        try:
            compile_schema(expect.schema).check(output, what="the output")
        except OutputRejected as error:
            yield error.message
    if (score := expect.score) is not None:
        found = _scorer(score.by)(output)
        if not abs(found - score.value) <= score.tolerance:
            yield f"`{score.by}` gives the output {found:g}, not {score.value:g} ± {score.tolerance:g}"


def _diff(expected: Any, output: Any) -> Iterator[str]:
    before, after = _lines(expected), _lines(output)
    return difflib.unified_diff(before, after, "expected", "now", lineterm="", n=2)


def _lines(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
    return text.splitlines()


def _scorer(target: str) -> Callable[[Any], float]:
    """Return the callable that a cassette names; it is code of the tests, so no setting has to allow it.

    Raises:
        CallableError: it cannot be imported.
    """
    try:
        scorer: Callable[[Any], float] = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise CallableError(f"the scorer `{target}` cannot be imported: {error}", target=target) from error
    return scorer


# Calls to the outside ------------------------------------------------------------------------------------

_OUTSIDE = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system")
_strict: list[list[str]] = []
"""The refused calls of each cassette that is played strictly now; threads of its callables count."""
_hooked: list[None] = []


class OutsideCall(CassetteFailed):
    """Code of a cassette that is played strictly opened a connection or a process."""


@contextmanager
def refusing_outside_calls() -> Iterator[None]:
    """Refuse connections, look-ups of hosts and new processes while the code inside runs.

    Raises:
        OutsideCall: there was one, whatever the code inside made of its refusal.
    """
    if not _hooked:  # an audit hook cannot be removed
        sys.addaudithook(_refuse)
        _hooked.append(None)
    refused: list[str] = []
    _strict.append(refused)
    try:
        yield
    finally:
        _strict[:] = [each for each in _strict if each is not refused]
        if refused:
            raise OutsideCall(f"an outside call was made, and `--flujo-strict` is given: {refused[0]}")


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _OUTSIDE and _strict:
        called = f"{event} {arguments[1] if event == 'socket.connect' else arguments[0]}"
        _strict[-1].append(called)
        raise OutsideCall(called)
