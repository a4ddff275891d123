"""Finds the code of the user in the traceback of an error."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import traceback
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.domain.executor import CodeExit
from flujo.domain.journal import CodeFrame
from flujo.exceptions import CallFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

MAX_TRACEBACK = 50_000
"""The maximum number of characters of a traceback that are kept: its end, which names the error."""

_FLUJO = str(Path(__file__).parents[2]) + os.sep
_PYTHON = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


class UserCode:
    """Finds where the code of a project raised an error, for its journal: a `domain.ports.Locate`.

    The code of the user is every Python file outside of Flujo, the standard library and installed packages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._shown = lru_cache(maxsize=1024)(self._name)

    def __call__(self, error: BaseException) -> tuple[CodeFrame, str] | None:
        """Return the innermost frame of the user's code, and the traceback without the callers of that code.

        Of an error without such a frame, the cause counts: `StepFailed` is raised from the callable's error.
        """
        if isinstance(error, CodeExit):
            error = error.raised
        for each in _causes(error):
            if isinstance(each, CallFailed) and each.frame is not None:
                return each.frame, each.traceback[-MAX_TRACEBACK:]
        try:
            frame = next(filter(None, map(self._innermost, _causes(error))), None)
            return None if frame is None else (frame, _text(error))
        except Exception:  # noqa: BLE001 - errors are foreign code, and may have attributes of any kind
            return None

    def _innermost(self, error: BaseException) -> CodeFrame | None:
        """Return the innermost frame of the user's code in the traceback of one error."""
        found: tuple[str, TracebackType] | None = None
        for each in _frames(error.__traceback__):
            if (name := self._shown(each.tb_frame.f_code.co_filename)) is not None:
                found = name, each
        if found is None:
            return None
        name, place = found
        code = place.tb_frame.f_code
        linecache.checkcache(code.co_filename)
        source = linecache.getline(code.co_filename, place.tb_lineno, place.tb_frame.f_globals).strip()
        return CodeFrame(name, place.tb_lineno, code.co_qualname, source)

    def _name(self, file: str) -> str | None:
        """Return how a file of the user's code is shown; None for any other file."""
        path = Path(file)
        if file.startswith("<") or _is_of_python(file) or _INSTALLED & set(path.parts):
            return None
        path = path.resolve()
        folders = [self._root, *sorted(map(Path, filter(None, sys.path)), key=_length, reverse=True)]
        folder = next((each for each in folders if path.is_relative_to(each)), path.parent)
        return path.relative_to(folder).as_posix()


def _length(path: Path) -> int:
    return len(path.parts)


def _is_of_python(file: str) -> bool:
    """Return whether a file is of Flujo or of the standard library."""
    return file.startswith(_FLUJO) or (file.startswith(_PYTHON) and not _INSTALLED & set(Path(file).parts))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # foreign code may raise an error from itself
        seen.add(id(error))
        yield error
        error = error.__cause__


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _text(error: BaseException) -> str:
    """Return the traceback, each part of it from the first frame on that is not of Flujo or Python.

    So the same failure has the same text in a run that was resumed.
    """
    whole = traceback.TracebackException.from_exception(error, compact=True)
    parts: list[traceback.TracebackException] = [whole]
    while parts:
        part = parts.pop()
        own = next((n for n, each in enumerate(part.stack) if not _is_of_python(each.filename)), 0)
        del part.stack[:own]
        parts += filter(None, (part.__cause__, part.__context__, *(part.exceptions or ())))
    return "".join(whole.format())[-MAX_TRACEBACK:]
