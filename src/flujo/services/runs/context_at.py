"""Other values of the context from the point of a fork on.

The context at a point is the one at the start with the patches of the recorded entries before it. So the
values are added to the patch that is applied last: that of the step, iteration or visit right before the
point, in the innermost body that has one. Where there is none, they are values of the context at the start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.exceptions import ForkRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.paths import StepPath
    from flujo.services.runs.copied import Point


def with_context(
    fields: Mapping[str, Any], start: Mapping[str, Any], kept: Sequence[Entry], point: Point
) -> tuple[Mapping[str, Any], Sequence[Entry]]:
    """Return the context at the start, and the entries before a point, so that fields have values there.

    Raises:
        ForkRefused: the point is inside an import or a tool that has a context of its own; or in
            `on_failure` or `finally`, which begin with the recorded context.
    """
    if point.chain[0] == paths.branch(paths.ROOT, paths.FAILURE):
        raise ForkRefused(
            f"`{paths.shown(point.path)}` is in `on_failure`, whose context is that of the recorded failure",
            hint="fork at the failed step to set fields of the context",
        )
    if point.chain[0] == paths.branch(paths.ROOT, paths.FINALLY):
        raise ForkRefused(
            f"`{paths.shown(point.path)}` is in `finally`, whose context is that of the recorded end",
            hint="fork at a step of the run to set fields of the context",
        )
    for place in reversed(point.chain):
        _require_shared(place, point)
        latest = max(_applied_before(place, kept, point), key=lambda entry: entry.seq, default=None)
        if latest is not None:
            patch = canonical.decode(latest.patch) if latest.patch else []
            patch += [["set", [name], value] for name, value in fields.items()]
            changed = replace(latest, patch=canonical.encode(patch))
            return start, [changed if entry is latest else entry for entry in kept]
    return {**start, **fields}, kept


def _applied_before(place: StepPath, kept: Sequence[Entry], point: Point) -> list[Entry]:
    """Return the results whose patches a run applies in one body, before it comes to `place`."""
    around = paths.parent(place)
    operator = place[len(around)] if around else "/"
    kind = point.kind(around)
    if operator == "[" and kind == "state_machine":
        around = paths.parent(around)  # the visits of all states follow each other
    elif (operator == "[" and kind != "loop") or operator == ":" or kind in ("granular", "tree_search"):
        return []
    return [entry for entry in kept if _is_result(entry) and _is_in(entry.path, around, operator, kind)]


def _is_in(path: StepPath, around: StepPath, operator: str, kind: str) -> bool:
    """Return whether a path is directly in a body: a step, an iteration, or a visit of any state."""
    if paths.step_of(path) != path or "!" in path:
        return False
    if operator == "/":
        outer = paths.parent(path)
        return outer == around and path[len(outer) :][:1] not in ("[", ":")
    if paths.last_count(path) is None:
        return False
    outer = paths.parent(path)
    return (paths.parent(outer) if kind == "state_machine" else outer) == around


def _is_result(entry: Entry) -> bool:
    return entry.status is EntryStatus.COMPLETED and entry.kind is not EntryKind.DECISION


def _require_shared(place: StepPath, point: Point) -> None:
    """Refuse to set fields of the run's context where the point has another context."""
    if place == point.path:
        return
    step = point.step(place)
    imported = None if step is None else step.imported
    is_apart = imported is not None and not imported.inherits
    if is_apart or paths.name(paths.parent(place)) == "tool":
        raise ForkRefused(
            f"`{paths.shown(point.path)}` has a context of its own, that of `{paths.shown(place)}`",
            hint=f"fork at `{paths.shown(place)}` to set fields of the run's context",
        )
