"""What a changed blueprint means for a run: its files, its recorded steps, and whether it can continue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.blueprint.sources.source_files import FileSource, SourceRefused
from flujo.domain import paths
from flujo.domain.commands import command
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.migrations import NONE as NO_MIGRATIONS
from flujo.domain.paths import END, ROOT, StepPath, branch, parent, shown
from flujo.domain.run import UNENDED
from flujo.domain.wording import json_short, listed
from flujo.services.recorded.replay import replay_recording
from flujo.services.runs.moved_steps import left_out, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from flujo.domain.differences import Difference
    from flujo.domain.journal import Entry
    from flujo.domain.migrations import Migrations
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import Pause
    from flujo.domain.steps import BaseStep
    from flujo.engine.recording import Recording
    from flujo.services.recorded.replay import Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A recorded run beside another version of its blueprint."""

    kept: tuple[StepPath, ...] = ()
    """The completed steps that the version has, in the order of the record."""
    changed: tuple[Difference, ...] = ()
    """What differs in them. They keep their recorded results."""
    conflicts: tuple[Difference, ...] = ()
    """Recorded decisions that a resume would make again, and otherwise."""
    lost: tuple[StepPath, ...] = ()
    """The recorded paths that the version does not have, or would take for those of another step."""
    left_out: tuple[StepPath, ...] = ()
    """The recorded steps that have moved to where the run would not come."""
    migrations: Migrations = NO_MIGRATIONS
    """The migrations of the version that apply to the run."""

    @property
    def migrated(self) -> tuple[StepPath, ...]:
        """The kept steps that the record has under other paths."""
        return tuple(path for path in self.kept if self.migrations.old(path) != path)

    @property
    def can_continue(self) -> bool:
        """Whether the run can continue with the version."""
        return not self.lost and not self.left_out and not self.conflicts

    def refusal(self) -> str:
        """Return why the run cannot continue; empty when it can."""
        reasons = [f"the changed blueprint lacks {listed(self.lost)}, which this run has recorded"]
        reasons = reasons if self.lost else []
        reasons += [refusal(self.left_out)] if self.left_out else []
        for each in self.conflicts:
            here = shown(each.path) or "the end"
            expected, got = json_short(each.expected), json_short(each.got)
            reasons.append(f"at `{here}` this run has recorded {expected}, and the changed blueprint: {got}")
        return "\n".join(reasons)


async def compare(recording: Recording, subject: Replayed) -> Comparison:
    """Compare a recorded run with another version of its blueprint; nothing is called.

    A resume uses the results of completed steps, whatever they would get now. It makes the decisions around
    the others again.

    Raises:
        FlujoError: the run cannot be replayed with it.
    """
    migrations = recording.migrations(subject.pipeline)
    ambiguous = filter(migrations.is_ambiguous, [*recording.paths, *recording.named])
    recording = recording.migrated(subject.pipeline)
    found = await replay_recording(recording, subject, collects=True)
    ended = [
        entry.path
        for entry in recording.entries
        if entry.status is EntryStatus.COMPLETED and entry.kind is not EntryKind.DECISION
    ]
    gone = lost_paths(subject.pipeline, recording.entries, recording.pauses)
    lost = tuple(sorted({*ambiguous, *gone}))
    done, changed, conflicts = set(ended), [], []
    for each in found.differences:
        is_done = any(above in done for above in _upwards(each.path))
        stops = each.cause == "decision" or (each.cause == "end" and recording.run.status in UNENDED)
        if stops and not is_done:
            conflicts.append(each)
        elif each.path in done and each.cause != "lost step":
            changed.append(each)
    return Comparison(
        kept=tuple(path for path in dict.fromkeys(ended) if path not in lost),
        changed=tuple(changed),
        conflicts=tuple(conflicts),
        lost=lost,
        left_out=left_out(migrations, recording, subject.pipeline, found.seen),
        migrations=migrations,
    )


def _upwards(path: StepPath) -> Iterator[StepPath]:
    """Yield a path, and what encloses it."""
    yield path
    while path != ROOT:
        path = parent(path)
        yield path


def changed_files(root: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the paths whose bytes on disk differ from `files`; a missing or unreadable file differs."""
    source = FileSource(root)

    def is_same(path: str, content: bytes) -> bool:
        try:
            return source.read(path) == content
        except SourceRefused:
            return False

    return [path for path, content in files.items() if not is_same(path, content)]


def kept_note(run_id: str, root: Path, files: Mapping[str, bytes]) -> str:
    """Return the note that a run keeps its pinned `files` where those on disk differ, or an empty text."""
    changed = changed_files(root, files)
    if not changed:
        return ""
    accept = command("flujo", "resume", run_id, "--accept-changes")
    return (
        f"on disk {listed(changed)} differ{'s' if len(changed) == 1 else ''} from what this run was "
        f"started with; the run keeps its own copies (`{accept}` takes the files on disk)"
    )


def lost_paths(pipeline: Pipeline, entries: Sequence[Entry], pauses: Sequence[Pause]) -> list[StepPath]:
    """Return the recorded paths that `pipeline` does not have: of entries, and of open questions."""
    places = dict(_places(pipeline))
    ended = [END] if pipeline.endings() else []
    lost = {entry.path for entry in entries if entry.path not in ended and not _has(places, entry)}
    lost |= {pause.pause_id for pause in pauses if pause.is_open and _step(places, pause.pause_id) is None}
    return sorted(lost)


def without_counts(path: StepPath) -> StepPath:
    """Return where in the tree a recorded path stands: `loop[2]/draft` → `loop/draft`, `a!doubt[0]` → `a`."""
    return paths.without_counts(StepPath(path.partition("!")[0]))


def _places(pipeline: Pipeline) -> Iterator[tuple[StepPath, BaseStep]]:
    """Yield the steps by their paths, and those that name their bodies by the path of each body as well."""
    for path, step in pipeline.walk():
        yield path, step
        if step.names_bodies:
            yield from ((branch(path, name), step) for name in step.bodies())


def _has(places: Mapping[StepPath, BaseStep], entry: Entry) -> bool:
    place, is_decision = without_counts(entry.path), entry.kind is EntryKind.DECISION
    if is_decision and parent(place) in places:  # that of a cache or a merge stands right below its step
        return True
    # The answer to a question of a step is not its result.
    if place in places and not is_decision and "!" not in entry.path:
        return places[place].kind == entry.fingerprint
    return _step(places, entry.path) is not None


def _step(places: Mapping[StepPath, BaseStep], path: StepPath) -> BaseStep | None:
    """Return the step at `path`, or the step whose own record `path` is (`tree_search`, `granular`)."""
    place = without_counts(path)
    if place in places:
        return places[place]
    while place != ROOT and place not in places:
        place = parent(place)
    step = places.get(place)
    return step if step is not None and step.records_inside else None
