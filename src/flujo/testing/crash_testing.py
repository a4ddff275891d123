"""Crash tests of a blueprint: kill scripted runs at every crash point, then resume and compare them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.agents.scripted import ScriptedAgent, ScriptedSession
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.events import StepEnded, StepStarted
from flujo.domain.journal import RunId
from flujo.domain.outcomes import Success
from flujo.domain.run import RunStatus
from flujo.exceptions import SettingsError
from flujo.services.project.imports import importable
from flujo.services.project.project import find_project
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace, agent_settings, open_store
from flujo.testing.crash_points import Report, enumerate_crashes, in_a_fork, reach
from flujo.testing.scripted_runs import ScriptedBinding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flujo.domain.agents import Ask, Reply
    from flujo.domain.conversations import Message, Response, Session
    from flujo.domain.models import PipelineResult
    from flujo.domain.ports import Agent, StateStore
    from flujo.domain.run import Pause
    from flujo.domain.steps import CallableRef

    Script = Mapping[str, Any]
    Answers = Mapping[str, Any] | Callable[[Pause], Any]


def crash_test(
    blueprint: str,
    initial_input: Any = None,
    *,
    agents: Script | None = None,
    answers: Answers | None = None,
    project: str | Path = ".",
    state_uri: str | None = None,
    every: int = 1,
    twice: bool = False,
) -> Report:
    """Kill runs of a blueprint at their 1st, 2nd, 3rd … crash point, resume each, and compare the results.

    Each run must end like a run without a crash: same status, output, context, usage and journal. A step
    that was reported as completed must not start again. The blueprint's callables are really called, so run
    this where that does no harm; agents are replaced by the script.

    Call it in a separate script, because a process with threads cannot be forked. POSIX only.

    Args:
        blueprint: its name or its path, as for `flujo run`.
        initial_input: the input of each run.
        agents: agent → its answer, or a callable that gets the `Ask`. The same request must get the same
            answer, because a killed run may repeat it.
        answers: `pause_id` → the answer of a human, or a callable that gets the `Pause`.
        project: a folder of the project.
        state_uri: a migrated database for the runs. Default: a SQLite file that is removed afterwards.
        every: kill at each n-th crash point only.
        twice: kill the recovery as well, at each of its crash points.

    Raises:
        BlueprintError: it does not pass its checks.
        SettingsError: an agent has no script, or threads are running here.
        ChildProcessError: a run without a crash has raised; the message is its traceback.
    """
    with tempfile.TemporaryDirectory(prefix="flujo-crash-") as folder:
        rehearsal = _Rehearsal(Path(project), Path(folder), state_uri)
        rehearsal.load(blueprint, agents or {})
        rehearsal.given, rehearsal.answers = initial_input, answers or {}
        rehearsal.whole = in_a_fork(rehearsal.run, 0)
        return enumerate_crashes(rehearsal.run, rehearsal.run, rehearsal.check, every=every, twice=twice)


class _Rehearsal:
    """Executes, resumes and checks the runs of one blueprint."""

    def __init__(self, project: Path, folder: Path, state_uri: str | None) -> None:
        self._workspace = Workspace(find_project(project.resolve()))
        self._folder = folder
        self._state_uri = state_uri or f"sqlite:///{folder / 'state.db'}"
        self.given: Any = None
        self.answers: Answers = {}
        self.whole: dict[str, Any] = {}

    def load(self, name: str, script: Script) -> None:
        """Validate the blueprint and import its callables once, before all runs."""
        project = self._workspace.project
        importable(project.root)
        self._blueprint = self._workspace.load(project.locate(name, project.root))
        self._bound = _Scripted(
            script,
            allow_callables=project.settings.blueprints.allow_callables,
            agent_settings=agent_settings(project.settings),
        )
        self._bound.bind(self._blueprint.pipeline)

    async def run(self, number: int) -> dict[str, Any]:
        """Execute or resume a run, and return its visible result."""
        store = await open_store(self._state_uri, self._workspace.project.settings)
        run_id, witness = RunId(f"crash-{os.getppid()}-{number}"), _Witness(self._folder / f"{number}.log")
        try:
            async with Flujo[Any, Any, Any](
                self._blueprint.handed_out(),
                store=store,
                binding=self._bound,
                hooks=[witness.hear],
                recovery=False,  # do not resume unrelated runs in this database
            ) as runner:
                result = await runner.run_result_async(self.given, run_id=run_id)
                while result.status is RunStatus.PAUSED:
                    result = await self._answered(runner, store, run_id)
            return await _seen(store, run_id, result)
        finally:
            await store.aclose()

    async def _answered(
        self, runner: Flujo[Any, Any, Any], store: StateStore, run_id: RunId
    ) -> PipelineResult[Any, Any]:
        """Answer one question; none is open when a process was killed after it had recorded the answer."""
        waiting = [pause for pause in await store.pauses(run_id) if pause.is_open]
        if not waiting:
            return await runner.resume_async(run_id)
        return await runner.resume_async(run_id, self._answer(waiting[0]), pause_id=waiting[0].pause_id)

    def _answer(self, pause: Pause) -> Any:
        if not isinstance(self.answers, Mapping):
            return self.answers(pause)
        if pause.pause_id not in self.answers:
            raise SettingsError(
                f"the blueprint asks a human at {pause.pause_id!r}, and `answers` has no answer for it",
                hint=f"pass `answers={{{pause.pause_id!r}: …}}`, or a callable that gets the pause",
            )
        return self.answers[pause.pause_id]

    def check(self, number: int, seen: dict[str, Any]) -> Iterator[str]:
        """Yield the differences from the run without a crash."""
        for key, value in self.whole.items():
            if seen[key] != value:
                yield f"`{key}` is {seen[key]}, and without a crash it is {value}"
        yield from _Witness(self._folder / f"{number}.log").repetitions()


async def _seen(store: StateStore, run_id: RunId, result: PipelineResult[Any, Any]) -> dict[str, Any]:
    record = await store.run(run_id)
    return {
        "status": str(result.status),
        "error": None if result.error is None else result.error.code,
        "output": result.output,
        "context": canonical.decode(record.context_now or b"null"),
        "usage": record.usage.to_json(),
        "journal": sorted(
            [e.path, str(e.kind), e.attempt, str(e.status)] for e in await store.entries(run_id)
        ),
    }


class _Witness:
    """A file with the starts and ends of a run's steps, which outlives the process that writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def hear(self, event: Any) -> None:
        """Write the start and the acknowledged end of each leaf step."""
        match event:
            case StepStarted(kind="step"):
                self._say(f"begins {event.path} {event.attempt}")
            case StepEnded(kind="step", outcome=Success(skipped=False), recorded=False):
                self._say(f"done {event.path} {event.attempt}")
            case _:
                return

    def _say(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def repetitions(self) -> Iterator[str]:
        """Yield each attempt that started after it was reported as completed."""
        done: set[str] = set()
        for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
            what, _, attempt = line.partition(" ")
            if what == "done":
                done.add(attempt)
            elif attempt in done:
                yield f"`{attempt.partition(' ')[0]}` was reported as completed, and started again"


class _Scripted(ScriptedBinding):
    """A binding whose agents answer from a script, with crash points around every call."""

    def agent(self, who: AgentSpec | CallableRef) -> Agent:
        """Return the agent."""
        if not isinstance(who, AgentSpec):
            return _Mortal(super().agent(who))
        said = self.answers_of(who)
        tools = self._tools(who)
        return _MortalTalker(ScriptedAgent(said if callable(said) else lambda _: said, tools=tools))


class _Mortal:
    """An agent with crash points before and after its answer."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.wants_context = agent.wants_context

    async def ask(self, ask: Ask) -> Reply:
        """Answer once."""
        reach("before ask")
        reply = await self._agent.ask(ask)
        reach("after ask")
        return reply


class _MortalTalker(_Mortal):
    """A scripted agent with crash points before and after each of its turns."""

    def __init__(self, agent: ScriptedAgent) -> None:
        super().__init__(agent)
        self._scripted = agent
        self.corrections = agent.corrections

    def traits(self, ask: Ask) -> Mapping[str, Any]:
        """Return what a conversation depends on."""
        return self._scripted.traits(ask)

    def converse(self, ask: Ask, history: Sequence[Message]) -> Session:
        """Return the conversation that continues after `history`."""
        return _MortalSession(self._scripted, ask, history)


class _MortalSession(ScriptedSession):
    async def request(self, *given: Any, **named: Any) -> Response:
        reach("before ask")
        response = await super().request(*given, **named)
        reach("after ask")
        return response
