"""A blueprint with most kinds of step, a recorded run of it, and edits of the blueprint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import doors
from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.domain.agents import AgentSpec, Ask, Reply
from flujo.domain.conversations import ToolCall
from flujo.domain.journal import RunId
from flujo.services.binding.binding import PipelineBinding
from flujo.services.project.project import find_project
from flujo.services.recorded.recorded_binding import recorded_binding
from flujo.services.recorded.replay import Replay, Replayed, replay
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace, agent_settings
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")
GIVEN = {"amount": 3, "lines": ["a", "b"]}

ORDER = """\
version: "1"
name: order
input_schema:
  type: object
  required: [amount, lines]
  properties: {amount: {type: integer}, lines: {type: array, items: {type: string}}}
context_schema: {type: object, properties: {total: {type: integer, default: 0}}}
agents:
  clerk: {model: "openai:gpt-5-mini", instructions: "Be kind to {{ input.lines.size() }} people."}
  buyer: {model: "openai:gpt-5-mini", instructions: "Buy.", tools: ["doors:double"]}
steps:
  - {name: price, call: "doors:double", with: {n: "{{ input.amount }}"}, output_schema: {type: integer}, save: {total: output}}
  - kind: conditional
    name: size
    if: steps.price.output > 5
    then:
      - {name: large, call: "doors:say", with: {text: "large {{ steps.price.output }}"}}
    else:
      - {name: small, call: "doors:say", with: {text: small}}
  - kind: map
    name: each
    over: input.lines
    steps:
      - {name: pack, call: "doors:say", with: {text: "pack {{ item }}"}}
  - kind: loop
    name: draft
    max_iterations: 4
    until: loop.index >= 1
    steps:
      - {name: write, call: "doors:say", with: {text: "draft {{ loop.index }}"}}
  - kind: parallel
    name: both
    branches:
      left: [{name: one, call: "doors:say", with: {text: left}}]
      right: [{name: two, call: "doors:say", with: {text: right}}]
  - kind: router
    name: route
    router: doors:both
    branches:
      mid: [{name: dip, call: "doors:say", with: {text: mid}}]
      low: [{name: fall, call: "doors:say", with: {text: low}}]
      high: [{name: rise, call: "doors:say", with: {text: high}}]
  - kind: state_machine
    name: machine
    initial: open
    final: [closed]
    states:
      open:
        steps: [{name: look, call: "doors:say", with: {text: open}}]
        transitions: [{to: closed, when: "context.total > 1"}]
      closed:
        steps: [{name: shut, call: "doors:say", with: {text: closed}}]
  - {name: rate, agent: clerk, input: "Rate {{ steps.draft.output }}."}
  - {kind: granular, name: buy, agent: buyer, input: "Buy {{ input.amount }}."}
  - {kind: hitl, name: ok, message: "Send {{ steps.rate.output }}?", answer_schema: {enum: "{{ ['yes', input.amount > 1 ? 'no' : 'maybe'] }}"}}
  - {name: gift, call: "doors:say", with: {text: gift}, when: "context.total > 100"}
  - {name: send, call: "doors:say", with: {text: "{{ steps.ok.output }}"}}
output: "{{ steps.send.output }}"
"""

PROJECT = '[blueprints]\nallow_callables = ["doors"]\n[mcp.shop]\ncommand = "not-started"\n'


class Clerk:
    """An agent that answers, with what a model reports."""

    wants_context = False

    async def ask(self, ask: Ask) -> Reply:
        said: dict[str, Any] = {"instructions": ask.instructions, "tools": [], "messages": []}
        return Reply(output=f"good: {ask.data}", model="gpt-5-mini", transcript=said)


class Buyer(ScriptedAgent):
    """An agent in turns, with the declaration of the real one."""

    def __init__(self, real: Any, tools: Any) -> None:
        super().__init__([ToolCall("double", {"n": 3}), "bought 6"], tools=(doors.double,))
        self._real, self._more = real, tools

    def traits(self, ask: Ask) -> Any:
        """Return what a conversation with the real agent depends on."""
        found = self._real.traits(ask)
        return {**found, "tools": {**found["tools"], **self._more}}


class Answering(PipelineBinding):
    """A binding whose models answer from a script."""

    real: Any = None
    tools: Any = None
    """The traits of tools that are known only while a server runs."""

    def _model_agent(self, spec: AgentSpec, tools: Any, output_type: Any) -> Any:
        return Buyer(self.real.agent(spec), self.tools) if spec.tools else Clerk()


def compiled(text: str) -> Pipeline:
    """Return the pipeline of a blueprint."""
    source = PinnedSource({"blueprints/order.yaml": text.encode()})
    found = compile_blueprint("blueprints/order.yaml", source, allow_callables=["doors"])
    assert found.pipeline is not None, [str(one) for one in found.diagnostics]
    return found.pipeline


def workspace(folder: Path) -> Workspace:
    """Return the project in a folder."""
    (folder / "flujo.toml").write_text(PROJECT)
    return Workspace(find_project(folder))


async def recorded(
    store: StateStore, folder: Path, *, text: str = ORDER, answer: Any = "yes", tools: Any = None
) -> None:
    """Run the blueprint to its question, and with an answer to its end."""
    async with _runner(store, folder, text, tools) as runner:
        result = await runner.run_result_async(GIVEN, run_id=RUN)
        assert not result.error, result.error
        if answer is not None:
            result = await runner.resume_async(RUN, answer)
            assert result.success, result.error


async def continued(store: StateStore, folder: Path, text: str, answer: Any = "yes") -> Any:
    """Answer the question of the run with another version of the blueprint; return the result."""
    async with _runner(store, folder, text, None) as runner:
        return await runner.resume_async(RUN, answer)


def _runner(store: StateStore, folder: Path, text: str, tools: Any) -> Flujo[Any, Any, Any]:
    pipeline, ws = compiled(text), workspace(folder)
    binding = Answering(allow_callables=["doors"], agent_settings=agent_settings(ws.project.settings))
    binding.real, binding.tools = recorded_binding(ws, pipeline), tools or {}
    binding.bind(pipeline)
    return Flujo[Any, Any, Any](pipeline, store=store, binding=binding, recovery=False)


async def replayed(store: StateStore, folder: Path, text: str, **more: Any) -> Replay:
    """Replay the run with a blueprint."""
    pipeline, ws = compiled(text), workspace(folder)
    subject = Replayed(pipeline=pipeline, binding=recorded_binding(ws, pipeline), is_pinned=False)
    return await replay(store, RUN, subject, **more)


def edited(old: str, new: str) -> str:
    """Return the blueprint with a change."""
    assert old in ORDER, old
    return ORDER.replace(old, new)
