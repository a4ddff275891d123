"""Which migrations of a pipeline apply to a run that continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Verb
from flujo.domain.migrations import Migrations
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Migration
from flujo.services.recorded.recorded_binding import SilentBinding
from flujo.services.recorded.replay import Replayed, recording_of
from flujo.services.runs.moved_steps import require_moves
from flujo.services.runs.run_request import is_stubbed, pinned_by_name

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.run import RunRecord
    from flujo.domain.store import RunSource


async def applied_migrations(
    source: RunSource, record: RunRecord, pipeline: Pipeline, binding: Binding
) -> Migrations | None:
    """Return the migrations that apply to a run which is continued; None if there are none.

    The act of the accepted changes has them. A run of a pipeline in Python has no such act, so its whole
    journal is read, and replayed if steps have moved.

    Raises:
        ChangesRefused: the run would leave out a step that has moved.
    """
    if not pipeline.migrations or record.is_new or record.parent is not None:
        return None
    by_name = pinned_by_name(record.pipeline)[0]
    if record.closure == by_name or is_stubbed(record, by_name):
        recording = await recording_of(source, record.run_id)
        await require_moves(recording, Replayed(pipeline=pipeline, binding=SilentBinding(binding)))
        return recording.migrations(pipeline) or None
    acts = await source.acts(record.run_id)
    accepted = [act.after for act in acts if act.verb is Verb.ACCEPT_CHANGES and act.after is not None]
    return from_act(accepted[-1], pipeline) if accepted else None


def in_act(closure: str, migrations: Migrations) -> bytes:
    """Return what an act of accepted changes records: the closure, and the migrations if any apply."""
    if not migrations:
        return canonical.encode(closure)
    said = [{"from": each.old, "to": each.new} for each in migrations.applied]
    return canonical.encode({"closure": closure, "migrations": said})


def from_act(after: bytes, pipeline: Pipeline) -> Migrations | None:
    """Return the migrations of a pipeline that `in_act` has recorded; None if there are none."""
    said: Any = canonical.decode(after)
    if not isinstance(said, dict):
        return None
    pairs = [(StepPath(each["from"]), StepPath(each["to"])) for each in said["migrations"]]
    return Migrations([Migration(old, new) for old, new in pairs], pipeline)
