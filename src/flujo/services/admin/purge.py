"""Purging: old runs and contents that nobody names go, a bounded batch at a time, while others work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.exceptions import SettingsError
from flujo.state.sql import retention
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.ports import StateStore
    from flujo.domain.run import RunStatus

BATCH = 200
"""How many rows of a kind one transaction deletes at most."""


@dataclass(frozen=True, slots=True)
class Purged:
    """How much is gone, or would be."""

    runs: int = 0
    contents: int = 0
    """Blueprints, prompts and large values that no run names any more; not counted by a dry run."""
    answers: int = 0
    """Cached answers that were not good any more."""


async def purge(
    store: StateStore,
    statuses: Sequence[RunStatus],
    older_than_s: float,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    told: Callable[[Purged], None] | None = None,
) -> Purged:
    """Delete runs in these states that nobody has touched for a time, and what nothing names afterwards.

    Args:
        store: a store in a database.
        statuses: of runs that nobody executes: not `accepted`, not `running`.
        older_than_s: how many seconds ago they were touched last.
        dry_run: delete nothing, count the runs.
        batch: how many rows of a kind go in one transaction.
        told: is told how much is gone, after each batch.

    Raises:
        SettingsError: a state whose runs are live, or a store that keeps nothing.
        StateError: the database does not answer; what was deleted so far is gone.
    """
    live = [status for status in statuses if status not in retention.PURGEABLE]
    if live:
        raise SettingsError(
            f"runs that are {live[0]} are not purged: somebody executes them, or is about to",
            hint=f"states that can be: {', '.join(retention.PURGEABLE)}",
        )
    if not isinstance(store, SqlStateStore):
        raise SettingsError("there is nothing to purge: this store is no database")
    if dry_run:
        return Purged(runs=await store.read(retention.count_runs, tuple(statuses), older_than_s))
    gone = Purged()
    tell = told or _silent
    while count := await store.write_apart(retention.delete_runs, tuple(statuses), older_than_s, batch):
        tell(gone := Purged(gone.runs + count))
    while count := await store.write_apart(retention.delete_stale_answers, batch):
        tell(gone := Purged(gone.runs, answers=gone.answers + count))
    since, unnamed = await store.read(retention.unnamed_blobs)
    for start in range(0, len(unnamed), batch):
        chosen = unnamed[start : start + batch]
        count = await store.write_apart(retention.delete_blobs, chosen, since)
        tell(gone := Purged(gone.runs, gone.contents + count, gone.answers))
    return gone


def _silent(_: Purged) -> None:
    """Say nothing."""
