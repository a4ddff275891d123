"""Finds the safe fixes of diagnostics, and applies them to the source text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Fix, nearest
from flujo.blueprint.reading.source_map import Document
from flujo.blueprint.sources.package_files import in_package
from flujo.blueprint.sources.source_files import ListedSource, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flujo.blueprint.diagnostics import Diagnostic

_MOST_ROUNDS = 10
# A fixed text can show further findings; each round fixes those that the round before uncovered.


class Overlay(Source):
    """The files of `below`, some with their text replaced."""

    def __init__(self, below: Source, texts: Mapping[str, str]) -> None:
        self._below = below
        self._texts = texts

    def modules(self, package: str) -> Sequence[str]:
        """Return the names in the folder of `package`; see `ListedSource`."""
        return self._below.modules(package) if isinstance(self._below, ListedSource) else ()

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`; see `Source`."""
        text = self._texts.get(path)
        return self._below.read(path) if text is None else text.encode()


_MEANT = re.compile(r"did you mean `([\w.:-]+)`\?.*", re.ASCII)


def with_fix(found: Diagnostic, document: Document | None) -> Diagnostic:
    """Return a finding with the fix that its hint names: another spelling of the text at its place.

    Args:
        found: the finding.
        document: its file; None for a prompt file, in which nothing is fixed.
    """
    hint = _MEANT.fullmatch(found.hint or "")
    if hint is None or found.fix is not None or document is None:
        return found
    span = found.span
    said = document.text[
        document.offset(span.line, span.column) : document.offset(span.end_line, span.end_column)
    ]
    word = said.strip("\"'")
    if word == hint[1] or nearest(word, [hint[1]]) is None:
        return found
    return replace(found, fix=Fix(span, said.replace(word, hint[1])))


def apply_fixes(source: Source, findings: Callable[[Source], Iterable[Diagnostic]]) -> dict[str, str]:
    """Return the new text of every file of the project that safe fixes change.

    Args:
        source: where files are read from.
        findings: returns the diagnostics of a source's files.
    """
    texts: dict[str, str] = {}
    for _ in range(_MOST_ROUNDS):
        now = Overlay(source, texts)
        fixes: dict[str, list[Fix]] = {}
        for found in findings(now):
            if found.fix is not None and in_package(found.fix.span.file) is None:
                fixes.setdefault(found.fix.span.file, []).append(found.fix)
        if not fixes:
            break
        for path, edits in fixes.items():
            texts[path] = applied(now.read(path).decode("utf-8"), edits)
    return texts


def applied(text: str, fixes: Iterable[Fix]) -> str:
    """Return `text` with the edits applied; where two overlap, the first in the file wins."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(mark)
    document = Document("", body)
    parts, done = [mark], 0
    for fix in sorted(fixes, key=lambda fix: fix.span):
        start = document.offset(fix.span.line, fix.span.column)
        if start < done:
            continue
        parts += [body[done:start], fix.text]
        done = document.offset(fix.span.end_line, fix.span.end_column)
    return "".join([*parts, body[done:]])
