"""A version of a blueprint whose cases run: as it is on disk, or as it was at a git revision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.blueprint.lock import lockfile
from flujo.blueprint.lock.snapshot import DEFAULT, Environment, contents
from flujo.blueprint.sources.source_files import FileSource, RevisionSource
from flujo.services.checks.locking import LOCK_FILE, lock_digest, read
from flujo.services.project.git import commit_of, files_below

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.services.project.project import Project
    from flujo.services.workspace import Blueprint, Workspace

ON_DISK = "files"
"""The label of the version on disk."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a blueprint."""

    label: str
    """How reports name it: `files`, or the git revision as it was given."""
    blueprint: Blueprint
    digest: str
    """What a lock would hold of it; see `version_of`."""


def on_disk(ws: Workspace, path: str) -> Version:
    """Return the version on disk.

    Raises:
        BlueprintError: the blueprint does not pass its checks.
        LockMismatch: `[lockfile] enabled` is set, and it is not what flujo.lock holds.
    """
    blueprint = ws.load(path)
    return Version(ON_DISK, blueprint, version_of(ws.project, path, blueprint.pipeline))


def at_revision(ws: Workspace, path: str, revision: str) -> Version:
    """Return the blueprint, prompts and imports of a git revision, read from its objects.

    Python code and flujo.toml are those on disk: a process has only one version of them.

    Raises:
        GitFailed: the revision does not exist.
        BlueprintError: the blueprint does not exist there, or does not pass its checks.
    """
    project = ws.project
    commit = commit_of(revision, project.root)
    blueprint = ws.load_from(path, RevisionSource(revision, files_below(project.root, commit)))
    lock = lock_digest(project, path, blueprint.pipeline, revision)
    digest = version_of(project, path, blueprint.pipeline)
    return Version(revision, replace(blueprint, lock_digest=lock), digest)


def version_of(project: Project, path: str, pipeline: Pipeline) -> str:
    """Return the digest of what a lock would hold of one blueprint, with the models of the run.

    Two versions with one digest behave alike, except for the versions of libraries: comments and the order of
    keys do not count, code of callables does.
    """
    named = project.settings.named_providers
    here = Environment(providers={name: provider.identity for name, provider in named.items()})
    servers = read(project)["mcp"] if (project.root / LOCK_FILE).exists() else {}
    return lockfile.digest(
        contents({path: pipeline}, FileSource(project.root), {DEFAULT: here}, servers=servers)
    )
