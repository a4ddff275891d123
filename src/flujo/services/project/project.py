"""The project a command works in: its root, its settings, its blueprints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from flujo.domain.wording import suggest
from flujo.exceptions import DatabaseMissing, SettingsError
from flujo.services.project.trust import project_root, require_trust
from flujo.settings import CONFIG_FILE, chosen_environment, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.settings import Settings

_SQLITE = "sqlite:///"
SUFFIXES = (".yaml", ".yml")
"""The ends of the names of blueprints and of files of cases."""

LOCK_FILE = "flujo.lock"


@dataclass(frozen=True, slots=True)
class BlueprintSummary:
    """A blueprint as a listing shows it."""

    name: str
    path: str
    """Relative to the project's root, with `/`."""
    description: str = ""


@dataclass(frozen=True)
class Project:
    """A folder with its settings. Creating one opens and writes nothing."""

    root: Path
    settings: Settings
    config_file: Path | None = None
    environment: str = ""
    """The `[env.NAME]` that its settings are of."""

    @cached_property
    def state_uri(self) -> str:
        """The database, with a relative SQLite path resolved against the root."""
        uri = self.settings.state_uri
        path = uri.removeprefix(_SQLITE)
        if path == uri or path.startswith("/") or path in ("", ":memory:"):
            return uri
        return f"{_SQLITE}{self.root / path}"

    def require_database(self) -> None:
        """Return when there may be a database; only the file of SQLite can be looked for.

        Raises:
            DatabaseMissing: there is none.
        """
        uri = self.state_uri
        if not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).expanduser().exists():
            return
        if self.is_outside:
            raise DatabaseMissing(
                f"{self.root} is not in a Flujo project: it and the folders above it have no {CONFIG_FILE}",
                hint="`-C DIR` selects a project, `FLUJO_STATE_URI` names a database, and `flujo init` "
                "writes a project",
                path=uri.removeprefix(_SQLITE),
            )
        raise DatabaseMissing(
            f"project {self.root} has no runs: its database {uri.removeprefix(_SQLITE)} does not exist",
            hint="the first `flujo run` creates it",
            path=uri.removeprefix(_SQLITE),
        )

    @property
    def is_outside(self) -> bool:
        """Whether this is a folder without a project, and no setting names a database."""
        return self.config_file is None and self.settings.origin("state_uri") == "default"

    @property
    def postgres_schema(self) -> str:
        """The schema of Flujo's tables, if the database is Postgres."""
        return self.settings.settings.postgres_schema

    def blueprint_paths(self) -> list[str]:
        """Return the project's blueprint files, relative to the root, in order.

        Raises:
            SettingsError: a folder of `[blueprints] paths` that does not exist although it is set.
        """
        return [path for path in self.yaml_paths() if not self.holds_agents(path)]

    def holds_agents(self, path: str) -> bool:
        """Return whether a file of the project is one of agents, which blueprints include."""
        from flujo.blueprint.sources.agent_includes import holds_agents
        from flujo.blueprint.sources.source_files import FileSource, SourceRefused

        try:
            return holds_agents(FileSource(self.root).read(path), path)
        except SourceRefused:
            return False

    def yaml_paths(self) -> list[str]:
        """Return the project's blueprints and files of agents, relative to the root, in order.

        Raises:
            SettingsError: a folder of `[blueprints] paths` that does not exist although it is set.
        """
        found: set[str] = set()
        for folder in self.settings.blueprints.paths:
            base = self.root / folder
            if not base.exists() and self.settings.origin("blueprints.paths") != "default":
                raise SettingsError(
                    f"[blueprints] paths names {folder!r}, which does not exist in {self.root}",
                    hint="create the folder or fix flujo.toml",
                )
            found.update(path.relative_to(self.root).as_posix() for path in _yaml_files(base))
        return sorted(found)

    def blueprints(self) -> list[BlueprintSummary]:
        """Return the project's blueprints; a file that cannot be read is listed by its path alone."""
        return [self._summary(path) for path in self.blueprint_paths()]

    def _summary(self, path: str) -> BlueprintSummary:
        from flujo.blueprint.reading.reader import read

        stem = Path(path).stem
        try:
            data = read((self.root / path).read_bytes(), path).data
        except OSError:
            return BlueprintSummary(stem, path)
        data = data if isinstance(data, dict) else {}
        return BlueprintSummary(str(data.get("name") or stem), path, str(data.get("description") or ""))

    def locate(self, text: str, cwd: Path) -> str:
        """Return the project path of the blueprint that a user typed: a path, a file's stem, or a name.

        Raises:
            SettingsError: nothing or several fit, or the file is outside the project.
        """
        typed = cwd / text
        if typed.is_file() or text.endswith(SUFFIXES):
            return self._inside(typed, text)
        known = self.blueprints()
        fitting = [b for b in known if text in (Path(b.path).stem, b.path)] or [
            b for b in known if b.name == text
        ]
        if len(fitting) == 1:
            return fitting[0].path
        if fitting:
            paths = ", ".join(b.path for b in fitting)
            raise SettingsError(f"{text!r} matches several blueprints: {paths}", hint="use the path")
        raise _unknown(text, known)

    def locate_all(self, text: str, cwd: Path, *, agents: bool = False) -> list[str]:
        """Return the project paths of a blueprint as `locate` does, or of all in the folder that was typed.

        Args:
            text: the reference as the user typed it.
            cwd: where it was typed.
            agents: whether the files of agents in a folder are meant as well.

        Raises:
            SettingsError: as `locate`, or the folder holds none.
        """
        typed = cwd / text
        if not typed.is_dir():
            return [self.locate(text, cwd)]
        inside = sorted(self._inside(path, str(path)) for path in _yaml_files(typed))
        found = [path for path in inside if agents or not self.holds_agents(path)]
        if not found:
            raise SettingsError(f"{text} contains no blueprints", hint="blueprints end in .yaml or .yml")
        return found

    def _inside(self, path: Path, text: str) -> str:
        try:
            # only the folder is resolved: where a link leads is for the reader to judge
            return (path.parent.resolve() / path.name).relative_to(self.root).as_posix()
        except ValueError:
            raise SettingsError(
                f"{text} is outside the project {self.root}",
                hint="select the blueprint's project with `-C DIR`",
            ) from None


def find_project(start: Path, environment: str = "") -> Project:
    """Return the project that `start` lies in: the folder that `project_root` finds, else `start`.

    Args:
        start: a folder.
        environment: the `[env.NAME]` of its settings; default: `FLUJO_ENV`, or none.

    Raises:
        SettingsError: the folder does not exist, or its settings cannot be used.
        ProjectNotTrusted: another user of this machine controls the project.
    """
    if not start.is_dir():
        raise SettingsError(f"{start} is not a folder", hint="`-C` takes the folder of a project")
    start = start.resolve()
    root = project_root(start)
    require_trust(root or start)
    config = root / CONFIG_FILE if root else None
    settings = load(config, chosen=environment)
    return Project(root or start, settings, config, chosen_environment(environment))


def replace_file(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content atomically; an existing file keeps its mode, a new one gets `mode`.

    Raises:
        SettingsError: it cannot be written.
    """
    beside: Path | None = None
    try:
        with NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            file.write(content.encode() if isinstance(content, str) else content)
        beside.chmod(path.stat().st_mode & 0o777 if path.exists() else mode)
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def _yaml_files(base: Path) -> Iterator[Path]:
    """Yield the blueprints below `base`; a hidden folder holds none."""
    if base.is_file():
        yield base
    # Unlike `rglob`, passes by a folder that is removed meanwhile.
    for parent, folders, names in os.walk(base):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path


def _unknown(text: str, known: list[BlueprintSummary]) -> SettingsError:
    names = sorted({b.name for b in known} | {Path(b.path).stem for b in known})
    hint = suggest(text, names, what="there are")
    hint = hint or "this project has no blueprints; create one with `flujo init`"
    return SettingsError(f"no blueprint is called {text!r}", hint=hint)
