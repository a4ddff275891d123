"""Diagnostics about blueprints: code, exact place, message and hint.

All checks of this package return `Diagnostic`s and do not raise. `render` formats one like a compiler, and
`RULES` has the explanations for `flujo explain CODE`. A rule is registered where it is defined.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from flujo.governance.screen import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TAB = "    "
"""How a tab is displayed, so that the caret below stays in its column."""

MAX_FINDINGS = 200
"""How many errors of one file are reported: computing a suggestion takes longer than finding an error."""

WINDOW = 120
"""How many characters of a long source line are shown around a span."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A range of a file. Lines and columns count from 1, columns in characters; the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def overlaps(self, other: Span) -> bool:
        """Return whether another span of the same file overlaps this one."""
        begins, others = (self.line, self.column), (other.line, other.column)
        return begins < (other.end_line, other.end_column) and others < (self.end_line, self.end_column)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Severity(StrEnum):
    """The severity of a finding: errors stop a blueprint, and warnings do so in strict mode."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Fix:
    """A safe edit: replaces the text at `span` with `text`."""

    span: Span
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the span and the text."""
        return {"span": self.span.to_json(), "text": self.text}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A finding. `related` has further places, each with a label."""

    code: str
    severity: Severity
    message: str
    span: Span
    hint: str | None = None
    related: tuple[tuple[Span, str], ...] = ()
    fix: Fix | None = None

    @property
    def is_error(self) -> bool:
        """Whether the finding stops the blueprint."""
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        return f"{self.span}  {self.code}  {self.message}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `explanation` is Markdown: what it finds, why it matters, an example."""

    code: str
    slug: str
    title: str
    explanation: str

    def at(
        self,
        span: Span,
        message: str,
        *,
        hint: str | None = None,
        severity: Severity = Severity.ERROR,
        related: tuple[tuple[Span, str], ...] = (),
        fix: Fix | None = None,
    ) -> Diagnostic:
        """Return a finding of this rule."""
        return Diagnostic(self.code, severity, message, span, hint, related, fix)


RULES: dict[str, Rule] = {}
"""Every rule by its code; complete once the modules of this package are imported."""


def rule(code: str, slug: str, title: str, *, finds: str, why: str, example: str, instead: str) -> Rule:
    """Register a rule and return it.

    Args:
        code: `FLJ1xx` for reading, `FLJ2xx` for the meaning of a blueprint, `FLJ4xx` for its agents. Unique.
        slug: the rule's name in words, `duplicate-key`.
        title: the problem in one line.
        finds: what it finds, as a sentence.
        why: why it matters.
        example: a piece of a blueprint that breaks the rule.
        instead: the same piece, right.

    Raises:
        ValueError: the code or the slug is already used.
    """
    if code in RULES or any(known.slug == slug for known in RULES.values()):
        raise ValueError(f"rule {code} or `{slug}` is already registered")
    explanation = (
        f"## What it finds\n\n{finds}\n\n## Why it matters\n\n{why}\n\n"
        f"## Example\n\n```yaml\n{example}\n```\n\n## Write instead\n\n```yaml\n{instead}\n```\n"
    )
    RULES[code] = Rule(code, slug, title, explanation)
    return RULES[code]


# Rendering -----------------------------------------------------------------------------------------------


def render(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """Return a finding as plain text: what and where, the source line with carets, further places, the hint.

    Args:
        diagnostic: the finding.
        sources: the text of each file by its name in spans; other files are shown without an excerpt.
    """
    spans = [diagnostic.span, *(span for span, _ in diagnostic.related)]
    gutter = len(str(max(span.line for span in spans)))
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {visible_line(diagnostic.message)}"]
    lines.append(f"{' ' * gutter}--> {visible_line(str(diagnostic.span))}")
    lines += _snippet(diagnostic.span, sources, gutter, "^", "")
    for span, label in diagnostic.related:
        lines.append(f"{' ' * gutter}::: {visible_line(str(span))}")
        lines += _snippet(span, sources, gutter, "-", label)
    if diagnostic.hint:
        lines.append(f"{' ' * gutter} = hint: {visible_line(diagnostic.hint)}")
    return "\n".join(lines)


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """Return a finding as JSON data, with the rule's slug if the rule is known."""
    known = RULES.get(diagnostic.code)
    return {
        "code": diagnostic.code,
        "rule": known.slug if known else None,
        "severity": str(diagnostic.severity),
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "span": diagnostic.span.to_json(),
        "related": [{"span": span.to_json(), "label": label} for span, label in diagnostic.related],
        "fix": diagnostic.fix.to_json() if diagnostic.fix else None,
    }


def split_lines(text: str) -> list[str]:
    """Return the lines of a file as a YAML parser counts them: LF, CR LF and CR end a line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _snippet(span: Span, sources: Mapping[str, str], gutter: int, mark: str, label: str) -> list[str]:
    """Return the line at `span` with a run of `mark` under it."""
    lines = split_lines(sources[span.file]) if span.file in sources else []
    if not 0 < span.line <= len(lines):
        return [f"{' ' * gutter} = {label}"] if label else []
    line = lines[span.line - 1]
    start = min(span.column - 1, len(line))
    end = min(span.end_column - 1, len(line)) if span.end_line == span.line else len(line)
    line, start, end = _window(line, start, max(end, start))
    indent = " " * _width(line[:start])
    marks = mark * max(1, _width(line[start:end]))
    shown = "".join(map(_shown, line)).rstrip()
    note = f" {visible_line(label)}" if label else ""
    return [
        f"{' ' * gutter} |",
        f"{span.line:>{gutter}} | {shown}",
        f"{' ' * gutter} | {indent}{marks}{note}",
    ]


def _window(line: str, start: int, end: int) -> tuple[str, int, int]:
    """Return the part of a long line around a span, and the span inside that part."""
    if len(line) <= WINDOW:
        return line, start, end
    left = max(0, min(start - WINDOW // 4, len(line) - WINDOW))
    before = "…" if left else ""
    after = "…" if left + WINDOW < len(line) else ""
    part = before + line[left : left + WINDOW] + after
    shift = len(before) - left
    return part, start + shift, min(end + shift, len(part))


def _shown(char: str) -> str:
    if char == "\t":
        return TAB
    return visible_line(char)


def _width(text: str) -> int:
    """Return how many terminal cells the displayed text takes."""
    return sum(map(_cells, "".join(map(_shown, text))))


def _cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


# Suggestions ---------------------------------------------------------------------------------------------


_MANY = 200
"""With more known words than this, only similar ones are compared."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean `x`?" for the known word that is nearest, or None when none is near."""
    near = nearest(word, known)
    return f"did you mean `{near}`?" if near is not None else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most likely stands for."""
    names = known if isinstance(known, Sequence) else list(known)
    if len(names) > _MANY:  # comparing is slow; most typos keep the start or the end of a word
        first, last = word[:1], word[-1:]
        alike = (one for one in names if one.startswith(first) or one.endswith(last))
        names = list(islice(alike, _MANY))
    folded = {candidate.casefold(): candidate for candidate in names}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.7)
    return folded[found[0]] if found else None


def one_of(words: Iterable[str], *, joined_by: str = "or", most: int = 12) -> str:
    """Return words as prose: "`a`, `b` or `c`"; beyond `most`, how many more there are."""
    found = list(words)
    quoted = [f"`{word}`" for word in found[:most]]
    if len(found) > most:
        quoted.append(f"{len(found) - most} more")
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {joined_by} {quoted[-1]}"


def suggest(word: str, known: Iterable[str], *, what: str = "known") -> str:
    """Return the hint for an unknown word: the nearest known one, or else all of them."""
    names = list(known)
    return did_you_mean(word, names) or (f"{what}: {one_of(names, joined_by='and')}" if names else "")
