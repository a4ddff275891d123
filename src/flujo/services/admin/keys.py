"""Rotates the keys that encrypt the database: each value is encrypted again with the first key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.key_counts import KeyCounts, Rotated
from flujo.exceptions import StateBackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.acts import Actor
    from flujo.domain.store import DurableStore

BATCH = 200
"""How many rows one transaction encrypts again at most."""
PASSES = 5
"""How often the tables are read: a row that another process has locked is taken by the next pass."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The result of a rotation."""

    done: Rotated
    counts: KeyCounts
    """Counted afterwards, over the whole database."""
    is_overwritten: bool
    """Whether the remains of the old values are overwritten too."""


async def rotate(
    store: DurableStore,
    *,
    actor: Actor,
    vacuum_full: bool = False,
    batch: int = BATCH,
    on_batch: Callable[[Rotated], None] | None = None,
) -> Rotation:
    """Encrypt again what is not encrypted with the first key, and overwrite what is left of the old values.

    Args:
        store: the store, opened with the keys.
        actor: who rotates; recorded.
        vacuum_full: on Postgres, rewrite the tables too; a SQLite file is always rewritten.
        batch: how many rows one transaction encrypts again.
        on_batch: called with the totals after each transaction.

    Raises:
        KeyMissing | WrongKey: a value cannot be decrypted; committed transactions stay.
        StateError: the database is unreachable; committed transactions stay.
    """
    done = Rotated()
    for _ in range(PASSES):
        rotated = Rotated()
        async for rotated in store.rotate_keys(batch=batch, actor=actor):
            if on_batch is not None:
                on_batch(Rotated(done.rows + rotated.rows, done.values + rotated.values, rotated.damaged))
        done = Rotated(done.rows + rotated.rows, done.values + rotated.values, rotated.damaged)
        if not rotated.values:
            break
    try:
        is_overwritten = await store.overwrite_freed_space(vacuum_full=vacuum_full)
    except StateBackendUnavailable:  # a process reads or writes now; the next rotation does it
        is_overwritten = False
    return Rotation(done, await store.values_by_key(), is_overwritten)
