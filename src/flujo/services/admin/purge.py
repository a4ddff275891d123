"""Deletes old runs and unreferenced content in bounded batches, while other processes work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.run import PURGEABLE, Purged
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.run import RunStatus
    from flujo.domain.store import DurableStore

BATCH = 200
"""How many runs one transaction deletes at most; together they have at most 10,000 entries."""


async def purge(
    store: DurableStore,
    statuses: Sequence[RunStatus],
    older_than_s: float,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    on_batch: Callable[[Purged], None] | None = None,
    actor: Actor | None = None,
) -> Purged:
    """Delete old runs with these statuses, and the content that no remaining run references.

    Args:
        store: the store with the runs.
        statuses: the statuses of runs to delete; not `accepted`, not `running`.
        older_than_s: the minimum age in seconds since a run's last update.
        dry_run: only count the runs.
        batch: how many runs one transaction deletes at most, with 50 times as many entries. A run with more
            is hidden from all readers first, then deleted in parts; a later purge finishes what is left.
        on_batch: called with the totals after each batch.
        actor: who purges; each batch is recorded as an act with the run ids.

    Raises:
        SettingsError: a status of live runs.
        StateError: the database is unreachable; earlier batches stay deleted.
    """
    live = [status for status in statuses if status not in PURGEABLE]
    if live:
        raise SettingsError(
            f"runs with status `{live[0]}` cannot be purged, because they are live",
            hint=f"purgeable statuses: {', '.join(PURGEABLE)}",
        )
    if dry_run:
        return Purged(runs=await store.count_purgeable(statuses, older_than_s))
    total = Purged()
    async for total in store.purge(statuses, older_than_s, batch=batch, actor=actor):
        if on_batch is not None:
            on_batch(total)
    return total
