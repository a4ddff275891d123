"""Finds steps that another model than the requested one answered, or that several models answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.agents import model_matches
from flujo.domain.wording import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.services.inspection.trace_tree import TraceNode

_MOST = 3
"""How many steps a warning names; the rest is counted."""


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
                yield f"model {used} answered instead of {asked} at {listed(paths, most=_MOST)}"
        if len(by) > 1:
            several = ", ".join(sorted(by))
            yield f"{len(by)} models answered requests to {asked} in one run: {several}"
