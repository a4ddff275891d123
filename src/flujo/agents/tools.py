"""Tools of an agent: what a model sees of them, and how callables among them are called."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from pydantic_ai import Tool as Described
from pydantic_ai.exceptions import ModelRetry, ToolFailed, UserError
from pydantic_ai.tools import ToolDefinition

from flujo.agents.function import INJECTED, FunctionAgent
from flujo.agents.thread_pool import THREADS
from flujo.domain import canonical
from flujo.domain.conversations import BackToModel, Tool
from flujo.domain.current_step import CURRENT_STEP
from flujo.domain.executor import Needs, Placed
from flujo.domain.secrets import named, revealed, secrets_in
from flujo.domain.tools import ComposedTool, McpTools, declared, tool_specs
from flujo.domain.transactions import CONNECTION
from flujo.domain.wording import plural, suggest
from flujo.exceptions import AgentError, ArgumentsRejected, CallFailed, SecretNotSet, TransactionRefused
from flujo.governance.secrets import read_secrets
from flujo.governance.sink import GATE
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from flujo.domain.agents import Ask, Reply
    from flujo.domain.approvals import Approval
    from flujo.domain.executor import CodeThreads, Executor
    from flujo.domain.tools import CallableTool, Effect, InDoubt, Tooled

_NAMED_ERRORS = 5
_FOR_THE_MODEL = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in (ModelRetry, ToolFailed))
"""The exceptions that speak to the model, as they are named in a failure on a worker."""
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ModelTool(Tool, Protocol):
    """A tool with its description for a model."""

    @property
    def definition(self) -> ToolDefinition:
        """What a model sees: name, description, and the JSON Schema of the arguments."""
        ...

    @property
    def traits(self) -> Mapping[str, Any]:
        """What a conversation depends on, as JSON data."""
        ...


class FunctionTool:
    """A callable as a tool. Flujo passes `context`, `resources`, `idempotency_key` and what `with` binds.

    A transactional callable also gets `connection`. A model sees the other parameters. Before a call,
    `read_secrets` reads the secrets among the bound values.

    Args:
        spec: the entry of the agent's `tools`, whose callable is imported.
        timeout_s: the timeout of a call.
        executor: calls sync callables.
        placed: the executor that executes the calls instead.

    Raises:
        AgentError: its parameters cannot be described to a model, `with` does not fit them, or its effect is
            weaker than the one that the callable declares.
    """

    def __init__(
        self,
        spec: CallableTool,
        *,
        timeout_s: float | None = None,
        executor: CodeThreads = THREADS,
        placed: Placed | None = None,
    ) -> None:
        fn: Any = spec.call.live
        self._call = FunctionAgent(fn, executor=executor)
        self._target = spec.call.target
        self._placed = placed
        self._with = spec.with_
        self._secrets = tuple(secrets_in(spec.with_))
        self._bound: Mapping[str, Any] | None = None
        """The bound values; None while their secrets are not read."""
        self._require_parameters(spec, fn)
        if not self._secrets:
            self._bind({})
        self.effect: Effect = _effect(spec, fn)
        self.connection: Literal["sync", "async"] | None = self._takes_connection(fn)
        lent = () if self.connection is None else (CONNECTION,)
        self._described = _described(fn, without=(*INJECTED, *spec.with_, *lent))
        self.name = self._described.name
        self.target = self._call.signature.name
        self.enforce_idempotency = spec.is_recorded
        self.approve: Approval | None = spec.approve
        self.parameters: Any = canonical.normalise(self.definition.parameters_json_schema)
        self.in_doubt: InDoubt | None = spec.in_doubt
        self.is_sequential = False
        self.timeout_s = timeout_s
        self.wants_context = self._call.wants_context

    @property
    def definition(self) -> ToolDefinition:
        """What a model sees: name, description, and the JSON Schema of the arguments."""
        return self._described.tool_def

    @property
    def traits(self) -> Mapping[str, Any]:
        """What a conversation depends on, as JSON data."""
        return {
            "description": self.definition.description,
            "parameters": self.parameters,
            "effect": self.effect,
            **({} if self.approve is None else {"approve": str(self.approve)}),
            **({"with": named(self._with)} if self._with else {}),
        }

    def read_secrets(self, environment: Mapping[str, str]) -> None:
        """Read the secrets that `with` names.

        Raises:
            SecretNotSet: one is not set, or too short to be hidden.
        """
        if self._secrets:
            self._bind(read_secrets(self._secrets, environment, f"tool `{self.name}`"))

    def _bind(self, secrets: Mapping[str, str]) -> None:
        """Set the bound values.

        Raises:
            AgentError: one does not fit the annotation of its parameter.
        """
        values = revealed(self._with, secrets)
        for name, value in values.items():
            try:
                self._call.signature.converted(name, value)
            except ArgumentsRejected as error:
                tool = self._call.signature.name
                raise AgentError(
                    f"`with` of tool `{tool}`: the value of `{name}` does not fit: {error.message}",
                    hint="change the value, or the annotation of the parameter",
                ) from None
        self._bound = values

    def check_arguments(self, ask: Ask) -> None:
        """Refuse arguments that do not fit the schema, in words for a model.

        Raises:
            ArgumentsRejected: names the arguments and the reasons.
        """
        if taken := sorted(self._with.keys() & (ask.arguments or {}).keys()):
            raise ArgumentsRejected(f"`{taken[0]}`: Extra inputs are not permitted", callable=self.target)
        try:
            self._described.function_schema.validator.validate_python(dict(ask.arguments or {}))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            reasons = [f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in found[:_NAMED_ERRORS]]
            more = len(found) - len(reasons)
            raise ArgumentsRejected(
                "; ".join(reasons) + (f"; and {plural(more, 'more')}" if more > 0 else ""),
                callable=self.target,
            ) from None
        self._call.check_arguments(self._by_name(ask))

    async def ask(self, ask: Ask) -> Reply:
        """Call it once.

        Raises:
            BackToModel: it raised pydantic-ai's `ModelRetry` or `ToolFailed`.
        """
        executor = None if ask.transaction is None else ask.transaction.executor
        placed = self._placed
        if placed is not None:
            ask = replace(ask, placed=placed, step=CURRENT_STEP.get())
        try:
            reply = await self._call.call(self._by_name(ask), executor, self._target)
        except (ModelRetry, ToolFailed) as error:
            raise BackToModel(getattr(error, "message", None) or str(error)) from error
        except CallFailed as error:
            if error.original in _FOR_THE_MODEL:
                raise BackToModel(str(error)) from error
            raise
        if not self._secrets:
            return reply
        # The result is for a model: a secret that the callable returns is masked, and not refused.
        content = canonical.normalise(reply.output, what=f"result of tool `{self.name}`")
        return replace(reply, output=GATE.data(content))

    def _by_name(self, ask: Ask) -> Ask:
        """Return the request with all arguments by parameter: a model sees the fields of a lone object."""
        single = self._described.function_schema.single_arg_name
        given = {single: ask.arguments} if single is not None else ask.arguments or {}
        lent: dict[str, Any] = {}
        if self.connection is not None and ask.transaction is not None:
            lent[CONNECTION] = ask.transaction.connection(is_async=self.connection == "async")
        elif self.connection is not None:
            lent[CONNECTION] = None  # the arguments are only checked
        return replace(ask, arguments={**given, **self._values(), **lent})

    def _values(self) -> Mapping[str, Any]:
        if self._bound is None:
            raise SecretNotSet(
                f"the secrets of tool `{self.name}` are not read: a runner reads them when it is built",
                secret=self._secrets[0].name,
            )
        return self._bound

    def _takes_connection(self, fn: Any) -> Literal["sync", "async"] | None:
        """Return how a transactional callable takes its connection; None for other callables.

        Raises:
            TransactionRefused: it does not take one.
        """
        if self.effect != "transactional":
            return None
        if CONNECTION not in inspect.signature(fn).parameters:
            raise TransactionRefused(
                f"tool `{self._call.signature.name}` has `effect: transactional`, but takes no `{CONNECTION}`"
            )
        if CONNECTION in self._with:
            raise AgentError(f"`with` of a transactional tool binds `{CONNECTION}`, which Flujo fills in")
        return "async" if self._call.is_async else "sync"

    def _require_parameters(self, spec: CallableTool, fn: Any) -> None:
        """Refuse a `with` that does not fit the parameters of the callable.

        Raises:
            AgentError: names the parameter.
        """
        parameters = inspect.signature(fn).parameters if spec.with_ else {}
        takes = [name for name, each in parameters.items() if name not in INJECTED and each.kind in _BY_NAME]
        is_open = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        for name in spec.with_:
            if name in INJECTED:
                raise AgentError(
                    f"`with` of tool `{spec}` binds `{name}`, which Flujo fills in", hint=f"remove `{name}`"
                )
            if name not in takes and not is_open:
                raise AgentError(
                    f"`with` of tool `{spec}` binds `{name}`, which is not a parameter of its callable",
                    hint=suggest(name, takes, what="its parameters") or "it has no parameters",
                )


class StepsTool:
    """A tool that consists of steps, which the engine runs: a blueprint, or another agent.

    Args:
        declaration: the entry of the agent's `tools`; another agent in it is built.
    """

    effect: Effect = "unsafe"  # its steps may have any effect; the call itself is not announced
    enforce_idempotency = False
    approve: Approval | None = None
    in_doubt: InDoubt | None = None
    is_sequential = False
    connection: Literal["sync", "async"] | None = None
    timeout_s: float | None = None

    def __init__(self, declaration: ComposedTool) -> None:
        self.name = declaration.name
        self.target = declaration.name
        self.wants_context = declaration.wants_context
        self._description = declaration.description
        self.parameters: Any = canonical.normalise(declaration.parameters)
        self._inside = declaration.traits
        self._schema = Validator(declaration.parameters)

    @property
    def definition(self) -> ToolDefinition:
        """What a model sees: name, description, and the JSON Schema of the arguments."""
        return ToolDefinition(
            name=self.name, description=self._description, parameters_json_schema=dict(self.parameters)
        )

    @property
    def traits(self) -> Mapping[str, Any]:
        """What a conversation depends on, as JSON data."""
        return {
            "description": self._description,
            "parameters": self.parameters,
            "inside": self._inside,
        }

    def check_arguments(self, ask: Ask) -> None:
        """Refuse arguments that do not fit the schema, in words for a model.

        Raises:
            ArgumentsRejected: names the arguments and the reasons.
        """
        found = list(islice(self._schema.violations(dict(ask.arguments or {})), _NAMED_ERRORS))
        if found:
            raise ArgumentsRejected("; ".join(found), callable=self.target)

    async def ask(self, ask: Ask) -> Reply:  # noqa: ARG002 - the parameter of the port
        """Raise: only a step of kind `granular` records the steps of a tool.

        Raises:
            AgentError: always.
        """
        raise AgentError(
            f"tool `{self.name}` consists of steps, which a step of this kind does not record",
            hint="write `kind: granular`",
        )


def tools_of(
    agent: str,
    tools: Sequence[Tooled],
    *,
    timeout_s: float | None = None,
    executor: CodeThreads = THREADS,
    executors: Callable[[str], Executor | None] | None = None,
) -> Mapping[str, FunctionTool | StepsTool]:
    """Return the tools of an agent that are not those of MCP servers, by name.

    Args:
        agent: the name of the agent.
        tools: its tools, whose callables are imported.
        timeout_s: the timeout of each call.
        executor: calls sync callables.
        executors: returns the executor of a name; None calls every tool in this process.

    Raises:
        AgentError: two tools have one name, a tool cannot be described to a model, or a tool has a weaker
            effect than its callable declares.
    """
    named: dict[str, FunctionTool | StepsTool] = {}
    for each in tool_specs(tools, f"agent {agent!r}: `tools`"):
        if isinstance(each, McpTools):
            continue  # known when its server is started: see `mcp_tools`
        tool: FunctionTool | StepsTool
        try:
            if isinstance(each, ComposedTool):
                tool = StepsTool(each)
            else:
                placed = _placed(each, executors)
                tool = FunctionTool(each, timeout_s=timeout_s, executor=executor, placed=placed)
        except TransactionRefused:
            raise
        except AgentError as error:
            raise AgentError(
                f"agent {agent!r} cannot be built with its tools: {error.message}", hint=error.hint
            ) from error
        if tool.name in named:
            raise AgentError(
                f"agent {agent!r} cannot be built with its tools: two are named `{tool.name}`",
                hint="give each tool a unique name",
            )
        named[tool.name] = tool
    return named


def _placed(spec: CallableTool, executors: Callable[[str], Executor | None] | None) -> Placed | None:
    """Return the executor of a tool's calls; None for this process."""
    executor = None if executors is None or spec.executor is None else executors(spec.executor)
    return None if executor is None else Placed(executor, spec.resources or Needs())


def _effect(spec: CallableTool, fn: Any) -> Effect:
    """Return the effect of a tool: its own, or else that of the callable.

    Raises:
        AgentError: its own is weaker.
    """
    declaration = declared(fn)
    if spec.effect is None:
        return "unsafe" if declaration is None else declaration.effect
    if declaration is not None and not declaration.admits(spec.effect):
        raise AgentError(
            f"tool `{spec}` has `effect: {spec.effect}`, but its callable declares {declaration.effect!r}",
            hint=f"write `effect: {declaration.effect}`; a tool may be stricter, not weaker",
        )
    return spec.effect


def _described(fn: Callable[..., Any], without: Collection[str]) -> Described[Any]:
    """Return the description of a callable for models, without the parameters that Flujo fills in."""
    try:
        shown = Described(_shown(fn, without), takes_ctx=False)
    except (UserError, PydanticUserError, ValueError, TypeError, NameError, AttributeError) as error:
        why, *_ = str(error).split(". Set `", 1)[0].splitlines() or [type(error).__name__]
        raise AgentError(
            f"`{getattr(fn, '__qualname__', repr(fn))}`{_place(fn)} cannot be described to a model: {why}",
            hint="annotate its parameters with types that JSON can hold; `context`, `resources` and "
            "`idempotency_key` are filled in by Flujo",
        ) from error
    return shown


def _place(fn: Callable[..., Any]) -> str:
    """Return the file and line of a function, relative to the current folder; empty for other callables."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return "" if code is None else f" ({os.path.relpath(code.co_filename)}:{code.co_firstlineno})"


def _shown(fn: Callable[..., Any], without: Collection[str]) -> Callable[..., Any]:
    """Return a function of the same name and signature, without the parameters that Flujo fills in."""
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def shown(*_: Any, **__: Any) -> None: ...

    kept = [each for name, each in signature.parameters.items() if name not in without]
    # as `inspect` and pydantic read them; names under TYPE_CHECKING need not resolve
    shown.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    shown.__annotations__ = {each.name: each.annotation for each in kept if each.annotation is not each.empty}
    return shown
