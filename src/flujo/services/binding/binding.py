"""Makes a pipeline executable: imports callables, compiles expressions and builds agents, once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from flujo.agents.thread_pool import THREADS
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.executor import Needs, Placed, without_secrets
from flujo.domain.models import PipelineContext
from flujo.domain.ports import Agent, PreparedAgent, SecretsReader
from flujo.domain.secrets import secrets_in
from flujo.domain.steps import (
    BaseStep,
    CachePolicy,
    CallableRef,
    Carry,
    Expr,
    Processors,
    Save,
    State,
    Step,
    StepConfig,
    Text,
    Transition,
)
from flujo.domain.steps.tools import AgentTool
from flujo.domain.tools import (
    CallableTool,
    callable_tools,
    called_tools,
    declared,
    known,
    requirement,
)
from flujo.domain.tree_checks.effects import without_connection
from flujo.domain.tree_checks.tools import repeated_tool, unsafe_and_repeated
from flujo.domain.values import FromData
from flujo.exceptions import BlueprintError, CallableError
from flujo.services.binding.contexts import ModelContext, SchemaContext
from flujo.services.binding.identity import identity, identity_of_resources
from flujo.services.binding.portable import require_portable

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.agents.chat import ChatAgent
    from flujo.agents.settings import AgentSettings
    from flujo.domain.executor import CodeThreads, Executor
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import ContextType, Evaluator, Schema
    from flujo.domain.tools import Known, ToolSpec


_WITH_LEAVES = (
    Save,
    Carry,
    State,
    Transition,
    CachePolicy,
    Processors,
    OneOf,
    StepConfig,
    FromData,
)


class PipelineBinding:
    """The engine's `Binding` of one pipeline. `bind` builds everything in advance."""

    def __init__(
        self,
        *,
        allow_callables: Sequence[str],
        agent_settings: AgentSettings,
        context_model: type[PipelineContext] | None = None,
        executor: CodeThreads = THREADS,
        executors: Callable[[str], Executor | None] | None = None,
    ) -> None:
        self._allow = tuple(allow_callables)
        self._agent_settings = replace(agent_settings, executors=executors)
        self._context_model = context_model
        self._evaluators: dict[Expr | Text, Evaluator] = {}
        self._agents: dict[Any, Agent] = {}
        self._prepared: list[PreparedAgent] = []
        """The agents that need something before they can answer."""
        self._schemas: dict[bytes, Schema] = {}
        self._executor = executor
        self._executors = executors
        self._placed: dict[int, Placed] = {}
        """By the identity of a step that names an executor, or that is in a map which names one."""
        # By the identity of a pipeline that has a context of its own. It is kept, so that its id stays taken.
        self._contexts: dict[int, tuple[Pipeline, ContextType]] = {}

    def bind(self, pipeline: Pipeline) -> None:
        """Import and compile everything that `pipeline` names, imported blueprints included.

        Raises:
            BlueprintError: an import inherits a context of another type.
            CallableError: a `module:callable` is not allowed or cannot be imported.
            PipelineError: calls in doubt of an unsafe tool would be repeated.
            ProviderUnavailable: a model's package or key is missing.
            SecretNotSet: a tool needs a secret that is not set.
        """
        self._bind_whole(pipeline, self._context_model)
        self._leaves(pipeline.deadline_s)

    def _bind_whole(self, pipeline: Pipeline, model: type[PipelineContext] | None = None) -> None:
        """Bind a pipeline that has a context of its own: the one that runs, or an imported one."""
        self._contexts[id(pipeline)] = pipeline, self._context_type(pipeline, model)
        self._bind_body(pipeline, owner=pipeline)

    def _bind_body(self, body: Pipeline, *, owner: Pipeline, around: StepConfig | None = None) -> None:
        """Bind the steps of a body, which see the context of `owner`, and have the executor of `around`."""
        if body.input_schema is not None:
            self.schema(body.input_schema)
        self._leaves(body.output)
        for step in body.steps:
            self._require_declared(step)
            self._require_turns(step)
            self._require_no_repeats(step)
            config = step.config
            within = around if config.executor is None or config.is_spread else config
            self._place(step, within)
            for field in dataclasses.fields(step):
                self._leaves(getattr(step, field.name))
            asked = None if step.question is None else step.question.answer_schema
            for schema in (getattr(step, "output_schema", None), asked):
                if schema is not None:
                    self.schema(schema)
            if (child := step.imported) is not None:
                self._bind_whole(child.pipeline)
                if child.inherits:
                    theirs, ours = self.context(child.pipeline), self.context(owner)
                    _require_same_context(step.name, child.blueprint, theirs, ours)
                continue
            for inner in step.bodies().values():
                self._bind_body(inner, owner=owner, around=within)
        for inner in body.endings().values():
            self._bind_body(inner, owner=owner)

    def _place(self, step: BaseStep, config: StepConfig | None) -> None:
        """Find the executor of a step that calls a callable.

        Raises:
            CallableError: its callable cannot be imported elsewhere.
            PipelineError: its callable takes `context`.
            SettingsError: there is no such executor.
        """
        name = None if config is None else config.executor
        if self._executors is None or config is None or name is None or not isinstance(step, Step):
            return
        executor = self._executors(name)
        if executor is None or step.call is None:
            return
        if executor.leaves_process:
            where = f"step {step.name!r} runs on executor {name!r}"
            require_portable(step.call.target, self._resolve(step.call), where)
        self._placed[id(step)] = Placed(executor, config.resources or Needs())

    def placed(self, step: BaseStep) -> Placed | None:
        """Return the executor of a step's callable; None for the threads of this process."""
        return self._placed.get(id(step))

    def _leaves(self, value: Any) -> None:
        """Build the expressions, texts, callables and agents in a field, at any depth."""
        match value:
            case Expr() | Text():
                self.evaluator(value)
            case CallableRef() | AgentSpec():
                self.agent(value)
            case Mapping():
                for item in value.values():
                    self._leaves(item)
            case tuple() | list():
                for item in value:
                    self._leaves(item)
            case _ if isinstance(value, _WITH_LEAVES):
                for field in dataclasses.fields(value):
                    self._leaves(getattr(value, field.name))
            case _:
                return  # names, numbers, schemas: nothing to build

    async def prepare(self) -> None:
        """Download the weights of local models that agents need."""
        for agent in self._prepared:
            await agent.prepare()

    def evaluator(self, what: Expr | Text) -> Evaluator:
        """Return the compiled expression or text."""
        compiled = self._evaluators.get(what)
        if compiled is None:
            from flujo.blueprint.expressions.evaluators import compile_expression, compile_text

            compiled = (
                compile_expression(what.source)
                if isinstance(what, Expr)
                else compile_text(what.source, literal=what.literal)
            )
            self._evaluators[what] = compiled
        return compiled

    def agent(self, who: AgentSpec | CallableRef) -> Agent:
        """Return the agent for a step."""
        # Two lambdas have one name; the tree keeps what is live alive, and so its id.
        key = (who.target, id(who.live)) if isinstance(who, CallableRef) else id(who)
        if key not in self._agents:
            self._agents[key] = agent = self._built(who)
            if isinstance(agent, PreparedAgent):
                self._prepared.append(agent)
        return self._agents[key]

    def _built(self, who: AgentSpec | CallableRef) -> Agent:
        agent = self._function(who) if isinstance(who, CallableRef) else self._chat(who)
        if isinstance(agent, SecretsReader):
            agent.read_secrets(self._agent_settings.environment)
        return agent

    def schema(self, schema: Any) -> Schema:
        """Return the compiled JSON Schema."""
        key = canonical.encode(schema)
        if key not in self._schemas:
            from flujo.blueprint.schemas.validator import compile_schema

            self._schemas[key] = compile_schema(schema)
        return self._schemas[key]

    def identity(self, who: AgentSpec | CallableRef) -> Any:
        """Return what the answers of an agent, a callable or a class depend on; see `Binding`.

        It is computed at each call, because captured values and globals may change.
        """
        if isinstance(who, CallableRef):
            return identity(self._resolve(who), f"`{who.target}`")
        return cast("ChatAgent", self.agent(who)).answered_with

    def identity_of_resources(self, resources: Any, who: CallableRef) -> Any:
        """Return what of the resources decides the answers of a callable; None if it takes none."""
        # An agent of another class gets the whole request, and the resources with it.
        if resources is None or not getattr(self.agent(who), "wants_resources", True):
            return None
        return identity_of_resources(resources, f"`{who.target}`")

    def context(self, pipeline: Pipeline) -> ContextType:
        """Return the context type of this pipeline."""
        return self._contexts[id(pipeline)][1]

    def _context_type(self, pipeline: Pipeline, model: type[PipelineContext] | None) -> ContextType:
        if model is not None:
            return ModelContext(model)
        if pipeline.context_type is not None:
            named = self._resolve(pipeline.context_type)
            if not (inspect.isclass(named) and issubclass(named, PipelineContext)):
                raise CallableError(
                    f"`context: {pipeline.context_type.target}` is not a subclass of `PipelineContext`",
                    hint="write `class MyContext(PipelineContext):` with typed fields",
                )
            return ModelContext(named)
        schema = pipeline.context_schema
        return SchemaContext(schema, None if schema is None else self.schema(schema))

    def _function(self, ref: CallableRef) -> Agent:
        from flujo.agents.function import FunctionAgent

        live = self._resolve(ref)
        if isinstance(live, Agent):
            return live
        return FunctionAgent(live, name=ref.target, executor=self._executor)

    def _chat(self, spec: AgentSpec) -> Agent:
        if spec.instructions is not None:
            self.evaluator(spec.instructions)
        for each in (tool.approve for tool in called_tools(spec.tools) if tool.approve is not None):
            self._leaves((each.when, each.message, each.deadline_s))
        output_type = None if spec.output_type is None else self._resolve(spec.output_type)
        return self._model_agent(spec, self._tools(spec), output_type)

    def _model_agent(self, spec: AgentSpec, tools: Sequence[ToolSpec], output_type: Any) -> Agent:
        from flujo.agents.chat import build_agent

        return build_agent(spec, tools=tools, output_type=output_type, settings=self._agent_settings)

    def _tools(self, spec: AgentSpec) -> list[ToolSpec]:
        """Return the tools of an agent, with their callables imported."""
        return [self._tool(each) for each in spec.tools]

    def _tool(self, spec: ToolSpec) -> ToolSpec:
        match spec:
            case CallableTool(call=call):
                self._require_movable(spec, self._resolve(call))
                return replace(spec, call=CallableRef(call.target, self._resolve(call)))
            case AgentTool(agent=AgentSpec() as agent):
                return replace(spec, agent=CallableRef(agent.name, cast("Any", self.agent(agent))))
            case _:
                return spec

    def _require_movable(self, tool: CallableTool, fn: Any) -> None:
        """Refuse a tool that its executor cannot execute.

        Raises:
            CallableError: a worker cannot import its callable.
            PipelineError: it takes `context`, or a secret would leave this process.
            SettingsError: there is no such executor.
        """
        if self._executors is None or tool.executor is None:
            return
        executor = self._executors(tool.executor)
        if executor is None or not executor.leaves_process:
            return
        where = f"tool `{tool}` runs on executor {tool.executor!r}"
        require_portable(tool.call.target, fn, where)
        if any(True for _ in secrets_in(tool.with_)):
            raise without_secrets(where)

    def _require_declared(self, step: BaseStep) -> None:
        """Refuse a step whose declaration is weaker than its callable's.

        Raises:
            CallableError: names the step and the required declaration.
            PipelineError: the callable writes on a connection, which only a tool gets.
        """
        if not isinstance(step, Step) or step.call is None:
            return
        tool = declared(self._resolve(step.call))
        if tool is None:
            return
        if error := without_connection(f"step {step.name!r}", step, self._knows(step.call)):
            raise error
        if not tool.admits(step.effect):
            raise CallableError(
                f"step {step.name!r} has `effect: {step.effect}`, but its callable declares {tool.effect!r}",
                hint=f"write `effect: {tool.effect}`; a step may be stricter, not weaker",
            )
        if tool.enforce_idempotency and not step.enforce_idempotency:
            raise CallableError(
                f"`{step.call.target}` requires `enforce_idempotency`, which step {step.name!r} does not set",
                hint="add `enforce_idempotency: true`",
            )

    def _require_turns(self, step: BaseStep) -> None:
        """Refuse a tool whose calls must be recorded, in a step that does not record them.

        Raises:
            CallableError: a tool requires `enforce_idempotency`, or an `idempotency_key`.
        """
        is_granular, is_enforced = step.kind == "granular", getattr(step, "enforce_idempotency", False)
        missing = "`enforce_idempotency: true`"
        hint = f"add {missing}"
        if not is_granular:
            hint = f"write `kind: granular` with {missing}, which records each tool call"
        for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
            for spec in callable_tools(agent.tools):
                if is_granular and (is_enforced or spec.is_recorded):
                    continue
                if is_granular and spec.effect == "transactional":
                    continue  # its calls have a key, and are recorded with what they write
                if needs := requirement(self._resolve(spec.call)):
                    raise CallableError(
                        f"`{spec}`, a tool of step {step.name!r}, requires {needs}", hint=hint
                    )

    def _require_no_repeats(self, step: BaseStep) -> None:
        """Refuse a step that would repeat calls in doubt of an unsafe tool.

        Raises:
            PipelineError: names the tool.
        """
        for tool in unsafe_and_repeated(step, self._knows):
            raise repeated_tool(f"step {step.name!r}", tool)

    def _knows(self, ref: CallableRef) -> Known:
        return known(self._resolve(ref))

    def _resolve(self, ref: CallableRef) -> Any:
        if ref.live is not None:
            return ref.live
        from flujo.blueprint.sources.callables import load_callable

        return load_callable(ref.target, self._allow)


def _require_same_context(name: str, blueprint: str, theirs: ContextType, ours: ContextType) -> None:
    """Refuse an imported pipeline that inherits a context of another type than it declares.

    Raises:
        BlueprintError: naming the step.
    """
    if theirs.declared is not None and theirs.declared != ours.declared:
        raise BlueprintError(
            f"import {name!r} inherits the context, but {blueprint!r} declares a different one",
            hint="declare the same context in both blueprints, or none in the imported one",
        )
