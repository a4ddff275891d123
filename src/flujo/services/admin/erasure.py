"""Erases a person from the database: all runs that belong to them, what names them, and a proof of it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from flujo.domain.erasure import METADATA, USER, Subject
from flujo.exceptions import SettingsError
from flujo.state.erasure_rules import require_erasable
from flujo.state.metadata_conditions import check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.erasure import Family, Proof
    from flujo.domain.store import DurableStore

BATCH = 200
"""How many runs one transaction deletes at most."""


class Paused(StrEnum):
    """What happens to runs that wait for a human, an event or a time."""

    CANCEL = "cancel"
    KEEP = "keep"


def read_subject(text: str) -> Subject:
    """Return the person that `user_id=VALUE` or `metadata.KEY=VALUE` means.

    Raises:
        SettingsError: it is neither.
    """
    field, equals, value = text.partition("=")
    if not equals or not value or "\x00" in value or not (field == USER or field.startswith(METADATA)):
        raise SettingsError(
            "--subject names no person", hint="write `user_id=VALUE`, or `metadata.KEY=VALUE`"
        )
    subject = Subject(field, value)
    for key in subject.keys:
        check_key(key)
    return subject


async def erase(
    store: DurableStore,
    subject: Subject,
    *,
    actor: Actor,
    paused: Paused | None = None,
    vacuum_full: bool = False,
    batch: int = BATCH,
    on_batch: Callable[[int], None] | None = None,
) -> Proof:
    """Delete all that belongs to a person, family by family, and return the proof, which is stored too.

    Args:
        store: the store with the runs.
        subject: the person.
        actor: who erases; recorded with the proof.
        paused: what happens to runs that wait; without it they are refused.
        vacuum_full: on Postgres, rewrite the tables too; a SQLite file is always rewritten.
        batch: how many runs one transaction deletes.
        on_batch: called with the number of deleted runs after each transaction.

    Raises:
        ErasureRefused: a run is executed, or waits and `paused` is not given. Nothing was deleted, unless the
            run has changed meanwhile: then earlier families are gone, and the next erasure deletes the rest.
        StateError: the database is unreachable, or cannot be rewritten now; the deleted runs stay deleted.
    """
    gone = 0
    # Again until none is left: a fork can be made between the look and the lock of a run.
    while families := erasable(await store.families_of(subject), paused):
        for family in families:
            # The last ones first: until the first run is deleted, it leads to all that are left.
            run_ids = [run.run_id for run in reversed(family.runs)]
            for start in range(0, len(run_ids), batch):
                gone += await store.erase_runs(
                    subject,
                    run_ids[start : start + batch],
                    actor=actor,
                    cancel_paused=paused is Paused.CANCEL,
                )
                if on_batch is not None:
                    on_batch(gone)
    return await store.finish_erasure(subject, actor=actor, vacuum_full=vacuum_full)


def erasable(families: Sequence[Family], paused: Paused | None) -> list[Family]:
    """Return the families to delete.

    Raises:
        ErasureRefused: one of them has a run that is executed, or that waits without `paused`.
    """
    chosen = [family for family in families if not (paused is Paused.KEEP and family.waiting)]
    require_erasable((run for family in chosen for run in family.runs), cancel_paused=paused is Paused.CANCEL)
    return chosen
