"""What constructors make of what they are given, and what they say of what is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import Body, Pipeline, body
from flujo.domain.steps.base import (
    NO_ITEMS,
    BaseStep,
    Common,
    Save,
    Saved,
    StepConfig,
    put,
)
from flujo.domain.values import CallableRef
from flujo.exceptions import PipelineError

C = TypeVar("C")


Merge = str | CallableRef | Callable[..., Any]
"""A `MergeStrategy` by itself or by its value, or a callable of the branches' contexts."""


@dataclass(frozen=True, slots=True)
class ArgumentReader:
    """Whose argument it is, for what is said of a wrong one."""

    name: str

    def __call__(self, key: str) -> str:
        """Return how an error names the argument `key`."""
        return f"step {self.name!r}: `{key}`"

    def one_of(self, **given: Any) -> Any:
        """Return the one of several spellings of an argument that was given."""
        return values.only_one(f"step {self.name!r}", **given)

    def who(self, key: str, given: Any) -> AgentSpec | CallableRef:
        """Return who answers."""
        return given if isinstance(given, AgentSpec) else values.callable_ref(given, self(key), takes=_WHO)

    def a(self, kind: type[C], key: str, given: C) -> C:
        """Return the argument when it is of its kind."""
        if not isinstance(given, kind):
            raise PipelineError(f"{self(key)} is {given!r}, and takes a `{kind.__name__}`")
        return given

    def each(self, key: str, given: Mapping[str, C], kind: type[C]) -> Mapping[str, C]:
        """Return a mapping whose values are all of their kind."""
        for name, each in given.items():
            self.a(kind, f"{key}[{name!r}]", each)
        return dict(given)

    def bodies(self, key: str, given: Mapping[str, Body]) -> Mapping[str, Pipeline]:
        """Return a mapping of pipelines."""
        return {name: body(each, self(f"{key}[{name!r}]")) for name, each in given.items()}

    def texts(self, key: str, given: Sequence[str]) -> tuple[str, ...]:
        """Return a list of texts."""
        if isinstance(given, str):
            raise PipelineError(f"{self(key)} is {given!r}, and takes a list of texts", hint=f"[{given!r}]")
        return tuple(given)

    def count(self, key: str, given: Any) -> int:
        """Return a whole number of at least 1."""
        if type(given) is not int or given < 1:
            raise PipelineError(f"{self(key)} is {given!r}, and takes a whole number of at least 1")
        return int(given)

    def merge(self, given: Merge | None, strategy: Merge | None, otherwise: str) -> str | CallableRef:
        """Return how contexts are merged, by either spelling of the argument."""
        if given is None and strategy is None:
            return otherwise
        way = self.one_of(merge=given, merge_strategy=strategy)
        if isinstance(way, str) and not values.looks_like_target(way):
            return str(way)
        return values.callable_ref(way, self("merge"), takes="a `MergeStrategy`, or a callable")

    def instead(self, key: str, given: Any) -> Any:
        """Return what stands in a failure's place: a word, or values by name."""
        return given if isinstance(given, str) else values.mapping(given, self(key))


_WHO = "an `AgentSpec`, a callable, or `module:callable`"


def set_fields(step: BaseStep, common: Common, /, *, name: str, **own: Any) -> None:
    """Set the fields of a step under construction: those of every kind, and its own."""
    at = ArgumentReader(name)
    unknown = [key for key in common if key not in Common.__annotations__]
    if unknown:
        known = [each.name for each in fields(step)]
        close = difflib.get_close_matches(unknown[0], known, 1, 0.6)
        raise PipelineError(
            f"step {name!r}: there is no `{unknown[0]}` on `{type(step).__name__}`",
            hint=f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(known)}",
        )
    put(
        step,
        name=name,
        when=values.maybe_logic(common.get("when"), at("when")),
        save={key: _save(each, at(f"save[{key!r}]")) for key, each in common.get("save", NO_ITEMS).items()},
        cache=common.get("cache"),
        tags=at.texts("tags", common.get("tags", ())),
        config=at.a(StepConfig, "config", common.get("config", StepConfig())),
        **own,
    )


def _save(given: Saved, where: str) -> Save:
    match given:
        case Save(value, append):
            return Save(values.logic(value, where), append)
        case {"append": value, **others} if not others:
            return Save(values.logic(value, where), append=True)
        case Mapping():
            raise PipelineError(f"{where} is {given!r}, and takes an expression or `{{'append': …}}`")
        case _:
            return Save(values.logic(given, where))
