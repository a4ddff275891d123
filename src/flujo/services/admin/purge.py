"""Purging: old runs and unreferenced content are deleted, a bounded batch at a time, while others work on."""

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
"""How many rows of a kind one transaction deletes at most."""


async def purge(
    store: DurableStore,
    statuses: Sequence[RunStatus],
    older_than_s: float,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    told: Callable[[Purged], None] | None = None,
    actor: Actor | None = None,
) -> Purged:
    """Delete runs in these statuses that are old enough, and the content that no run names afterwards.

    Args:
        store: where the runs are.
        statuses: of runs that no process executes: not `accepted`, not `running`.
        older_than_s: how many seconds ago they were touched last.
        dry_run: delete nothing, count the runs.
        batch: how many rows of a kind one transaction deletes.
        told: gets the totals after each batch.
        actor: who purges; each batch of runs is recorded as an act, with their ids.

    Raises:
        SettingsError: a status whose runs are live.
        StateError: the database does not answer; earlier batches stay deleted.
    """
    live = [status for status in statuses if status not in PURGEABLE]
    if live:
        raise SettingsError(
            f"runs that are {live[0]} are not purged: a process executes them, or is about to",
            hint=f"statuses that can be purged: {', '.join(PURGEABLE)}",
        )
    if dry_run:
        return Purged(runs=await store.count_purgeable(statuses, older_than_s))
    gone = Purged()
    async for gone in store.purge(statuses, older_than_s, batch=batch, actor=actor):
        if told is not None:
            told(gone)
    return gone
