"""Checks of the migrations of a pipeline, without a run: what no run could follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain import paths
from flujo.domain.migrations import Migrations
from flujo.domain.paths import StepPath, branch, is_inside, is_within, operator, parent
from flujo.domain.values import CallableRef
from flujo.domain.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.pipeline import Migration, Pipeline
    from flujo.domain.steps import BaseStep

NO_SUCH_STEP = "FLJ284"
REPEATED = "FLJ285"
UNFIT = "FLJ286"
UNFIT_MOVE = "FLJ287"

_BESIDE = ("agent", "cache", "files", "merge", "unfinished", paths.FAILURE, paths.FINALLY)
"""Names that records of a step itself have at the place of a branch."""

_WITHOUT_COUNTS = "write it without counts: `loop/draft`"
_KEEPS_PLACE = "a step keeps its place, or moves into a `parallel`, a conditional or an import at that place"

_NOT_INTO: Mapping[str, str] = {
    "loop": "has iterations, and the record does not say which of them the step was in",
    "map": "has items, and the record does not say which of them the step was for",
    "state_machine": "has visits, and the record does not say which of them the step was in",
    "router": "asks for its branches, and the answer might not be the branch of the step",
}
"""Why no recorded step can be in a new composite of these kinds."""


@dataclass(frozen=True, slots=True)
class MigrationFinding:
    """Something wrong with one of several migrations."""

    code: str
    index: int
    key: str
    """`from` or `to`."""
    message: str
    hint: str


def migration_findings(pipeline: Pipeline, *, is_pinned: bool = True) -> Iterator[MigrationFinding]:
    """Yield every problem of the migrations of a pipeline.

    Args:
        pipeline: the one that has them.
        is_pinned: whether its background tasks pin the version that has launched them; those of a pipeline in
            Python do not.
    """
    declared = pipeline.migrations
    steps = dict(pipeline.walk()) if declared else {}
    places = {**steps, **_bodies(steps)}
    olds, news = [each.old for each in declared], [each.new for each in declared]
    linked: set[StepPath] = set()
    """The old paths of the findings about chains and swaps, each of which is reported once."""
    for index, each in enumerate(declared):
        if each.old in olds[:index]:
            message = f"two migrations are from `{each.old}`"
            yield MigrationFinding(REPEATED, index, "from", message, "remove one of them")
        elif each.new in linked:
            continue
        elif _exists(each.old, places) or each.old in news:
            linked.add(each.old)
            message = f"`{each.old}` is still a path of the pipeline, so its record would have two meanings"
            hint = "there are no chains and no swaps: write the oldest path in `from`, and a new one in `to`"
            yield MigrationFinding(UNFIT, index, "from", message, hint)
        elif each.new in olds:
            continue  # the other end of a chain
        elif each.new not in places:
            what = "step" if operator(each.new) == "/" else "branch or state"
            hint = did_you_mean(each.new, places) or "a path is that of `flujo trace`, without counts"
            yield MigrationFinding(NO_SUCH_STEP, index, "to", f"there is no {what} `{each.new}`", hint)
        elif problem := _unfit(each, declared, steps, is_pinned=is_pinned):
            yield MigrationFinding(problem[0], index, *problem[1:])


def _bodies(steps: Mapping[StepPath, BaseStep]) -> dict[StepPath, BaseStep]:
    """Return the composites by the paths of their branches and states."""
    named = [(path, step) for path, step in steps.items() if step.names_bodies]
    return {branch(path, name): step for path, step in named for name in step.bodies()}


def _exists(path: StepPath, places: Mapping[StepPath, BaseStep]) -> bool:
    """Return whether a path is that of a step, or of what a step records below its own path."""
    if path in places:
        return True
    while path and path not in places:
        path = parent(path)
    return bool(path) and places[path].records_inside


def _unfit(
    migration: Migration,
    declared: Sequence[Migration],
    steps: Mapping[StepPath, BaseStep],
    *,
    is_pinned: bool,
) -> tuple[str, str, str, str] | None:
    """Return why a run cannot follow a migration: the code, the key, the message and a hint."""
    old, new = migration.old, migration.new
    if not old or paths.without_counts(old) != old or "!" in old:
        return UNFIT, "from", f"`{old}` is not the path of a step", _WITHOUT_COUNTS
    outer = Migrations([each for each in declared if each is not migration]).new(parent(old))
    is_same_place = outer == parent(new)
    is_move = is_inside(parent(new), outer) and operator(old) == operator(new) == "/"
    if operator(old) != operator(new) or not (is_same_place or is_move):
        message = f"`{old}` and `{new}` are in different places, and a step only moves inwards"
        return UNFIT, "to", message, _KEEPS_PLACE
    if operator(new) == ":":
        return _unfit_name(old, new, steps[parent(new)])
    if not is_same_place and (problem := _unfit_move(new, outer, steps)):
        return UNFIT_MOVE, *problem
    for path, step in steps.items():
        if is_within(path, new) and step.config.execution_mode == "background" and not is_pinned:
            where = f"`{paths.shown(path)}` runs in the background"
            message = f"{where}, and a launched task finds it by the old path"
            return UNFIT, "to", message, "keep the name of a step in the background, or use a blueprint"
    return None


def _unfit_name(old: StepPath, new: StepPath, step: BaseStep) -> tuple[str, str, str, str] | None:
    """Return why a branch or state cannot be renamed like this."""
    names = [paths.decoded(path[len(parent(path)) + 1 :]) for path in (old, new)]
    if step.kind == "conditional" and {*names} & {"then", "else", "default"}:
        message = f"`{old}` and `{new}` are not two names of one branch: what decides is not its name"
        return UNFIT, "to", message, "only the branches of a `switch` that have a value can be renamed"
    if beside := [name for name in names if name in _BESIDE]:
        message = f"a composite has records of its own at `:{beside[0]}`"
        return UNFIT, "to" if beside[0] == names[1] else "from", message, "use another name"
    return None


def _unfit_move(
    new: StepPath, outer: StepPath, steps: Mapping[StepPath, BaseStep]
) -> tuple[str, str, str] | None:
    """Return why a recorded step cannot be in the composites around it, which are new."""
    for path, step in steps.items():
        if not (is_inside(new, path) and is_inside(path, outer)):
            continue
        reason = _not_into(step)
        if reason is not None:
            message = f"the {step.kind} `{paths.shown(path)}` {reason}"
            return "to", message, "add the step under a new name, and let the runs that wait end first"
    return None


def _not_into(step: BaseStep) -> str | None:
    """Return why the record of a step cannot be continued inside a composite; None if it can."""
    if step.kind in _NOT_INTO:
        return _NOT_INTO[step.kind]
    if step.kind not in ("parallel", "conditional", "import"):
        return "calls what is inside it itself"
    if step.config.execution_mode == "background":
        return "runs in the background, with a journal of its own"
    if step.cache is not None:
        return "has a cache, whose answer would replace the recorded one"
    if any(isinstance(each, CallableRef) for each in (step.when, getattr(step, "condition", None))):
        return "has a callable as its condition, and its answer might be another branch"
    return None
