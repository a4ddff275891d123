"""Adds up figures in this process, where the database cannot: in memory, and of encrypted values."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.figures import Figure, FigureGroup, rank
from flujo.domain.journal import UNFINISHED
from flujo.domain.run import RunStatus
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    from flujo.domain.figures import FigureQuery

COMPLETED = str(RunStatus.COMPLETED)
"""The status of which durations count; attempts have a status of the same name."""


class Tally:
    """Counts, sums and durations, by period and group.

    Args:
        query: which periods and groups there are.
    """

    def __init__(self, query: FigureQuery) -> None:
        self._query = query
        self._statuses: defaultdict[tuple[float, str], Counter[str]] = defaultdict(Counter)
        self._usages: defaultdict[tuple[float, str], Usage] = defaultdict(lambda: NOTHING)
        self._seconds: defaultdict[tuple[float, str], array[float]] = defaultdict(lambda: array("d"))

    def add(self, at: float, name: str, status: str, seconds: float, usage: Usage) -> None:
        """Count a run or an attempt.

        Args:
            at: when the run started.
            name: its group.
            status: its status.
            seconds: how long it took.
            usage: what it used.
        """
        key = self._query.period(at), name
        self._statuses[key][status] += 1
        self._usages[key] += usage
        if status == COMPLETED:
            self._seconds[key].append(max(0.0, seconds))

    def figures(self) -> list[Figure]:
        """Return the figures, by period and then by name."""
        found = []
        for (at, name), statuses in sorted(self._statuses.items()):
            took = sorted(self._seconds.get((at, name), ()))
            p50, p95 = (took[rank(each, len(took)) - 1] for each in (50, 95)) if took else (None, None)
            usage = self._usages[at, name]
            found.append(Figure(at=at, name=name, statuses=dict(statuses), usage=usage, p50_s=p50, p95_s=p95))
        return found


def group_of(by: FigureGroup, detail: bytes | None) -> str:
    """Return the agent or the model that the detail of an entry names; empty when it names none."""
    if detail is None or detail[:1] != b"{":
        return ""
    said = canonical.decode(detail)
    return next((str(said[key]) for key in by.keys if said.get(key)), "")


def status_of(status: str, fingerprint: str) -> str:
    """Return the status of an attempt; that of one that was cut off is recorded apart."""
    return UNFINISHED if fingerprint == UNFINISHED else status
