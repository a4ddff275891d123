"""In which states a run's state machines are, from what the journal holds of their visits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.paths import StepPath, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.run import Pause

# A visit in a path: `letter:critique[1]`. Only visits have a name and a count.
_VISIT = re.compile(r":(?P<state>[^/\[\]:!]+)\[\d+\](?=[/!]|$)")


def current_states(entries: Sequence[Entry], pauses: Sequence[Pause]) -> dict[StepPath, str]:
    """Return by their paths the machines that a run has begun, each with the state that it is in or ended in.

    Args:
        entries: the whole journal, in order.
        pauses: the run's questions.
    """
    states: dict[StepPath, str] = {}
    for entry in entries:
        _visit(states, entry.path)
        if entry.kind is EntryKind.DONE and (visit := _visited(entry.path)):
            to = canonical.decode(entry.detail).get("to") if entry.detail else None
            states[visit] = to or states[visit]
    for pause in pauses:
        if pause.is_open:
            _visit(states, pause.pause_id)
    return states


def _visit(states: dict[StepPath, str], path: StepPath) -> None:
    for visit in _VISIT.finditer(path):
        states[StepPath(path[: visit.start()])] = shown(visit["state"])


def _visited(path: StepPath) -> StepPath | None:
    """Return the machine of a path that is itself a visit."""
    last = next((visit for visit in _VISIT.finditer(path) if visit.end() == len(path)), None)
    return StepPath(path[: last.start()]) if last else None
