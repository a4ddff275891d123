"""Migrations: steps of a pipeline that had other names in earlier versions of it.

The journal of a run keeps the paths that it began with. A run that continues with a renamed step reads and
writes it under the recorded path; to the pipeline it has the new one. `Migrations` converts both ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.journal import Entry
from flujo.domain.ledger import Ledger
from flujo.domain.paths import StepPath, is_within, parent
from flujo.domain.run import Intent, Move, Pause, Write
from flujo.domain.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flujo.domain.pipeline import Migration, Pipeline
    from flujo.domain.steps import BaseStep

NO_SUCH_STEP = "FLJ284"
REPEATED = "FLJ285"
UNFIT = "FLJ286"

_COUNTS = r"(?:\[[0-9.]+\])*"
_SEPARATORS = re.compile(r"([/:])")


@dataclass(frozen=True, slots=True)
class MigrationFinding:
    """Something wrong with one of several migrations."""

    code: str
    index: int
    key: str
    """`from` or `to`."""
    message: str
    hint: str


class Migrations:
    """The migrations that apply to one run."""

    __slots__ = ("_newer", "_older", "applied")

    def __init__(self, applied: Sequence[Migration]) -> None:
        self.applied = tuple(applied)
        self._newer = _rules((each.old, each.new) for each in applied)
        self._older = _rules((each.new, each.old) for each in applied)

    @classmethod
    def of(cls, declared: Sequence[Migration], recorded: Iterable[StepPath]) -> Migrations:
        """Return those of a pipeline that apply to a run: it has recorded the old path.

        Args:
            declared: the migrations of the pipeline.
            recorded: the paths of the run's entries and questions.
        """
        places = {paths.without_counts(StepPath(path.partition("!")[0])) for path in recorded}
        found: dict[StepPath, Migration] = {}
        for each in declared:
            if any(is_within(place, each.old) for place in places):
                found.setdefault(each.new, each)
        return cls([*found.values()])

    def __bool__(self) -> bool:
        return bool(self.applied)

    def new(self, path: StepPath) -> StepPath:
        """Return the path in the pipeline of a recorded path."""
        return _converted(path, self._newer)

    def old(self, path: StepPath) -> StepPath:
        """Return the path under which the journal has a path of the pipeline."""
        return _converted(path, self._older)

    def is_ambiguous(self, recorded: StepPath) -> bool:
        """Return whether a recorded path would be taken for that of another step: no path leads back."""
        return self.old(self.new(recorded)) != recorded

    # What a run reads ---------------------------------------------------------------------------------------

    def read_entry(self, entry: Entry) -> Entry:
        """Return a recorded entry with the path in the pipeline."""
        return _moved_entry(entry, self.new)

    def read_pause(self, pause: Pause) -> Pause:
        """Return a recorded question with the path in the pipeline."""
        return replace(pause, pause_id=self.new(pause.pause_id))

    def read_intent(self, intent: Intent) -> Intent:
        """Return a recorded call with the path in the pipeline."""
        return replace(intent, path=self.new(intent.path))

    def read_error(self, error: bytes | None) -> bytes | None:
        """Return a recorded error with the path in the pipeline."""
        return _moved_error(error, self.new)

    def read_ledger(self, ledger: Ledger) -> Ledger:
        """Return what a run has spent, by the paths in the pipeline."""
        return Ledger(
            tuple(replace(each, path=self.new(each.path)) for each in ledger.spendings),
            tuple(replace(each, path=self.new(each.path)) for each in ledger.holds),
            tuple(replace(each, path=self.new(each.path)) for each in ledger.tasks),
        )

    # What a run writes --------------------------------------------------------------------------------------

    def written(self, write: Write) -> Write:
        """Return the changes of a commit with the paths of the journal."""
        return replace(
            write,
            entries=tuple(_moved_entry(each, self.old) for each in write.entries),
            pauses=tuple(map(self.written_pause, write.pauses)),
            voids=tuple(map(self.old, write.voids)),
            intents=tuple(replace(each, path=self.old(each.path)) for each in write.intents),
            holds=tuple(replace(each, path=self.old(each.path)) for each in write.holds),
            move=None if write.move is None else self._written_move(write.move),
        )

    def written_pause(self, pause: Pause) -> Pause:
        """Return a question with the path of the journal, by which it is answered."""
        return replace(pause, pause_id=self.old(pause.pause_id))

    def _written_move(self, move: Move) -> Move:
        return move if move.error is None else replace(move, error=_moved_error(move.error, self.old))


def _rules(pairs: Iterable[tuple[StepPath, StepPath]]) -> tuple[tuple[re.Pattern[str], list[str]], ...]:
    """Return for each pair what finds the first path with any counts, and the parts of the second.

    The longest path comes first. Both paths have as many parts, and each part keeps its counts.
    """
    ordered = sorted(pairs, key=lambda pair: -len(_parts(pair[0])))
    return tuple((_pattern(one), _parts(other)) for one, other in ordered)


def _parts(path: StepPath) -> list[str]:
    """Return the parts of a path without counts, each with the operator before it: `a`, `:b`, `/c`."""
    first, *others = _SEPARATORS.split(path)
    return [first, *(mark + name for mark, name in zip(others[::2], others[1::2], strict=True))]


def _pattern(path: StepPath) -> re.Pattern[str]:
    *outer, last = map(re.escape, _parts(path))
    return re.compile("".join(f"{part}({_COUNTS})" for part in outer) + last + r"(?=[/:\[!]|$)")


def _converted(path: StepPath, rules: Sequence[tuple[re.Pattern[str], list[str]]]) -> StepPath:
    for pattern, parts in rules:
        found = pattern.match(path)
        if found is not None:
            *outer, last = parts
            head = "".join(part + counts for part, counts in zip(outer, found.groups(), strict=True))
            return StepPath(head + last + path[found.end() :])
    return path


def _moved_entry(entry: Entry, moved: Callable[[StepPath], StepPath]) -> Entry:
    path, error = moved(entry.path), _moved_error(entry.error, moved)
    return entry if (path, error) == (entry.path, entry.error) else replace(entry, path=path, error=error)


def _moved_error(error: bytes | None, moved: Callable[[StepPath], StepPath]) -> bytes | None:
    if error is None:
        return None
    said: dict[str, Any] = canonical.decode(error)
    return canonical.encode({**said, "path": moved(StepPath(said["path"]))}) if said.get("path") else error


NONE = Migrations(())

# Checks --------------------------------------------------------------------------------------------------


def migration_findings(pipeline: Pipeline) -> Iterator[MigrationFinding]:
    """Yield every problem of the migrations of a pipeline."""
    declared = pipeline.migrations
    steps = dict(pipeline.walk()) if declared else {}
    olds, news = [each.old for each in declared], [each.new for each in declared]
    linked: set[StepPath] = set()
    """The old paths of the findings about chains and swaps, each of which is reported once."""
    for index, each in enumerate(declared):
        if each.old in olds[:index]:
            message = f"two migrations are from `{each.old}`"
            yield MigrationFinding(REPEATED, index, "from", message, "remove one of them")
        elif each.new in linked:
            continue
        elif _exists(each.old, steps) or each.old in news:
            linked.add(each.old)
            message = f"`{each.old}` is still a path of the pipeline, so its record would have two meanings"
            hint = "there are no chains and no swaps: write the oldest path in `from`, and a new one in `to`"
            yield MigrationFinding(UNFIT, index, "from", message, hint)
        elif each.new in olds:
            continue  # the other end of a chain
        elif each.new not in steps and _operator(each.new) == "/":
            hint = did_you_mean(each.new, steps) or "a path is that of `flujo trace`, without counts"
            yield MigrationFinding(NO_SUCH_STEP, index, "to", f"there is no step `{each.new}`", hint)
        elif problem := _unfit(each, declared, steps):
            yield MigrationFinding(UNFIT, index, *problem)


def _exists(path: StepPath, steps: dict[StepPath, BaseStep]) -> bool:
    """Return whether a path is that of a step, or of what a step records below its own path."""
    if path in steps:
        return True
    while path and path not in steps:
        path = parent(path)
    return bool(path) and steps[path].records_inside


def _unfit(
    migration: Migration, declared: Sequence[Migration], steps: dict[StepPath, BaseStep]
) -> tuple[str, str, str] | None:
    """Return why a step cannot be renamed like this: the key, the message and a hint."""
    old, new = migration.old, migration.new
    if not old or paths.without_counts(old) != old or "!" in old:
        return "from", f"`{old}` is not the path of a step", "write it without counts: `loop/draft`"
    around = Migrations([each for each in declared if each is not migration])
    if around.new(parent(old)) != parent(new) or _operator(old) != "/" or _operator(new) != "/":
        message = f"`{old}` and `{new}` are not two names of one step: they are in different places"
        return "to", message, "a step keeps its place, and branches and states their names, while runs wait"
    for path, step in steps.items():
        if is_within(path, new) and step.joins is not None:
            message = f"`{path}` is on the thread {step.joins!r}, which names it by its path"
            return "to", message, "keep the name of a step on a thread while runs wait"
        if is_within(path, new) and step.config.execution_mode == "background":
            message = f"`{path}` runs in the background, and the id of its task depends on its path"
            return "to", message, "keep the name of a step in the background while runs wait"
    return None


def _operator(path: StepPath) -> str:
    """Return what leads to the last part of a path: `/` for a step."""
    outer = parent(path)
    return path[len(outer)] if outer else "/"
