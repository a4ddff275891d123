"""The Python pipelines that are registered in this process, so that a worker can resume their runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from flujo.domain.wording import repr_short
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from flujo.domain.models import PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.usage import UsageLimits

Factory = Callable[[], "Pipeline"]
F = TypeVar("F", bound=Factory)


@dataclass(frozen=True, slots=True)
class Registered:
    """A pipeline, and the class of its context when the tree does not name one."""

    pipeline: Pipeline
    context_model: type[PipelineContext] | None = None
    usage_limits: UsageLimits | None = None


_factories: list[tuple[Factory, type[PipelineContext] | None, UsageLimits | None]] = []


def register(
    factory: F,
    *,
    context_model: type[PipelineContext] | None = None,
    usage_limits: UsageLimits | None = None,
) -> F:
    """Tell this process of a pipeline; usable as a decorator.

        @flujo.register
        def triage() -> Pipeline:
            return Pipeline((...), name="triage")

    `flujo worker --import app.pipelines` imports the modules in which this is called.

    Args:
        factory: makes the pipeline; called when one of its runs is to be resumed.
        context_model: the class of its context, as for `Flujo`.
        usage_limits: what a run may use at most, as for `Flujo`.
    """
    if not callable(factory):
        raise SettingsError(
            f"`factory` is {repr_short(factory)}", hint="pass a function that returns a `Pipeline`"
        )
    _factories.append((factory, context_model, usage_limits))
    return factory


def all_registered() -> list[Registered]:
    """Return every pipeline."""
    latest = {factory: (model, limits) for factory, model, limits in _factories}
    return [Registered(factory(), *more) for factory, more in latest.items()]


def registered(name: str) -> Registered | None:
    """Return the pipeline of this name.

    Raises:
        SettingsError: two of this name are registered.
    """
    found = [each for each in all_registered() if each.pipeline.name == name]
    if len(found) > 1:
        raise SettingsError(
            f"{len(found)} pipelines called {name!r} are registered",
            hint="use a unique name for each pipeline; runs are found by it",
        )
    return found[0] if found else None
