"""Where a run was answered by another model than was asked for, or by several in the place of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.agents import model_matches
from flujo.domain.wording import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.services.inspection.trace import TraceNode

_MOST = 3
"""How many steps a warning names before it counts the rest."""


def drifts(trace: TraceNode) -> list[str]:
    """Return a sentence for each drift in a run."""
    answers: dict[str, dict[str, dict[str, None]]] = {}
    for node in trace.walk():
        for asked, used in node.answered:
            answers.setdefault(asked, {}).setdefault(used, {})[node.path] = None
    return list(_drifts(answers))


def _drifts(answers: dict[str, dict[str, dict[str, None]]]) -> Iterator[str]:
    for asked, by in sorted(answers.items()):
        for used, paths in sorted(by.items()):
            if not model_matches(asked, used):
                yield f"{asked} was asked, and {used} answered, at {listed(paths, most=_MOST)}"
        if len(by) > 1:
            several = ", ".join(sorted(by))
            yield f"{asked} was answered by {len(by)} models in one run: {several}"
