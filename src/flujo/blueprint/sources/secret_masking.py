"""Masks likely secrets in excerpts, messages, hints, labels and fixes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import split_lines
from flujo.blueprint.sources.secret_detection import find, find_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flujo.blueprint.diagnostics import Diagnostic, Span

DOT = "•"
_PREFIX = 16
"""Messages shorten long texts, so a prefix of this length is also treated as the secret."""


def mask(text: str, spans: Iterable[Span] = ()) -> str:
    """Return a file's text with dots for every character of `spans` and of likely secrets."""
    for start, end in (*find(text), *find_named(text)):
        text = text[:start] + DOT * (end - start) + text[end:]
    lines = split_lines(text)
    for span in spans:
        for number, start, end in _pieces(span, lines):
            line = lines[number]
            lines[number] = line[:start] + DOT * (end - start) + line[end:]
    return "\n".join(lines)


def masked(found: Iterable[Diagnostic], texts: dict[str, str], secrets: Sequence[Span]) -> list[Diagnostic]:
    """Return the findings with secrets masked.

    Args:
        found: findings of all kinds.
        texts: each file's text by its name.
        secrets: the spans of secrets in those files. Text with a secret's shape is masked anywhere.
    """
    values = {value for span in secrets if len(value := _standing_at(span, texts.get(span.file, ""))) > 3}
    begun = (re.escape(value[:_PREFIX]) + (r"[^\s'\"`]*" if len(value) > _PREFIX else "") for value in values)
    known = re.compile("|".join(sorted(begun, key=len, reverse=True))) if values else None
    return [_masked(one, known) for one in found]


def _masked(one: Diagnostic, known: re.Pattern[str] | None) -> Diagnostic:
    def without(text: str) -> str:
        text = known.sub(DOT * 3, text) if known is not None else text
        for start, end in reversed([*find(text)]):
            text = text[:start] + DOT * 3 + text[end:]
        return text

    hint = without(one.hint) if one.hint is not None else None
    fix = one.fix if one.fix is None or without(one.fix.text) == one.fix.text else None
    related = tuple((span, without(label)) for span, label in one.related)
    return replace(one, message=without(one.message), hint=hint, related=related, fix=fix)


def _standing_at(span: Span, text: str) -> str:
    lines = split_lines(text)
    return "\n".join(lines[number][start:end] for number, start, end in _pieces(span, lines)).strip("'\"")


def _pieces(span: Span, lines: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return a span line by line: the line's index, and the start and end in that line."""
    first, last = span.line - 1, span.end_line - 1
    return [
        (
            number,
            span.column - 1 if number == first else 0,
            span.end_column - 1 if number == last else len(lines[number]),
        )
        for number in range(first, min(last + 1, len(lines)))
    ]
