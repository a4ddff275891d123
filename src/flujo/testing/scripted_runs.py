"""A runner of a blueprint whose agents answer from a script: for tests without a model or a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import AgentSpec
from flujo.exceptions import SettingsError
from flujo.services.binding.binding import PipelineBinding
from flujo.services.project.imports import importable
from flujo.services.project.project import find_project
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace, agent_settings
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.models import AppResources
    from flujo.domain.ports import Agent, StateStore
    from flujo.domain.steps import CallableRef
    from flujo.domain.tools import ToolSpec
    from flujo.testing.clock import TestClock


def scripted_runner(
    blueprint: str,
    agents: Mapping[str, Any] | None = None,
    *,
    project: str | Path = ".",
    resources: AppResources | None = None,
    store: StateStore | None = None,
    clock: TestClock | None = None,
) -> Flujo[Any, Any, Any]:
    """Return a runner of a blueprint in which a script takes the place of each agent.

    Callables and tools are really called. The `output_schema` and the validators of steps are checked, that
    of an agent is not: a script has no model that could correct its answer. Close the runner with
    `async with`.

    Args:
        blueprint: its name or its path, as for `flujo run`.
        agents: agent → its answers in the order of the requests (a list; of an agent with tools, an answer
            may be a `ToolCall`), a callable that gets the `Ask`, or a `ScriptedAgent`, which gets the tools
            of the agent. Any other value answers every request.
        project: a folder of the project.
        resources: what callables with a parameter `resources` get.
        store: where the runs are. Default: the memory of this process.
        clock: the time of the runs. Default: the system's clock.

    Raises:
        BlueprintError: the blueprint does not pass its checks.
        CallableError: a callable is not allowed, or cannot be imported.
        SettingsError: the blueprint is not found, or an agent has no script.
    """
    workspace = Workspace(find_project(Path(project).resolve()))
    found, settings = workspace.project, workspace.project.settings
    importable(found.root)
    pipeline = workspace.load(found.locate(blueprint, found.root)).handed_out()
    binding = ScriptedBinding(
        agents or {},
        allow_callables=settings.blueprints.allow_callables,
        agent_settings=agent_settings(settings),
    )
    binding.bind(pipeline)
    if store is None:
        store = MemoryStateStore() if clock is None else clock.memory_store()
    return Flujo[Any, Any, Any](
        pipeline, resources=resources, store=store, clock=clock, binding=binding, recovery=False
    )


class ScriptedBinding(PipelineBinding):
    """A binding whose agents answer from a script.

    Args:
        script: agent → its answers, as for `scripted_runner`.
        options: those of a `PipelineBinding`.
    """

    def __init__(self, script: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._script = script

    def _model_agent(self, spec: AgentSpec, tools: Sequence[ToolSpec], output_type: Any) -> Agent:  # noqa: ARG002
        answers = self.answers_of(spec)
        if isinstance(answers, ScriptedAgent):
            answers.set_tools(tools)
            return answers
        is_script = callable(answers) or isinstance(answers, list)
        return ScriptedAgent(answers if is_script else lambda _: answers, tools=tools)

    def identity(self, who: AgentSpec | CallableRef) -> Any:
        """Return what cached answers depend on: of an agent, its name."""
        return {"scripted": who.name} if isinstance(who, AgentSpec) else super().identity(who)

    def answers_of(self, spec: AgentSpec) -> Any:
        """Return what the script has for an agent.

        Raises:
            SettingsError: it has nothing.
        """
        if spec.name not in self._script:
            raise SettingsError(
                f"the blueprint asks agent {spec.name!r}, and the script has no answer for it",
                hint=f"pass `agents={{{spec.name!r}: …}}`: an answer, or a callable that gets the `Ask`",
            )
        return self._script[spec.name]
