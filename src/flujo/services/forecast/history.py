"""What recorded runs of a blueprint have spent, and the interval in which the next one probably is.

The interval is that of order statistics: with n runs, a new one lies between the k-th smallest and the k-th
largest with a probability of (n + 1 - 2k) / (n + 1), if it is like them, whatever their distribution is.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.paths import step_of
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.usage import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.store import StateStore
    from flujo.domain.usage import Usage

MOST_RUNS = 200
"""How many runs are read, the newest first."""
_RUNS_BY_STEP = 50
"""How many of them are read step by step."""
ENOUGH = 19
"""With fewer runs, the next one lies between the least and the greatest with a probability below 9 in 10."""
_BOTH_TAILS = 20
"""One run of this many lies below the interval, and one above."""

_IN_CONVERSATION = re.compile(r"(turn|tool|summary)\[\d+\]")
_COUNTS = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Typical:
    """A figure of recorded runs: the median, nine tenths of them, and the interval of the next one."""

    median: float
    p90: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class History:
    """The recorded runs of a blueprint that have completed."""

    runs: int
    cost_usd: Typical | None
    """None when a request of one of them had no price."""
    tokens: Typical
    requests: Typical
    tokens_by_step: Mapping[str, float]
    """The median of the tokens of each step in a run, by its path without counts."""

    @property
    def is_enough(self) -> bool:
        """Whether the interval holds 9 of 10 runs."""
        return self.runs >= ENOUGH


def typical(values: Sequence[float]) -> Typical:
    """Return the figures of at least one value."""
    ordered = sorted(values)
    count = len(ordered)
    outside = max(1, (count + 1) // _BOTH_TAILS)
    nth = min(count - 1, max(0, -(-9 * count // 10) - 1))
    return Typical(statistics.median(ordered), ordered[nth], ordered[outside - 1], ordered[-outside])


async def history_of(store: StateStore, pipeline: str) -> History | None:
    """Return what the newest completed runs of a blueprint have spent; None if there are none.

    Raises:
        StateError: the database cannot be read.
    """
    found = await store.runs(RunQuery(pipeline=pipeline, statuses=(RunStatus.COMPLETED,), limit=MOST_RUNS))
    if not found:
        return None
    usages = [run.usage or NOTHING for run in found]
    by_step: dict[str, list[int]] = defaultdict(list)
    for run in found[:_RUNS_BY_STEP]:
        spent: dict[str, int] = defaultdict(int)
        for spending in (await store.ledger(run.run_id)).spendings:
            spent[without_counts(step_of(spending.path))] += spending.usage.total_tokens
        for path, tokens in spent.items():
            if tokens:
                by_step[path].append(tokens)
    return History(
        runs=len(found),
        cost_usd=_costs(usages),
        tokens=typical([usage.total_tokens for usage in usages]),
        requests=typical([usage.requests for usage in usages]),
        tokens_by_step={path: statistics.median(each) for path, each in sorted(by_step.items())},
    )


def without_counts(path: str) -> str:
    """Return a path without its counts and turns: `loop[2]/draft/turn[0]` → `loop/draft`."""
    parts = (part for part in path.split("/") if not _IN_CONVERSATION.fullmatch(part))
    return "/".join(_COUNTS.sub("", part) for part in parts)


def _costs(usages: Sequence[Usage]) -> Typical | None:
    costs = [usage.cost_usd for usage in usages]
    known = [cost for cost in costs if cost is not None]
    return typical(known) if len(known) == len(costs) else None
