"""`granular`: an agent whose model requests and tool calls are recorded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

from flujo.domain import values
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.conversations import ConversingAgent
from flujo.domain.personal_data import CHOICES, Pii
from flujo.domain.pipeline import FALLBACK, BaseStep, Conversation, In, Out, Pipeline
from flujo.domain.steps.arguments import Callables, fallback, fallback_body, on
from flujo.domain.steps.import_ import importing
from flujo.domain.steps.tools import MAX_TURNS, AgentTool, BlueprintTool, composed_tools
from flujo.domain.tools import InDoubt
from flujo.domain.values import CallableRef, Value, Valued
from flujo.domain.wording import plural
from flujo.exceptions import PipelineError

AtLimit = Literal["fail", "finish", "pause"]

Conversing = AgentSpec | OneOf | CallableRef | ConversingAgent
"""An agent that works in turns, or a choice of such agents."""


def _conversing(given: Conversing, where: str) -> AgentSpec | OneOf | CallableRef:
    if isinstance(given, OneOf):
        return given
    if isinstance(given, CallableRef | ConversingAgent):
        return values.callable_ref(given, where, takes="an `AgentSpec`")
    return values.instance(AgentSpec)(given, where)


@node
class History(Node):
    """The part of a conversation that its model gets: the task, and the newest turns within a limit."""

    owner: ClassVar[str] = "`history`: "

    max_tokens: int = takes(values.count)
    """The maximum number of tokens of its messages, without the instructions and the tools."""
    keep: Literal["last", "summary"] = takes(values.one_of("last", "summary"), default="last")
    """Whether the older turns are left out, or replaced by a summary that the agent writes."""


def _history(given: Any, where: str) -> History | None:
    match given:
        case "full":
            return None
        case History():
            return given
        case Mapping() if "max_tokens" in given:
            return History(**given)
        case _:
            raise PipelineError(
                f"{where} is {given!r}; expected a `History`, or 'full'",
                hint="for instance `History(max_tokens=50_000, keep='summary')`",
            )


@node
class GranularStep(BaseStep[In, Out]):
    """An agent that works in turns; a resumed run continues with the next request or the next tool call."""

    kind: ClassVar[str] = "granular"
    records_inside: ClassVar[bool] = True

    agent: Takes[Conversing, AgentSpec | OneOf | CallableRef] = takes(_conversing)
    """The agent with its tools, or a choice of agents."""
    _: KW_ONLY
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """The prompt, instead of the output of the step before."""
    files: Takes[Valued, Value] = takes(values.value, default=None)
    """Files for the model: paths, references, or a list of them; they are sent with the prompt."""
    max_turns: int = takes(values.count, default=MAX_TURNS)
    """The maximum number of turns: responses of the model."""
    on_limit: AtLimit = takes(values.one_of(*get_args(AtLimit)), default="fail")
    """At that limit: the step fails, finishes with a last request in which no tool may be called, or pauses:
    a human allows more turns, or has it finish or fail."""
    max_tool_concurrency: int = takes(values.count, default=10)
    """How many tool calls of one response run concurrently."""
    enforce_idempotency: bool = False
    """Whether each tool call is recorded in the journal before it is made, and never repeated silently."""
    in_doubt: InDoubt = takes(values.one_of(*get_args(InDoubt)), default="pause")
    """The action when the result of an enforced tool call is unknown."""
    reconcile: Takes[CallableRef | str | Callable[..., Any] | None, CallableRef | None] = takes(
        values.callable_ref, default=None
    )
    """For `in_doubt: reconcile`: gets `{"tool": …, "arguments": …}` and the key, returns
    `{"done": True, "result": …}` or `{"done": False}`."""
    output_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that the answer must match."""
    validators: Takes[Callables, tuple[CallableRef, ...]] = takes(values.callable_refs, default=())
    """Callables that check the answer; the reason of a rejection is the next message of the conversation."""
    thread: str | None = None
    """The name of a conversation: the agent sees what the earlier steps of the thread have exchanged."""
    evaluate: Takes[Sequence[str], tuple[str, ...]] = takes(values.texts, default=())
    """The evaluators that score the answer: names of tables `[evaluation.evaluators.NAME]` of flujo.toml."""
    fallback: BaseStep | None = takes(fallback, default=None)
    """The step that runs when this one has failed; its name is always `fallback`."""
    history: Takes[History | Mapping[str, Any] | Literal["full"] | None, History | None] = takes(
        _history, default=None
    )
    """The limit of the messages that the model gets; by default it gets all turns."""
    pii: Takes[Pii | None, Pii | None] = takes(values.one_of(*CHOICES), default=None)
    """Whether personal data is masked, tokenised or kept in requests to the model, and masked in the output
    where the database has none; by default the project decides."""

    def summary(self) -> str:
        """Return the agent and its tools."""
        if not isinstance(self.agent, AgentSpec) or not self.agent.tools:
            return f"asks {self.agent} in turns{on(self.thread)}"
        tools = ", ".join(tool.name for tool in self.agent.tools)
        return f"asks {self.agent.name} ({self.agent.model}; tools: {tools}) in turns{on(self.thread)}"

    def limits(self) -> Iterator[str]:
        """Yield the number of turns with what follows, and the concurrency of tools."""
        then = {"fail": "it fails", "finish": "a last request without tools", "pause": "a question"}
        yield f"at most {plural(self.max_turns, 'turn')}, then {then[self.on_limit]}"
        if isinstance(self.agent, AgentSpec) and self.agent.tools:
            yield f"at most {plural(self.max_tool_concurrency, 'tool call')} at a time"
        if self.history is not None:
            older = {"last": "are left out", "summary": "are replaced by a summary"}[self.history.keep]
            yield f"at most {plural(self.history.max_tokens, 'token')} of history, then older turns {older}"

    @property
    def sends(self) -> Value:
        """The files for the model."""
        return self.files

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Those that it names."""
        return self.evaluate

    @property
    def masking(self) -> Pii | None:
        """The declaration of the step."""
        return self.pii

    @property
    def joins(self) -> str | None:
        """The thread of the step."""
        return self.thread

    def conversations(self) -> Iterator[Conversation]:
        """Yield that of its turns; those of agents as tools belong to the bodies."""
        yield Conversation(
            who=self.agent,
            input=self.input,
            schema=self.output_schema,
            turns=self.max_turns,
            history=None if self.history is None else self.history.max_tokens,
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the fallback, which gets the input of this step unless it has its own, and the tools.

        A tool that consists of steps is a body with one step, which has the name of the tool.
        """
        return self._bodies

    def is_tool(self, body: str) -> bool:
        """Return whether a body is a tool; the other one is the fallback."""
        return body != FALLBACK

    @cached_property
    def _bodies(self) -> Mapping[str, Pipeline]:
        agents = self.agent.one_of.values() if isinstance(self.agent, OneOf) else [self.agent]
        steps = [step for agent in agents for step in self._steps_of(agent)]
        tools = {f"tool_{number}_{step.name}": Pipeline((step,)) for number, step in enumerate(steps)}
        spare = fallback_body(
            self.fallback, input=self.input, files=self.files, thread=self.thread, pii=self.pii
        )
        return {**tools, **spare}

    @cached_property
    def composed(self) -> Mapping[str, BaseStep]:
        """The steps that run for calls of the agent's tools, by the names of the tools."""
        inside = [body.steps[0] for name, body in self._bodies.items() if self.is_tool(name)]
        return {step.name: step for step in inside}

    def _steps_of(self, agent: AgentSpec | CallableRef) -> Iterator[BaseStep]:
        yield from (self._step_of(tool) for tool in composed_tools(agent))

    def _step_of(self, tool: BlueprintTool | AgentTool) -> BaseStep:
        if isinstance(tool, BlueprintTool):
            return importing(tool.name, tool.pipeline, tool.blueprint)
        return GranularStep(
            tool.name,
            tool.agent,
            max_turns=tool.max_turns,
            max_tool_concurrency=self.max_tool_concurrency,
            enforce_idempotency=self.enforce_idempotency,
            in_doubt=self.in_doubt,
            reconcile=self.reconcile,
            config=self.config,
        )

    def usual_facts(self) -> Mapping[str, Any]:
        """Return the default facts: those of a step that was answered by its fallback."""
        facts = {**BaseStep.usual_facts(self), "turns": 0, "tool_calls": 0, "stopped": "fallback"}
        return facts if self.fallback is None else {**facts, "fell_back": False}
