"""Writes, verifies and compares a project's flujo.lock, and checks it before a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from flujo.domain.text import NotUtf8, decoded
from flujo.exceptions import BlueprintError, LockMismatch, LockUnreadable, SettingsError
from flujo.services.checks.validation import compiled
from flujo.services.mcp_servers import McpServers
from flujo.services.project.project import LOCK_FILE as LOCK_FILE
from flujo.services.project.project import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from flujo.blueprint.lock.diff import Change as Change  # rendered by cli
    from flujo.blueprint.lock.snapshot import Contents, Environment
    from flujo.domain.pipeline import Pipeline
    from flujo.services.project.project import Project
    from flujo.settings import Settings

_LIBRARIES = ("flujo", "cel-expr-python", "genai-prices", "pydantic-ai-slim")
"""The libraries whose versions affect outputs, prices or comparisons."""


@dataclass(frozen=True, slots=True)
class Written:
    """A lock that was written."""

    path: Path
    blueprints: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Floating:
    """An agent whose model name has no version."""

    file: str
    agent: str
    model: str
    environment: str = ""

    def __str__(self) -> str:
        where = f" in [env.{self.environment}]" if self.environment else ""
        return (
            f"agent {self.agent!r} of {self.file}{where}: {self.model} has no version, "
            "so its provider may change the model at any time"
        )


class Group(StrEnum):
    """What kind of mismatch: the values are the headings, the most important first."""

    AGENTS = "agents: prompts, models, tools"
    STEPS = "blueprints and their steps"
    SURROUNDINGS = "code, settings, libraries, model names without a version"
    APPEARANCE = "order and descriptions"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A difference between the lock and the files that counts."""

    group: Group
    text: str
    """One sentence."""
    of: Change | Floating


def _group(change: Change) -> Group:
    if change.what in ("agent", "MCP server", "MCP tool"):
        return Group.AGENTS
    if change.what in ("blueprint", "step"):
        return Group.APPEARANCE if change.key in ("order", "description") else Group.STEPS
    return Group.SURROUNDINGS


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of comparing the lock with the files."""

    changes: tuple[Change, ...]
    floating: tuple[Floating, ...] = ()
    strict: bool = False

    @property
    def mismatches(self) -> list[Mismatch]:
        """The mismatches by their groups: what changes answers first, order and descriptions last."""
        found = [Mismatch(_group(each), sentence(each), each) for each in self.changes if self._counts(each)]
        if self.strict:
            found += [Mismatch(Group.SURROUNDINGS, str(each), each) for each in self.floating]
        return sorted(found, key=lambda each: list(Group).index(each.group))

    @property
    def differences(self) -> list[str]:
        """The mismatches, one sentence each."""
        return [each.text for each in self.mismatches]

    @property
    def notes(self) -> list[str]:
        """Differences that are not mismatches, one sentence each."""
        return [sentence(each) for each in self.changes if not self._counts(each)]

    def _counts(self, change: Change) -> bool:
        return change.counts == "always" or (self.strict and change.counts == "strict")


def write(project: Project) -> Written:
    """Write the project's lock; the same files give the same bytes.

    Raises:
        BlueprintError: a blueprint has errors; the lock is unchanged.
        McpServerFailed: an MCP server that an agent uses cannot be started; the lock is unchanged.
        SettingsError: there is nothing to lock, or the file cannot be written.
    """
    from flujo.blueprint.lock import lockfile

    paths = project.blueprint_paths()
    if not paths:
        raise SettingsError("there are no blueprints to lock", hint="create a project with `flujo init`")
    text = lockfile.write(_contents(project, paths, starts_servers=True))
    path = project.root / LOCK_FILE
    changed = not path.exists() or path.read_bytes() != text.encode()
    if changed:
        replace_file(path, text)
    return Written(path, len(paths), changed)


def verify(project: Project, *, strict: bool = False) -> Verified:
    """Return what differs from the lock.

    Args:
        project: the project.
        strict: whether all differences are mismatches; see `Verified`.

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
    """Return all differences between the lock and the files.

    Args:
        project: the project.
        revision: the git revision of the lock; default: the working tree.

    Raises:
        LockMismatch: there is no lock.
        LockUnreadable: the lock is broken.
        GitFailed: the revision does not exist.
        BlueprintError: a blueprint has errors.
    """
    from flujo.blueprint.lock.diff import changes

    return changes(read(project, revision), _contents(project, project.blueprint_paths()))


def sentence(change: Change) -> str:
    """Return a change in one line."""
    from flujo.blueprint.lock import messages

    return messages.sentence(change)


def affected(changes: Iterable[Change]) -> dict[str, list[str]]:
    """Return the affected blueprints, each with the paths of its affected steps."""
    from flujo.blueprint.lock import messages

    return messages.affected(changes)


def changed_words(change: Change) -> list[tuple[str, str]]:
    """Return a changed text as pieces: `same`, `removed`, `added`, or `skipped` between changes."""
    from flujo.blueprint.lock.word_diff import shortened, words

    return list(shortened(words(str(change.before), str(change.after))))


def read(project: Project, revision: str | None = None) -> Contents:
    """Return the contents of the project's lock, now or at a git revision.

    Raises:
        LockMismatch: there is no lock.
        LockUnreadable: the lock is broken, truncated, or of another version.
        GitFailed: the revision does not exist.
    """
    from flujo.blueprint.lock import lockfile

    path = project.root / LOCK_FILE
    if revision is None:
        return lockfile.read(_text(path))
    from flujo.services.project.git import file_at

    text = file_at(revision, path)
    if text is None:
        raise LockMismatch(f"there is no {LOCK_FILE} in {revision}", hint="use a later revision")
    return lockfile.read(text)


def require_match(project: Project, path: str, pipeline: Pipeline, revision: str | None = None) -> str:
    """Check that a blueprint matches the lock, and return the lock's digest.

    Args:
        project: the project.
        path: the blueprint.
        pipeline: its tree, with the models of the run.
        revision: the git revision of the lock; default: the working tree.

    Raises:
        LockMismatch: it does not match; see `differences`.
        LockUnreadable: the lock is broken.
        GitFailed: the revision does not exist.
    """
    from flujo.blueprint.lock import lockfile

    held = read(project, revision)
    if path not in held["blueprints"]:
        raise LockMismatch(
            f"{path} is not in {LOCK_FILE}", hint="test it, then lock it with `flujo lock`", differences=()
        )
    found = _differences(project, held, path, pipeline)
    if not found:
        return lockfile.digest(held)
    words = [sentence(each) for each in found]
    raise LockMismatch(
        "\n".join([f"{path} does not match {LOCK_FILE}:", *(f"  {line}" for line in words)]),
        differences=tuple(words),
    )


def lock_digest(project: Project, path: str, pipeline: Pipeline, revision: str | None = None) -> str | None:
    """Return the digest of the lock, or None if there is no lock or the blueprint does not match it.

    Raises:
        GitFailed: the revision does not exist.
    """
    if revision is None and not (project.root / LOCK_FILE).exists():
        return None
    try:
        return require_match(project, path, pipeline, revision)
    except (LockMismatch, LockUnreadable):
        return None


def lock_digest_by_name(project: Project, pipeline: Pipeline) -> str | None:
    """Return the digest of the lock if it contains this pipeline unchanged, else None."""
    try:
        there = (project.root / LOCK_FILE).stat()
    except OSError:
        return None
    named = _by_name(project.root / LOCK_FILE, there.st_mtime_ns, there.st_size).get(pipeline.name, ())
    return next(filter(None, (lock_digest(project, path, pipeline) for path in named)), None)


@lru_cache(maxsize=8)
def _by_name(path: Path, _changed_at: int, _size: int) -> Mapping[str, Sequence[str]]:
    """Return the paths of the blueprints in a lock by their names.

    Cached, because every runner calls this and most Python pipelines are not in a lock.
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
    """Return the differences of a blueprint and its imports in the project's environment."""
    from flujo.blueprint.lock.diff import changes
    from flujo.blueprint.lock.snapshot import (
        DEFAULT,
        Environment,
        about,
        contents,
        imports_of,
        seen_from,
    )
    from flujo.blueprint.sources.source_files import FileSource

    here = Environment(providers=_providers(project.settings))
    now = contents({path: pipeline}, FileSource(project.root), {DEFAULT: here}, servers=held["mcp"])
    files = {file for side in (held, now) for file, _ in imports_of(side, path)}
    seen = about(seen_from(held, project.environment), files)
    seen["mcp"] = {name: one for name, one in held["mcp"].items() if name in now["mcp"]}
    needed = about(now, files) | {"mcp": now["mcp"]}
    return [each for each in changes(seen, needed) if each.counts != "never"]


def _held_servers(project: Project) -> Mapping[str, Contents]:
    """Return the entries of MCP servers in the project's lock; none without a lock."""
    return read(project)["mcp"] if (project.root / LOCK_FILE).exists() else {}


def _contents(project: Project, paths: Sequence[str], *, starts_servers: bool = False) -> Contents:
    from flujo.blueprint.lock.snapshot import contents, server_entry, servers_of
    from flujo.blueprint.sources.source_files import FileSource
    from flujo.settings import locked_settings

    by_name = locked_settings(project.config_file)
    environments = {name: _environment(settings) for name, settings in by_name.items()}
    every = [one for settings in by_name.values() for one in settings.evaluation.evaluators.values()]
    called = sorted({one.call for one in every if one.call is not None})
    source, trees = FileSource(project.root), _trees(project, paths)
    if starts_servers and (used := servers_of(trees)):
        listed = asyncio.run(McpServers(project).listed(used))
        servers = {name: server_entry(tools) for name, tools in listed.items()}
    else:
        servers = dict(_held_servers(project))
    return contents(trees, source, environments, _libraries(), servers, called)


def _trees(project: Project, paths: Iterable[str]) -> dict[str, Pipeline]:
    found = {path: compiled(project, path, models={}, knows_servers=False) for path in paths}
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
        **{
            f"budgets.{key}": value
            for key, value in settings.budgets.model_dump(exclude_none=True, exclude={"rule"}).items()
        },
        **{f"prices.{name}": price.to_json() for name, price in settings.own_prices.items()},
        **_evaluators(settings),
    }
    return Environment(settings.models, steering, _providers(settings))


def _evaluators(settings: Settings) -> dict[str, Any]:
    """Return what decides the scores of evaluators, by the keys of flujo.toml; a judge with its model."""
    held: dict[str, Any] = {}
    for name, each in settings.evaluation.evaluators.items():
        own = each.model_dump(exclude_defaults=True, exclude={"blueprints"})
        if each.judge is not None:
            own["model"] = each.model or settings.evaluation.model or ""
        held |= {f"evaluation.evaluators.{name}.{key}": value for key, value in own.items()}
    return held


def _providers(settings: Settings) -> dict[str, Any]:
    return {name: provider.identity for name, provider in settings.named_providers.items()}


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
            models = {"": agent["model"]} | {
                env: own["model"] for env, own in agent.get("env", {}).items() if "model" in own
            }
            for environment, model in models.items():
                if is_floating(model, allowed):
                    yield Floating(file, name, model, environment)


def _text(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError:
        raise LockMismatch(
            f"there is no {LOCK_FILE} in {path.parent}", hint="create it with `flujo lock`"
        ) from None
    except NotUtf8 as error:
        raise LockUnreadable(
            f"{LOCK_FILE}:{error.line}: {error}",
            hint=f"{error.hint}, or recreate it with `flujo lock`",
            line=error.line,
        ) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
