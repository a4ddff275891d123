"""Writes a new project from a template: settings, a blueprint, its callables, and passing tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flujo.domain.commands import ShellCommand, command
from flujo.domain.wording import suggest
from flujo.exceptions import SettingsError
from flujo.services.checks.validation import schema_text

_TEMPLATES = Path(__file__).parent / "templates"
_COMMON = "common"
"""The folder with the files of every template."""
_SCHEMA = "schemas/blueprint.schema.json"
_KEPT = (".gitignore", "README.md", "skills/__init__.py")
"""Files that may exist in the folder; they are kept unchanged."""
_ELSEWHERE = "choose an empty folder: `flujo init DIR`"


@dataclass(frozen=True, slots=True)
class Template:
    """A project that `scaffold` writes; its files are in `templates/NAME`."""

    name: str
    about: str
    commands: tuple[tuple[ShellCommand, str], ...]
    """What to try in the new project, with what each does."""


def _run(*words: str) -> tuple[ShellCommand, str]:
    return command("flujo", "run", *words), ""


_TRACE = (command("flujo", "trace", "@last"), "show what happened")
_TEST = (command("python", "-m", "pytest"), "run the project's own tests")
TEMPLATES = {
    each.name: each
    for each in (
        Template(
            "hello", "two steps that call Python; no model", (_run("hello", "--input", "Ada"), _TRACE, _TEST)
        ),
        Template(
            "agent",
            "an agent with a tool, and tests that need no model; the local model",
            (_run("ask", "--input", "Where is A-1001?"), _TRACE, _TEST),
        ),
        Template(
            "hitl",
            "a run that waits for the approval of a human; no model",
            (
                _run("publish", "--input", "we open on Monday"),
                (command("flujo", "tasks", "resume", "@last", "--field", "ok=true"), "answer the question"),
                _TEST,
            ),
        ),
        Template(
            "batch",
            "the lines of a file, several at a time; bad ones are reported; no model",
            (_run("import_orders", "--input", "data/orders.jsonl"), _TRACE, _TEST),
        ),
        Template(
            "service",
            "an HTTP service with FastAPI that starts runs and answers their questions; no model",
            (
                (command("pip", "install", "-r", "requirements.txt"), "FastAPI and uvicorn"),
                (command("python", "app.py"), "serve at http://127.0.0.1:8000"),
                _TEST,
            ),
        ),
    )
}
"""The templates of `flujo init`, by name."""
DEFAULT = "hello"


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The files written and the existing files kept; paths relative to the project."""

    root: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]


def scaffold(root: Path, name: str = "", template: str = DEFAULT) -> Scaffold:
    """Write a new project into `root`, which is created if missing.

    Args:
        root: its folder.
        name: its name. Default: that of the folder.
        template: one of `TEMPLATES`.

    Raises:
        SettingsError: there is no such template, or a file of the project already exists; nothing was
            written.
    """
    if template not in TEMPLATES:
        raise SettingsError(
            f"there is no template {template!r}", hint=suggest(template, TEMPLATES, what="there are")
        )
    files = _files(template, name or root.resolve().name or "project")
    if root.exists() and not root.is_dir():
        raise SettingsError(f"{root} is a file, not a folder", hint=_ELSEWHERE)
    there = [path for path in files if (root / path).exists()]
    taken = [path for path in there if path not in _KEPT]
    if taken:
        raise SettingsError(
            f"{root} already contains {', '.join(taken)}; nothing was written",
            hint=_ELSEWHERE,
        )
    fresh = [path for path in files if path not in there]
    for path in fresh:
        _write(root / path, files[path])
    return Scaffold(root, tuple(fresh), tuple(there))


def _files(template: str, name: str) -> dict[str, str]:
    """Return the contents of a new project's files by path."""
    folders = (_TEMPLATES / template, _TEMPLATES / _COMMON)
    sources = {path.relative_to(folder).as_posix(): path for folder in folders for path in _sources(folder)}
    files = {
        _target(path): source.read_text("utf-8").replace("@NAME@", _in_toml(name))
        for path, source in sorted(sources.items())
    }
    return {**files, _SCHEMA: schema_text()}


def _sources(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _target(path: str) -> str:
    # Named `.gitignore`, the file would apply to this repository.
    return ".gitignore" if path == "gitignore" else path


def _in_toml(name: str) -> str:
    """Return the name without characters that TOML would escape."""
    return "".join(char for char in name if char.isprintable() and char not in '"\\')


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}", hint=_ELSEWHERE) from error
