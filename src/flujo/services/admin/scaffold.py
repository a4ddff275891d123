"""Writes a new project: settings, a blueprint, its callable, and a passing test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flujo.exceptions import SettingsError
from flujo.services.checks.validation import schema_text

_TEMPLATE = Path(__file__).parent / "template"
_SCHEMA = "schemas/blueprint.schema.json"
_KEPT = (".gitignore", "README.md", "skills/__init__.py")
"""Files that may exist in the folder; they are kept unchanged."""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The files written and the existing files kept; paths relative to the project."""

    root: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]


def scaffold(root: Path, name: str = "") -> Scaffold:
    """Write a new project into `root`, which is created if missing.

    Raises:
        SettingsError: a file of the project already exists; nothing was written.
    """
    files = _files(name or root.resolve().name or "project")
    if root.exists() and not root.is_dir():
        raise SettingsError(f"{root} is a file, not a folder")
    there = [path for path in files if (root / path).exists()]
    taken = [path for path in there if path not in _KEPT]
    if taken:
        raise SettingsError(
            f"{root} already contains {', '.join(taken)}; nothing was written",
            hint="choose an empty folder: `flujo init DIR`",
        )
    fresh = [path for path in files if path not in there]
    for path in fresh:
        _write(root / path, files[path])
    return Scaffold(root, tuple(fresh), tuple(there))


def _files(name: str) -> dict[str, str]:
    """Return the contents of a new project's files by path."""
    sources = sorted(
        path for path in _TEMPLATE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    files = {_target(path): path.read_text("utf-8").replace("@NAME@", _in_toml(name)) for path in sources}
    return {**files, _SCHEMA: schema_text()}


def _target(source: Path) -> str:
    path = source.relative_to(_TEMPLATE).as_posix()
    return (
        ".gitignore" if path == "gitignore" else path
    )  # named `.gitignore`, the template would apply to this repository


def _in_toml(name: str) -> str:
    """Return the name without characters that TOML would escape."""
    return "".join(char for char in name if char.isprintable() and char not in '"\\')


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
