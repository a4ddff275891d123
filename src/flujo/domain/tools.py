"""Tools: what a callable declares about its effect, and the entries of an agent's `tools`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

from flujo.domain import values
from flujo.domain.approvals import Approval, approval
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.executor import Needs, needs
from flujo.domain.secrets import Bound, bound
from flujo.domain.transactions import CONNECTION
from flujo.domain.values import CallableRef
from flujo.domain.wording import repr_short
from flujo.exceptions import PipelineError

Effect = Literal["read", "idempotent", "transactional", "unsafe"]
InDoubt = Literal["pause", "retry_same_key", "reconcile", "fail"]

EFFECTS: Sequence[str] = get_args(Effect)
"""From no effect to an irreversible one."""

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__flujo_tool__"


@dataclass(frozen=True, slots=True)
class Tool:
    """The least strict declaration that a step or an agent may have for a callable."""

    effect: Effect
    enforce_idempotency: bool

    def admits(self, effect: str) -> bool:
        """Return whether `effect` is at least as strict as that of the callable."""
        return is_as_strict(effect, self.effect)


def is_as_strict(effect: str, other: str) -> bool:
    """Return whether an effect is at least as strict as another one."""
    return EFFECTS.index(effect) >= EFFECTS.index(other)


def tool(*, effect: Effect, enforce_idempotency: bool = False) -> Callable[[F], F]:
    """Declare the effect of a callable; a step with a less strict one is refused when it is bound.

        @flujo.tool(effect="unsafe", enforce_idempotency=True)
        async def charge(amount: int, idempotency_key: str) -> str: ...

    Args:
        effect: `read`, `idempotent`, `transactional` or `unsafe`. A step may declare a stricter one.
        enforce_idempotency: whether a step must record its calls before it makes them.

    Raises:
        PipelineError: `effect` is something else, or the decorated object takes no attributes.
    """
    declaration = Tool(values.one_of(*EFFECTS)(effect, "`effect` of `@flujo.tool`"), enforce_idempotency)

    def mark(fn: F) -> F:
        try:
            setattr(fn, _MARK, declaration)
        except (AttributeError, TypeError) as error:
            raise PipelineError(
                f"`@flujo.tool` cannot mark {repr_short(fn)}",
                hint="decorate a function, or an object of a class",
            ) from error
        return fn

    return mark


def declared(fn: Any) -> Tool | None:
    """Return the declaration of a callable."""
    found = getattr(fn, _MARK, None)
    return found if isinstance(found, Tool) else None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a callable when a tree is checked."""

    effect: str
    """The effect that it declares; empty if it declares none."""
    takes_connection: bool

    @property
    def writes_in_transaction(self) -> bool:
        """Whether it writes on a connection that Flujo lends it."""
        return self.effect == "transactional" and self.takes_connection


def known(fn: Any) -> Known:
    """Return what is known of a callable that is imported."""
    declaration = declared(fn)
    try:
        parameters: Iterable[str] = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        parameters = ()  # refused where it is bound
    return Known("" if declaration is None else declaration.effect, CONNECTION in parameters)


def repeats_unsafe(effect: str | None, in_doubt: str) -> bool:
    """Return whether a policy repeats a call in doubt whose second making may be a second effect."""
    return effect == "unsafe" and in_doubt == "retry_same_key"


def requirement(fn: Any) -> str:
    """Return what a callable requires of a step, so that each call is recorded before it is made, or ""."""
    declaration = declared(fn)
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return ""  # refused where it is bound
    if declaration is not None and declaration.effect == "transactional" and CONNECTION in parameters:
        return ""  # its calls have a key, and are recorded with what they write
    if declaration is not None and declaration.enforce_idempotency:
        return "`enforce_idempotency`"
    key = parameters.get("idempotency_key")
    return "an `idempotency_key`" if key is not None and key.default is key.empty else ""


# Entries of an agent's `tools` ---------------------------------------------------------------------------


class CalledTool(Node):
    """An entry whose calls are made one at a time, each with an entry in the journal."""

    effect: Any  # an `Effect`; None for that of the callable
    """The effect of a call."""
    approve: Any  # an `Approval` or None; the classes below also take True
    """Whether a human approves each call before it is made, or those that an `Approval` names; each call of
    the tool is recorded."""
    enforce_idempotency: bool
    """Whether each call is recorded before it is made, also in a step that does not require it."""
    in_doubt: Any  # an `InDoubt` or None
    """The action when the result of a recorded call is unknown; by default that of the step."""

    @property
    def name(self) -> str:
        """The name by which a model calls it; for display, those of several."""
        raise NotImplementedError

    @property
    def is_recorded(self) -> bool:
        """Whether each call is recorded before it is made."""
        return self.enforce_idempotency or self.approve is not None


@node
class CallableTool(CalledTool):
    """A callable that an agent's model may call, with the rules of its calls."""

    owner: ClassVar[str] = "tool: "

    call: Takes[CallableRef | str | Callable[..., Any], CallableRef] = takes(values.callable_ref)
    """A callable or `module:callable`."""
    _: KW_ONLY
    effect: Effect | None = takes(values.one_of(*EFFECTS), default=None)
    """The effect of a call; by default that of `@flujo.tool`, or `unsafe`. It may be stricter, not weaker."""
    with_: Takes[Mapping[str, Any], Mapping[str, Bound]] = takes(bound, default_factory=dict)
    """Values of parameters, which no model sees or passes: JSON data, and `Secret("NAME")`."""
    enforce_idempotency: bool = False
    """Whether each call is recorded before it is made, also in a step that does not require it."""
    approve: Takes[Approval | Literal[True] | None, Approval | None] = takes(approval, default=None)
    """Whether a human approves each call before it is made, or those that an `Approval` names; each call of
    the tool is recorded."""
    in_doubt: InDoubt | None = takes(values.one_of(*get_args(InDoubt)), default=None)
    """The action when the result of a recorded call is unknown; by default that of the step."""
    executor: str | None = None
    """Where its calls are executed, a table `[executors.NAME]`; None for the process of the run."""
    resources: Takes[Needs | Mapping[str, Any] | None, Needs | None] = takes(needs, default=None)
    """What a call needs there: `{"cpu": 2, "gpu": 1, "memory": "8GiB"}`."""

    @property
    def name(self) -> str:
        """The name by which a model calls it."""
        return self.call.target.rpartition(":")[2]

    def names(self) -> Iterator[CallableRef]:
        """Yield the callable."""
        yield self.call

    def __str__(self) -> str:
        """Return `module:callable`, for display."""
        return self.call.target


class ComposedTool(Node):
    """An entry that consists of steps: a blueprint or another agent; see `domain.steps.tools`."""

    name: Any  # a text; the classes below also take None, for a default
    """The name by which a model calls it."""
    description: str
    """When to call it, in words for the model."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON Schema of the arguments."""
        raise NotImplementedError

    @property
    def traits(self) -> Any:
        """What its results depend on, as JSON data."""
        raise NotImplementedError

    @property
    def runs(self) -> str:
        """What a call runs, in a few words."""
        raise NotImplementedError

    @property
    def wants_context(self) -> bool:
        """Whether its steps write to the context of the step that calls it."""
        return False

    def names(self) -> Iterator[CallableRef]:
        """Yield the callables that it names itself: none, because its steps name theirs."""
        yield from ()

    def __str__(self) -> str:
        """Return the name, for display."""
        return str(self.name)


McpEffect = Literal["read", "idempotent", "unsafe"]
"""The effects of tools of MCP servers, which cannot take part in a transaction."""


def _tool_names(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(map(_is_name, given)):
        raise PipelineError(f"{where} is {given!r}; expected a list of names of tools")
    if not given:
        raise PipelineError(
            f"{where} is empty, so that the model may call no tool",
            hint="name the tools, or leave `allow` out for all of the server",
        )
    return tuple(given)


def _is_name(given: Any) -> bool:
    return isinstance(given, str) and given != ""


@node
class McpTools(CalledTool):
    """The tools of an MCP server that an agent's model may call. Pure data."""

    owner: ClassVar[str] = "MCP tools: "

    server: str
    """The name of the server: `[mcp.NAME]` in flujo.toml."""
    _: KW_ONLY
    allow: Takes[Sequence[str] | None, tuple[str, ...] | None] = takes(_tool_names, default=None)
    """The names of the tools; the others do not exist for the model. Default: all tools of the server."""
    effect: McpEffect = takes(values.one_of("read", "idempotent", "unsafe"), default="unsafe")
    """The effect of a call of any of these tools."""
    enforce_idempotency: bool = False
    """Whether each call is recorded before it is made, also in a step that does not require it."""
    approve: Takes[Approval | Literal[True] | None, Approval | None] = takes(approval, default=None)
    """Whether a human approves each call before it is made, or those that an `Approval` names; each call of
    the tools is recorded."""
    in_doubt: InDoubt | None = takes(values.one_of(*get_args(InDoubt)), default=None)
    """The action when the result of a recorded call is unknown; by default that of the step."""

    @property
    def name(self) -> str:
        """The tools, for display: `mcp:kb/kb_search`; `mcp:kb/*` for all of a server."""
        return ", ".join(f"mcp:{self.server}/{tool}" for tool in self.allow or "*")

    def names(self) -> Iterator[CallableRef]:
        """Yield nothing: it has no callables."""
        return iter(())

    def __str__(self) -> str:
        """Return the tools, for display."""
        return self.name


ToolSpec = CallableTool | ComposedTool | McpTools
"""An entry of an agent's `tools`."""


def called_tools(tools: Iterable[ToolSpec]) -> Iterator[CalledTool]:
    """Yield the tools that do not consist of steps."""
    yield from (each for each in tools if isinstance(each, CalledTool))


def callable_tools(tools: Iterable[ToolSpec]) -> Iterator[CallableTool]:
    """Yield the callables among tools."""
    yield from (each for each in tools if isinstance(each, CallableTool))


Tooled = ToolSpec | CallableRef | str | Callable[..., Any]
"""An entry as it may be written in Python: a callable stands for `CallableTool(callable)`."""


def tool_specs(given: Sequence[Tooled], where: str) -> tuple[ToolSpec, ...]:
    """Return the entries of `tools`.

    Raises:
        PipelineError: an entry is not a tool.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise PipelineError(f"{where} is {given!r}; expected a list of tools")
    return tuple(each if isinstance(each, ToolSpec) else _callable_tool(each, where) for each in given)


def _callable_tool(given: Any, where: str) -> CallableTool:
    try:
        call = values.callable_ref(given, where)
    except PipelineError as error:
        others = (
            "tools of a provider and toolsets of pydantic-ai are not recorded; use a callable or `McpTools`"
        )
        raise PipelineError(error.message, hint=error.hint or others) from None
    return CallableTool(call)
