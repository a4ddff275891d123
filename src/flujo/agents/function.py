"""A callable as an agent: its arguments are passed by name, and its return value is the answer."""

import collections.abc
import dataclasses
import datetime
import decimal
import functools
import inspect
import pathlib
import typing
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from flujo.agents.thread_pool import THREADS, LazyItems
from flujo.domain import canonical
from flujo.domain.agents import Ask, Reply, new_reply
from flujo.domain.current_step import ON_REMOTE_WORK
from flujo.domain.executor import CodeThreads, Placed, Unit
from flujo.exceptions import ArgumentsRejected, CallableError, ResourcesMissing

INJECTED = ("context", "resources", "idempotency_key")
"""Names of parameters that Flujo fills in."""

_BY_PYDANTIC = (decimal.Decimal, set, frozenset, pathlib.PurePath, datetime.timedelta)
_LAZY = (
    collections.abc.Iterator,
    collections.abc.AsyncIterator,
    collections.abc.Iterable,
    collections.abc.Callable,
)


class FunctionAgent:
    """Answers by calling `fn`: async functions on the event loop, others on the executor.

    The step's `with:` arguments are passed by name. Without `with:`, the step's input goes to the parameter
    `data`, or to the only parameter without a default. The parameters `context` and `resources` get the
    attempt's context and the application's resources; `idempotency_key` gets the key of a call with
    enforced idempotency. Values are converted to the parameters' annotations: a parameter annotated with a
    pydantic model or a dataclass gets an instance of it.

    Args:
        fn: any callable.
        name: the name in error messages. Default: its `module:qualname`.
        executor: runs `fn` unless it is async. A callable that takes `context` always runs in a thread of
            this process, because it changes an object of this process.

    Raises:
        CallableError: `fn` is not callable.
    """

    def __init__(
        self, fn: Callable[..., Any], *, name: str | None = None, executor: CodeThreads = THREADS
    ) -> None:
        if not callable(fn):
            raise CallableError(
                f"{name or repr(fn)} is of type {type(fn).__name__}, which is not callable",
                hint="name a function, a class, or an object with `__call__`",
            )
        self.fn = fn
        self.name = name or _name(fn)
        """`module:callable`, unless it was named otherwise."""
        self.signature = _Signature.of(fn, self.name)
        self.wants_context = "context" in self.signature.injected
        self.wants_resources = "resources" in self.signature.injected
        self.is_async = _is_async(fn)
        self._executor = THREADS if self.wants_context else executor

    @property
    def takes(self) -> Any:
        """The annotation of the parameter that gets the step's input; `Any` when there is none.

        Raises:
            ArgumentsRejected: no parameter can take the input.
        """
        return self.signature.hints.get(self.signature.parameter_for_data or "", Any)

    @property
    def gives(self) -> Any:
        """The annotation of its return value, after awaiting; `Any` when there is none."""
        if inspect.isclass(self.fn):
            return self.fn
        hint = self.signature.hints.get("return", Any)
        awaited = typing.get_origin(hint) in (collections.abc.Awaitable, collections.abc.Coroutine)
        return typing.get_args(hint)[-1] if awaited else hint

    def check_arguments(self, ask: Ask) -> None:
        """Bind the arguments without calling.

        Raises:
            ArgumentsRejected: the input or the `with:` arguments do not match the parameters.
        """
        self.signature.bind(ask)

    @functools.cached_property
    def _needs_pydantic(self) -> bool:
        return needs_pydantic(self.gives)

    def ask(self, ask: Ask) -> Coroutine[Any, Any, Reply]:
        """Call it once; its exceptions propagate unchanged.

        Raises:
            ArgumentsRejected: the input or the `with:` arguments do not match the parameters.
        """
        return self.call(ask)  # not `async`: each waiting run would hold one more coroutine

    async def call(self, ask: Ask, executor: CodeThreads | None = None, target: str | None = None) -> Reply:
        """Call it as `ask` does, on the threads of this call.

        Args:
            ask: the request.
            executor: calls a sync callable; None for that of all calls.
            target: the name by which a worker imports it; None for `name`.
        """
        if ask.placed is not None:
            unit = self._unit(ask, ask.placed, target or self.name)
            return new_reply(output=await ask.placed.executor.submit(unit))
        args, kwargs = self.signature.bind(ask)
        if self.is_async:
            return new_reply(output=await self.fn(*args, **kwargs))
        output = await (executor or self._executor).submit(functools.partial(self.fn, *args, **kwargs))
        if isinstance(output, collections.abc.Iterator):
            output = LazyItems(output)
        # A lambda or partial may hide a coroutine function.
        output = await output if inspect.isawaitable(output) else output
        return new_reply(output=written(output, self.gives) if self._needs_pydantic else output)

    def _unit(self, ask: Ask, placed: Placed, target: str) -> Unit:
        """Return one call as data; the worker binds the arguments."""
        by_name = ask.arguments is not None
        listener = ON_REMOTE_WORK.get() if placed.executor.leaves_process else None
        number, traceparent = (0, None) if listener is None else listener.sent()
        return Unit(
            target=target,
            data=canonical.encode(ask.arguments if by_name else ask.data),
            by_name=by_name,
            idempotency_key=ask.idempotency_key,
            step=ask.step,
            number=number,
            traceparent=traceparent,
            needs=placed.needs,
            here=functools.partial(self._called_here, ask),
        )

    async def _called_here(self, ask: Ask, threads: CodeThreads) -> Any:
        """Return the output of a call in this process, on other threads than the usual ones."""
        return (await self.call(dataclasses.replace(ask, placed=None), threads)).output


@dataclass
class _Signature:
    """The parameters of a callable. Derived values are cached, because every call needs them."""

    name: str
    parameters: Mapping[str, inspect.Parameter] | None
    """None for builtins without a signature, which get the data as their only argument."""
    hints: Mapping[str, Any]
    resources: Any = None
    """The annotation of the parameter `resources`."""
    _adapters: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, fn: Callable[..., Any], name: str) -> typing.Self:
        try:
            parameters = inspect.signature(fn).parameters
        except (TypeError, ValueError):
            return cls(name, None, {})
        hints = _hints(fn)
        injected = {each: hints.pop(each, None) for each in INJECTED}
        converted = {each: hint for each, hint in hints.items() if _is_converted_to(hint)}
        return cls(name, parameters, converted, injected["resources"])

    @functools.cached_property
    def injected(self) -> tuple[str, ...]:
        return tuple(name for name in INJECTED if name in (self.parameters or ()))

    def bind(self, ask: Ask) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments of one call."""
        if self.parameters is None:
            return self._without_signature(ask)
        if ask.arguments is None and (only := self._only_name) is not None:
            return [self.converted(only, ask.data) if only in self.hints else ask.data], {}
        given = self._given(ask)
        values = {name: self.converted(name, value) for name, value in given.items()}
        if "context" in self.injected:
            values.setdefault("context", ask.context)
        if "resources" in self.injected and "resources" not in values:
            values |= self._resources(ask.resources)
        if "idempotency_key" in self.injected and ask.idempotency_key is not None:
            values["idempotency_key"] = ask.idempotency_key
        self._refuse_missing(values)
        positional = [values.pop(name) for name in self._positional_only if name in values]
        variadic = values.pop("*", None)
        return (positional if variadic is None else [variadic]), values

    def _resources(self, resources: Any) -> Mapping[str, Any]:
        """Return the argument `resources`, after a check against its annotation."""
        if resources is None:
            if (self.parameters or {})["resources"].default is inspect.Parameter.empty:
                raise ResourcesMissing(
                    f"`{self.name}` takes `resources`, and the runner has none", callable=self.name
                )
            return {}
        if not _is_one(resources, self.resources):
            wanted = getattr(self.resources, "__name__", str(self.resources))
            raise ArgumentsRejected(
                f"`{self.name}` takes `resources: {wanted}`, and those of the runner are "
                f"`{type(resources).__name__}`",
                hint=f"create the runner with a {wanted} (or a subclass), or change the annotation",
                callable=self.name,
                parameter="resources",
            )
        return {"resources": resources}

    def _without_signature(self, ask: Ask) -> tuple[list[Any], dict[str, Any]]:
        if ask.arguments is None:
            return [ask.data], {}
        return [], dict(ask.arguments)

    def _given(self, ask: Ask) -> Mapping[str, Any]:
        if ask.arguments is None:
            target = self.parameter_for_data
            return {} if target is None else {target: ask.data}
        self._refuse_unknown(ask.arguments)
        return ask.arguments

    @functools.cached_property
    def parameter_for_data(self) -> str | None:
        """The parameter that gets the step's input; `*` for `*args`; None when there is none."""
        free = [p for p in self._named if p.name not in INJECTED]
        if any(p.name == "data" for p in free):
            return "data"
        candidates = [p for p in free if p.default is p.empty] or free
        if len(candidates) == 1:
            return candidates[0].name
        if candidates:
            names = ", ".join(f"`{p.name}`" for p in candidates)
            raise ArgumentsRejected(
                f"no parameter of `{self.name}` can take the step's input: it takes {names}; none is called "
                "`data`",
                hint="pass the values by name with `with:`, or rename the parameter for the input to `data`",
                callable=self.name,
            )
        variadic = any(p.kind is p.VAR_POSITIONAL for p in (self.parameters or {}).values())
        return "*" if variadic else None

    @functools.cached_property
    def _named(self) -> list[inspect.Parameter]:
        return [
            p for p in (self.parameters or {}).values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]

    @functools.cached_property
    def _only_name(self) -> str | None:
        """The only parameter, if it is the one for the step's input and may be passed by position."""
        is_alone = len(self.parameters or ()) == len(self._named) == 1 and not self.injected
        is_by_name = is_alone and self._named[0].kind is inspect.Parameter.KEYWORD_ONLY
        return self._named[0].name if is_alone and not is_by_name else None

    @functools.cached_property
    def _required(self) -> tuple[str, ...]:
        return tuple(p.name for p in self._named if p.default is p.empty)

    @functools.cached_property
    def _positional_only(self) -> tuple[str, ...]:
        return tuple(p.name for p in self._named if p.kind is p.POSITIONAL_ONLY)

    def _refuse_unknown(self, arguments: Mapping[str, Any]) -> None:
        if any(p.kind is p.VAR_KEYWORD for p in (self.parameters or {}).values()):
            return
        names = [p.name for p in self._named]
        for name in arguments:
            if name not in names:
                takes = ", ".join(f"`{n}`" for n in names if n not in INJECTED) or "no arguments"
                raise ArgumentsRejected(
                    f"`with:` passes `{name}`, which is not a parameter of `{self.name}`",
                    hint=f"it takes {takes}",
                    callable=self.name,
                    parameter=name,
                )

    def _refuse_missing(self, values: Mapping[str, Any]) -> None:
        for name in self._required:
            if name not in values:
                raise ArgumentsRejected(
                    f"`{self.name}` needs the argument `{name}`, and `with:` does not pass it",
                    hint=f"add `{name}:` to the step's `with:`",
                    callable=self.name,
                    parameter=name,
                )

    def converted(self, name: str, value: Any) -> Any:
        """Return `value` converted to the parameter's annotation; unchanged when there is none."""
        if name not in self.hints:
            return value
        if name not in self._adapters:
            self._adapters[name] = adapter(self.hints[name])
        try:
            return self._adapters[name](value)
        except ValueError as error:  # pydantic's ValidationError
            raise ArgumentsRejected(
                f"argument `{name}` of `{self.name}` does not fit its annotation: {_reasons(error)}",
                hint="change the value (`with:`, `input:`, or the step before) or the annotation",
                callable=self.name,
                parameter=name,
            ) from None


def _name(fn: Callable[..., Any]) -> str:
    fn = _unwrapped(fn)
    owner = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{getattr(owner, '__module__', 'builtins')}:{owner.__qualname__}"


def _unwrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _is_async(fn: Callable[..., Any]) -> bool:
    fn = _unwrapped(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    fn = _unwrapped(fn)
    if inspect.isclass(fn):
        fn = fn.__init__
    elif not (inspect.isroutine(fn) or hasattr(fn, "__wrapped__")):
        fn = type(fn).__call__
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception:  # noqa: BLE001  # annotations are foreign code; names under TYPE_CHECKING do not resolve
        return {}


def _is_converted_to(hint: Any) -> bool:
    # Pydantic would replace values of the lazy types by its own lazy iterator.
    return hint is not Any and typing.get_origin(hint) not in _LAZY and hint not in _LAZY


def written(output: Any, hint: Any) -> Any:
    """Return the JSON data of an output of this type; the output itself when it does not fit the type."""
    data = canonical.json_of(output, hint)
    return output if data is None else data[0]


def needs_pydantic(hint: Any) -> bool:
    """Return whether only pydantic writes this type as JSON: `Decimal`, `set[str]`, `dict[int, str]`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict and inner[0] is not str:
        return True
    kind = origin or hint
    is_one = inspect.isclass(kind) and issubclass(kind, _BY_PYDANTIC)
    return is_one or any(map(needs_pydantic, inner))


def _is_one(value: Any, hint: Any) -> bool:
    """Return whether `value` is an instance of an annotation; True when the annotation cannot be checked."""
    try:
        return hint is None or isinstance(value, hint)
    except TypeError:  # `Any`, or a protocol that is not `runtime_checkable`
        return True


def adapter(hint: Any) -> Callable[[Any], Any]:
    """Return a function that converts JSON data to an annotation, and raises ValueError when it cannot."""
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        return TypeAdapter(hint).validator.validate_python  # three times as fast as the adapter's own
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return lambda value: value  # pydantic does not know the class, so the value stays as it is


def _reasons(error: ValueError) -> str:
    """Return the reasons without the values, because inputs may be private."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in found[:5])
