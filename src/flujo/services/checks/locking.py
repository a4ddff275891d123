"""flujo.lock of a project: written, held against the files or an older one, and asked before a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from flujo.exceptions import BlueprintError, LockMismatch, LockUnreadable, SettingsError
from flujo.services.checks.validation import compiled
from flujo.services.project.project import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from flujo.blueprint.lock.diff import Change as Change  # rendered by cli
    from flujo.blueprint.lock.snapshot import Contents, Environment
    from flujo.domain.pipeline import Pipeline
    from flujo.services.project.project import Project
    from flujo.settings import Settings

LOCK_FILE = "flujo.lock"

_LIBRARIES = ("flujo", "cel-expr-python", "genai-prices", "json-repair", "pydantic-ai-slim")
"""What answers are asked for, read, priced and compared by."""


@dataclass(frozen=True, slots=True)
class Written:
    """A lock that was written."""

    path: Path
    blueprints: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Floating:
    """An agent whose model's name says no release."""

    file: str
    agent: str
    model: str
    environment: str = ""

    def __str__(self) -> str:
        where = f" in [env.{self.environment}]" if self.environment else ""
        return (
            f"agent {self.agent!r} of {self.file}{where}: {self.model} names no release, "
            "so its provider may let another model answer tomorrow"
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found when a lock was held against the files."""

    changes: tuple[Change, ...]
    floating: tuple[Floating, ...] = ()
    strict: bool = False

    @property
    def differences(self) -> list[str]:
        """What is a mismatch, a sentence each."""
        return [sentence(each) for each in self.changes if self._counts(each)] + [
            str(each) for each in self.floating if self.strict
        ]

    @property
    def notes(self) -> list[str]:
        """What is none, and worth knowing."""
        return [sentence(each) for each in self.changes if not self._counts(each)]

    def _counts(self, change: Change) -> bool:
        return change.counts == "always" or (self.strict and change.counts == "strict")


def write(project: Project) -> Written:
    """Write the project's lock; the same files give the same bytes.

    Raises:
        BlueprintError: a blueprint has errors; the lock is left as it was.
        SettingsError: there is nothing to lock, or the file cannot be written.
    """
    from flujo.blueprint.lock import lockfile

    paths = project.blueprint_paths()
    if not paths:
        raise SettingsError("there are no blueprints to lock", hint="`flujo init` writes a first one")
    text = lockfile.write(_contents(project, paths))
    path = project.root / LOCK_FILE
    changed = not path.exists() or path.read_bytes() != text.encode()
    if changed:
        replace_file(path, text)
    return Written(path, len(paths), changed)


def verify(project: Project, *, strict: bool = False) -> Verified:
    """Return what differs from the lock.

    Args:
        project: whose lock.
        strict: whether everything has to be locked and as it was: see `Verified`.

    Raises:
        LockMismatch: there is no lock.
        LockUnreadable: the lock is broken.
        BlueprintError: a blueprint has errors.
    """
    from flujo.blueprint.lock.diff import Affected, Change, changes

    held = read(project)
    there = project.blueprint_paths()
    paths = [path for path in there if strict or path in held["blueprints"]]
    now = _contents(project, paths)
    unlocked = (
        Change(what="blueprint", name=path, how="added", affects=(Affected(path),), counts="strict")
        for path in there
        if path not in paths and path not in now["blueprints"]
    )
    allowed = project.settings.lockfile.allow_floating
    return Verified((*changes(held, now), *unlocked), tuple(_floating(now, allowed)), strict)


def compare(project: Project, revision: str | None = None) -> list[Change]:
    """Return what differs between the lock and the files, whatever it counts for.

    Args:
        project: whose lock.
        revision: of git, whose lock is meant; without it, the one in the working tree.

    Raises:
        LockMismatch: there is no lock.
        LockUnreadable: the lock is broken.
        GitFailed: there is no such revision.
        BlueprintError: a blueprint has errors.
    """
    from flujo.blueprint.lock.diff import changes

    return changes(read(project, revision), _contents(project, project.blueprint_paths()))


def sentence(change: Change) -> str:
    """Return a change in one line."""
    from flujo.blueprint.lock import messages

    return messages.sentence(change)


def affected(changes: Iterable[Change]) -> dict[str, list[str]]:
    """Return which blueprints changes reach, and in each the paths of the steps."""
    from flujo.blueprint.lock import messages

    return messages.affected(changes)


def changed_words(change: Change) -> list[tuple[str, str]]:
    """Return a text that changed as pieces: `same`, `removed`, `added`, or `skipped` between changes."""
    from flujo.blueprint.lock.word_diff import shortened, words

    return list(shortened(words(str(change.before), str(change.after))))


def read(project: Project, revision: str | None = None) -> Contents:
    """Return what the project's lock holds, now or at a revision of git.

    Raises:
        LockMismatch: there is no lock.
        LockUnreadable: it is broken, cut off, or of another version.
        GitFailed: there is no such revision.
    """
    from flujo.blueprint.lock import lockfile

    path = project.root / LOCK_FILE
    if revision is None:
        return lockfile.read(_text(path))
    from flujo.services.project.git import file_at

    text = file_at(revision, path)
    if text is None:
        raise LockMismatch(f"there is no {LOCK_FILE} in {revision}", hint="name a later revision")
    return lockfile.read(text)


def require_match(project: Project, path: str, pipeline: Pipeline) -> str:
    """Return the digest of the lock, when a blueprint is what it holds.

    Args:
        project: whose lock.
        path: the blueprint.
        pipeline: its tree, with the models that it will be run with.

    Raises:
        LockMismatch: it is not; `differences` says where.
        LockUnreadable: the lock is broken.
    """
    from flujo.blueprint.lock import lockfile

    held = read(project)
    if path not in held["blueprints"]:
        raise LockMismatch(
            f"{path} is not in {LOCK_FILE}", hint="`flujo lock` writes it, once it is tested", differences=()
        )
    found = _differences(project, held, path, pipeline)
    if not found:
        return lockfile.digest(held)
    words = [sentence(each) for each in found]
    raise LockMismatch(
        "\n".join([f"{path} is not what {LOCK_FILE} holds:", *(f"  {line}" for line in words)]),
        differences=tuple(words),
    )


def lock_digest(project: Project, path: str, pipeline: Pipeline) -> str | None:
    """Return the digest of the lock, None when there is none or the blueprint is not what it holds."""
    if not (project.root / LOCK_FILE).exists():
        return None
    try:
        return require_match(project, path, pipeline)
    except (LockMismatch, LockUnreadable):
        return None


def lock_digest_by_name(project: Project, pipeline: Pipeline) -> str | None:
    """Return the digest of the lock that holds a pipeline of this name as it is, None when none does."""
    try:
        there = (project.root / LOCK_FILE).stat()
    except OSError:
        return None
    named = _by_name(project.root / LOCK_FILE, there.st_mtime_ns, there.st_size).get(pipeline.name, ())
    return next(filter(None, (lock_digest(project, path, pipeline) for path in named)), None)


@lru_cache(maxsize=8)
def _by_name(path: Path, _changed_at: int, _size: int) -> Mapping[str, Sequence[str]]:
    """Return the blueprints in a lock by the names that they give themselves.

    Kept, because every runner asks this and most pipelines of Python are in no lock.
    """
    from flujo.blueprint.lock import lockfile

    try:
        blueprints = lockfile.read(_text(path))["blueprints"]
    except (LockMismatch, SettingsError):
        return {}
    found: dict[str, list[str]] = {}
    for file, one in blueprints.items():
        found.setdefault(str(one.get("name")), []).append(file)
    return found


def _differences(project: Project, held: Contents, path: str, pipeline: Pipeline) -> Sequence[Change]:
    """Return what differs in a blueprint and what it imports, as the chosen environment sees it."""
    from flujo.blueprint.lock.diff import changes
    from flujo.blueprint.lock.snapshot import about, contents, imports_of, seen_from
    from flujo.blueprint.sources.source_files import FileSource

    now = contents({path: pipeline}, FileSource(project.root))
    files = {file for side in (held, now) for file, _ in imports_of(side, path)}
    seen = about(seen_from(held, project.environment), files)
    return [each for each in changes(seen, about(now, files)) if each.counts != "never"]


def _contents(project: Project, paths: Sequence[str]) -> Contents:
    from flujo.blueprint.lock.snapshot import contents
    from flujo.blueprint.sources.source_files import FileSource
    from flujo.settings import locked_settings

    environments = {
        name: _environment(settings) for name, settings in locked_settings(project.config_file).items()
    }
    source = FileSource(project.root)
    return contents(_trees(project, paths), source, environments, _libraries())


def _trees(project: Project, paths: Iterable[str]) -> dict[str, Pipeline]:
    found = {path: compiled(project, path, models={}) for path in paths}
    broken = [one for one in found.values() if one.pipeline is None]
    if broken:
        raise BlueprintError(
            f"{broken[0].closure.entry} has errors",
            diagnostics=[finding for one in broken for finding in one.diagnostics],
            sources={path: text for one in broken for path, text in one.sources.items()},
        )
    return {path: one.pipeline for path, one in found.items() if one.pipeline is not None}


def _environment(settings: Settings) -> Environment:
    from flujo.blueprint.lock.snapshot import Environment

    steering: dict[str, Any] = {
        "blueprints.allow_callables": sorted(settings.blueprints.allow_callables),
        **{f"aros.{key}": value for key, value in settings.aros.model_dump().items()},
        **{f"budgets.{key}": value for key, value in settings.budgets.model_dump(exclude_none=True).items()},
    }
    return Environment(settings.models, steering)


def _libraries() -> Mapping[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # run from the source, or a trimmed installation
    return found


def _floating(now: Contents, allowed: Sequence[str]) -> Iterable[Floating]:
    from flujo.blueprint.lock.model_pinning import is_floating

    for file, agents in sorted(now["agents"].items()):
        for name, agent in sorted(agents.items()):
            models = {"": agent["model"]} | {env: own["model"] for env, own in agent.get("env", {}).items()}
            for environment, model in models.items():
                if is_floating(model, allowed):
                    yield Floating(file, name, model, environment)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise LockMismatch(
            f"there is no {LOCK_FILE} in {path.parent}", hint="`flujo lock` writes it"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LockUnreadable(
            f"{LOCK_FILE}:{line}: not UTF-8 text", hint="write it again with `flujo lock`", line=line
        ) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
