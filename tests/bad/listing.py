"""A numbered case: files of a project, a command, and its expected output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bad.composite_cases import COMPOSITE_CASES
from bad.corpus import CASES
from bad.flow_cases import FLOW_CASES
from bad.meaning_cases import CASES as MEANING
from bad.meaning_cases import ENTRY, SKILLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CONFIG = '[blueprints]\nallow_callables = ["skills.*"]\n'
CHECK = ("validate", ENTRY)


@dataclass(frozen=True)
class Listed:
    """One bad input with its number and name in the complete list, and the expected finding."""

    number: int
    name: str
    files: Mapping[str, bytes]
    code: str
    """The code of the rule or the error; empty if a command reports differences without an error."""
    at: tuple[int, int] | None
    """Line and column of the finding; None if it has no line."""
    words: tuple[str, ...]
    """Words of the message or the hint."""
    file: str = ENTRY
    """The file of the finding."""
    command: tuple[str, ...] = CHECK
    exit_code: int = 4
    severity: str = "error"
    before: tuple[tuple[str, ...], ...] = ()
    """Commands that run first and succeed."""
    make: Callable[[Path], None] | None = None
    """Changes the project after that, beyond plain files."""
    hidden: str = ""
    """A text that must not occur in any output."""

    @property
    def id(self) -> str:
        """The number and the name."""
        return f"{self.number:03}-{self.name}"

    def write(self, root: Path) -> None:
        """Write the project's files."""
        for name, data in {
            "flujo.toml": CONFIG.encode(),
            "skills/crm.py": SKILLS.encode(),
            **self.files,
        }.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


_DATA = {case.name: {ENTRY: case.data} for case in CASES}
_FILES = {case.name: {path: text.encode() for path, text in case.all_files().items()}
          for case in (*MEANING, *COMPOSITE_CASES, *FLOW_CASES)}  # fmt: skip


def known(name: str) -> Mapping[str, bytes]:
    """Return the files of a case in another table."""
    return (_DATA | _FILES)[name]


def entry(text: str | bytes, **files: str) -> Mapping[str, bytes]:
    """Return a project with this entry, and other blueprints by their names."""
    data = text if isinstance(text, bytes) else text.encode()
    return {ENTRY: data, **{f"blueprints/{name}.yaml": text.encode() for name, text in files.items()}}


def found(
    number: int,
    name: str,
    files: Mapping[str, bytes],
    code: str,
    line: int,
    column: int,
    *words: str,
    **more: Any,
) -> Listed:
    """Return a case that `flujo validate` refuses at a place."""
    return replace(Listed(number, name, files, code, (line, column), words), **more)


def warned(
    number: int,
    name: str,
    files: Mapping[str, bytes],
    code: str,
    line: int,
    column: int,
    *words: str,
    severity: str = "warning",
) -> Listed:
    """Return a case that `flujo validate` accepts with a warning."""
    return Listed(number, name, files, code, (line, column), words, exit_code=0, severity=severity)
