"""Steps that have moved into a new composite: whether a run comes to them there."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.paths import ROOT, StepPath, decoded, is_inside, parent, without_counts
from flujo.domain.steps import ConditionalStep
from flujo.domain.wording import listed
from flujo.exceptions import ChangesRefused
from flujo.services.recorded.replay import replay_recording

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from flujo.domain.migrations import Migrations
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep
    from flujo.engine.recording import Recording
    from flujo.services.recorded.replay import Replayed


async def require_moves(recording: Recording, subject: Replayed) -> None:
    """Refuse to continue a run that would leave out a recorded step which has moved; nothing is called.

    Args:
        recording: the record, with the paths that it has.
        subject: the pipeline with which the run continues.

    Raises:
        ChangesRefused: the run would leave one out.
        FlujoError: the run cannot be replayed with the pipeline.
    """
    migrations = recording.migrations(subject.pipeline)
    if not migrations.shells:
        return
    found = await replay_recording(recording, subject, collects=True)
    if paths := left_out(migrations, recording.migrated(subject.pipeline), subject.pipeline, found.seen):
        hint = "leave these steps where they were while runs wait, or start a new run"
        raise ChangesRefused(refusal(paths), hint=hint, paths=paths)


def refusal(paths: Collection[StepPath]) -> str:
    """Return why a run cannot continue that would leave out the steps at some paths."""
    return f"this run has recorded {listed(paths)}, and does not come to where the changed pipeline has it"


def left_out(
    migrations: Migrations, recording: Recording, pipeline: Pipeline, seen: Collection[StepPath]
) -> tuple[StepPath, ...]:
    """Return the recorded steps that have moved into a composite in which the run would leave them out.

    The composite has ended before them; or has a context of its own, without what they have written; or its
    condition is false, or chooses another branch, or cannot be known yet.

    Args:
        migrations: those that apply to the run.
        recording: the record, with the paths of the pipeline.
        pipeline: the one with which the run continues.
        seen: the paths to which a replay comes.
    """
    shells = migrations.shells
    if not shells:
        return ()
    steps = dict(pipeline.walk())
    last: dict[StepPath, float] = {}
    writes: set[StepPath] = set()
    for entry in recording.entries:
        if (step := _moved(entry.path, migrations)) is not None:
            last[step] = max(entry.seq, last.get(step, 0))
            writes |= {step} if entry.patch is not None else set()
    known = {entry.path for entry in recording.entries}
    for pause in recording.pauses:
        is_unused = not pause.void and pause.pause_id not in known  # open, or with an answer that waits
        if is_unused and (step := _moved(pause.pause_id, migrations)) is not None:
            last[step] = inf
    ended = {
        entry.path: entry.seq
        for entry in recording.entries
        if entry.kind is EntryKind.DONE and entry.status is EntryStatus.COMPLETED
    }
    decided = {
        (entry.path, entry.attempt): canonical.decode(entry.output)
        for entry in recording.entries
        if entry.kind is EntryKind.DECISION and entry.output is not None
    }
    return tuple(
        sorted(
            step
            for step, seq in last.items()
            if any(
                ended.get(shell, seq) < seq
                or (step in writes and _is_apart(steps.get(without_counts(shell))))
                or (step not in seen and _passes(shell, steps, decided, seen))
                for shell in _shells(step, shells)
            )
        )
    )


def _moved(path: StepPath, migrations: Migrations) -> StepPath | None:
    """Return the step that has moved, if a path is within it."""
    here = StepPath(path.partition("!")[0])
    while here != ROOT:
        outer = parent(here)
        if without_counts(outer) in migrations.shells and without_counts(here) not in migrations.shells:
            return here if migrations.old(here) != here else None
        here = outer
    return None


def _shells(step: StepPath, shells: Collection[StepPath]) -> Iterator[StepPath]:
    """Yield the new composites and branches around a step, from the inside."""
    here = parent(step)
    while here != ROOT:
        if without_counts(here) in shells:
            yield here
        here = parent(here)


def _is_apart(composite: BaseStep | None) -> bool:
    return composite is not None and composite.imported is not None and not composite.imported.inherits


def _passes(
    shell: StepPath,
    steps: Mapping[StepPath, BaseStep],
    decided: Mapping[tuple[StepPath, int], Any],
    seen: Collection[StepPath],
) -> bool:
    """Return whether a condition decides about a composite or branch, and the run does not come inside.

    A recorded decision counts, because a composite that has failed is not replayed inside.
    """
    place, outer = without_counts(shell), parent(shell)
    composite, owner = steps.get(place), steps.get(without_counts(outer))
    comes: bool | None = None
    if composite is not None and composite.when is not None:
        comes = decided.get((shell, 0))
    elif composite is None and isinstance(owner, ConditionalStep):
        if (outer, 1) in decided:
            comes = owner.chosen(decided[outer, 1]) == decoded(shell[len(outer) + 1 :])
    else:
        return False
    return not (any(is_inside(each, shell) for each in seen) if comes is None else comes)
