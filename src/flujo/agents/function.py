"""A callable as an agent: its arguments are passed by name, and what it returns is the answer."""

import collections.abc
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flujo.agents.thread_pool import THREADS, LazyItems
from flujo.domain.agents import Ask, Reply
from flujo.domain.executor import Executor
from flujo.exceptions import ArgumentsRejected, CallableError, ResourcesMissing

INJECTED = ("context", "resources", "idempotency_key")
"""Parameters that Flujo fills in by their names."""

_LAZY = (
    collections.abc.Iterator,
    collections.abc.AsyncIterator,
    collections.abc.Iterable,
    collections.abc.Callable,
)


class FunctionAgent:
    """Answers by calling `fn`: async ones on the event loop, plain ones on the executor.

    The step's `with:` arguments are passed by name; without them the step's input goes to the parameter
    `data`, or to the only one that is free. Parameters called `context` and `resources` get the attempt's
    context and the application's resources; `idempotency_key` gets that of a call whose idempotency is
    enforced. Values are converted to the parameters' annotations, so that a callable which declares a
    pydantic model or a dataclass gets one.

    Args:
        fn: any callable.
        name: how errors name it; its `module:qualname` when not given.
        executor: where a plain callable runs. One that takes `context` runs in a thread of this process,
            because it changes an object of this process.

    Raises:
        CallableError: `fn` cannot be called.
    """

    def __init__(
        self, fn: Callable[..., Any], *, name: str | None = None, executor: Executor = THREADS
    ) -> None:
        if not callable(fn):
            raise CallableError(
                f"{name or repr(fn)} is a {type(fn).__name__} and cannot be called",
                hint="name a function, a class, or an object with `__call__`",
            )
        self.fn = fn
        self.signature = _Signature.of(fn, name or _name(fn))
        self.wants_context = "context" in self.signature.injected
        self._is_async = _is_async(fn)
        self._executor = THREADS if self.wants_context else executor

    @property
    def takes(self) -> Any:
        """The annotation of the parameter that a step's input goes to; `Any` when there is none.

        Raises:
            ArgumentsRejected: the input has no place among the parameters.
        """
        return self.signature.hints.get(self.signature.parameter_for_data or "", Any)

    @property
    def gives(self) -> Any:
        """The annotation of what it returns, awaited; `Any` when there is none."""
        if inspect.isclass(self.fn):
            return self.fn
        hint = self.signature.hints.get("return", Any)
        awaited = typing.get_origin(hint) in (collections.abc.Awaitable, collections.abc.Coroutine)
        return typing.get_args(hint)[-1] if awaited else hint

    async def ask(self, ask: Ask) -> Reply:
        """Call it once; whatever it raises is passed on as it is.

        Raises:
            ArgumentsRejected: the input or the `with:` arguments do not fit the parameters.
        """
        args, kwargs = self.signature.bind(ask)
        if self._is_async:
            output = self.fn(*args, **kwargs)
        else:
            output = await self._executor.submit(functools.partial(self.fn, *args, **kwargs))
        if isinstance(output, collections.abc.Iterator):
            output = LazyItems(output)
        # A lambda or partial may hide a coroutine function.
        return Reply(output=await output if inspect.isawaitable(output) else output)


@dataclass
class _Signature:
    """What a callable takes, looked at once: what follows from it is kept, because every call asks for it."""

    name: str
    parameters: Mapping[str, inspect.Parameter] | None
    """None for the few builtins that have no signature: they get the data as their one argument."""
    hints: Mapping[str, Any]
    resources: Any = None
    """What the parameter `resources` is annotated with."""
    _adapters: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, fn: Callable[..., Any], name: str) -> typing.Self:
        try:
            parameters = inspect.signature(fn).parameters
        except (TypeError, ValueError):
            return cls(name, None, {})
        hints = _hints(fn)
        injected = {each: hints.pop(each, None) for each in INJECTED}
        says = {each: hint for each, hint in hints.items() if _says_something(hint)}
        return cls(name, parameters, says, injected["resources"])

    @functools.cached_property
    def injected(self) -> tuple[str, ...]:
        return tuple(name for name in INJECTED if name in (self.parameters or ()))

    def bind(self, ask: Ask) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments of one call."""
        if self.parameters is None:
            return self._without_signature(ask)
        given = self._given(ask)
        values = {name: self._converted(name, value) for name, value in given.items()}
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
        """Return the argument `resources`: what there is, when it is what the callable declares."""
        if resources is None:
            if (self.parameters or {})["resources"].default is inspect.Parameter.empty:
                raise ResourcesMissing(
                    f"`{self.name}` asks for `resources`, and the runner was given none", callable=self.name
                )
            return {}
        if not _is_one(resources, self.resources):
            wanted = getattr(self.resources, "__name__", str(self.resources))
            raise ArgumentsRejected(
                f"`{self.name}` asks for `resources: {wanted}`, and the runner was given "
                f"`{type(resources).__name__}`",
                hint=f"give the runner a {wanted} (a subclass will do), or change the annotation",
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
        """The parameter that takes the step's input, `*` for `*args`, None when there is none."""
        free = [p for p in self._named if p.name not in INJECTED]
        if any(p.name == "data" for p in free):
            return "data"
        candidates = [p for p in free if p.default is p.empty] or free
        if len(candidates) == 1:
            return candidates[0].name
        if candidates:
            names = ", ".join(f"`{p.name}`" for p in candidates)
            raise ArgumentsRejected(
                f"the step's input has no place in `{self.name}`: it takes {names}; none is called `data`",
                hint="say which value goes where with `with:`, or name the parameter for the input `data`",
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
                    f"`with:` gives `{name}`, which is no parameter of `{self.name}`",
                    hint=f"it takes {takes}",
                    callable=self.name,
                    parameter=name,
                )

    def _refuse_missing(self, values: Mapping[str, Any]) -> None:
        for name in self._required:
            if name not in values:
                raise ArgumentsRejected(
                    f"`{self.name}` needs the argument `{name}`, and `with:` does not give it",
                    hint=f"add `{name}:` to the step's `with:`",
                    callable=self.name,
                    parameter=name,
                )

    def _converted(self, name: str, value: Any) -> Any:
        """Return `value` as the parameter's annotation declares it; as it is when that says nothing."""
        if name not in self.hints:
            return value
        if name not in self._adapters:
            self._adapters[name] = adapter(self.hints[name])
        try:
            return self._adapters[name](value)
        except ValueError as error:  # pydantic's ValidationError
            raise ArgumentsRejected(
                f"argument `{name}` of `{self.name}` does not fit its annotation: {_reasons(error)}",
                hint="change what the step hands over (`with:`, `input:`, the step before) or the annotation",
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


def _says_something(hint: Any) -> bool:
    # Pydantic would hand over its own lazy iterator for these.
    return hint is not Any and typing.get_origin(hint) not in _LAZY and hint not in _LAZY


def _is_one(value: Any, hint: Any) -> bool:
    """Return whether `value` is what an annotation names; True where it names nothing to hold it to."""
    try:
        return hint is None or isinstance(value, hint)
    except TypeError:  # `Any`, or a protocol that has no check at run time
        return True


def adapter(hint: Any) -> Callable[[Any], Any]:
    """Return what makes an annotation's value out of JSON data, and raises ValueError when it is none."""
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        return TypeAdapter(hint).validate_python
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return lambda value: value  # a class that pydantic does not know: nothing to convert to


def _reasons(error: ValueError) -> str:
    """Return what is wrong, without the values: inputs may be private."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in found[:5])
