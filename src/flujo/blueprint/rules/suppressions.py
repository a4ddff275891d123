"""`# flujo: ignore[CODE] reason`: suppresses a warning on its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, Severity, rule, suggest
from flujo.blueprint.reading.source_map import Mapping, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.reading.source_map import Document, Node

_COMMENT = re.compile(
    r"(?:^|(?<=\s))#[ \t]*flujo:[ \t]*ignore(?:\[(?P<codes>[^\]\r\n]*)\])?(?P<reason>[^\r\n]*)", re.MULTILINE
)

IGNORE = rule(
    "FLJ190",
    "ignore",
    "An `ignore` without effect, code or reason",
    finds="A comment `# flujo: ignore[CODE] reason` without a code or a reason, with a code that does not "
    "exist or is an error, or on a line without a finding of that code.",
    why="An ignore is a decision. A later reader needs to know the reason, and whether it still applies.",
    example="- {name: note, call: skills.notes:add}  # flujo: ignore",
    instead="- {name: note, call: skills.notes:add}  # flujo: ignore[FLJ231] a second note does no harm",
)


@dataclass(slots=True)
class _Comment:
    span: Span
    lines: range
    """The lines that it applies to: its own, and the next one if the comment is alone on its line."""
    codes: tuple[str, ...]
    reason: str
    used: set[str]


def apply_suppressions(
    document: Document, found: Iterable[Diagnostic], *, is_included: bool = False
) -> Iterator[Diagnostic]:
    """Yield the findings of one file that no comment ignores, and findings about the comments.

    Errors are never ignored: a blueprint with an error cannot run.

    Args:
        document: the file.
        found: the findings, of all files.
        is_included: whether other files include this one: a comment may be meant for one of those.
    """
    comments = list(_comments(document))
    for one in found:
        fitting = [
            comment
            for comment in comments
            if one.span.file == document.file
            and one.span.line in comment.lines
            and one.code in comment.codes
            and not one.is_error
        ]
        for comment in fitting:
            comment.used.add(one.code)
        if not fitting:
            yield one
    for comment in comments:
        yield from _judged(comment, must_count=not is_included)


def _judged(comment: _Comment, *, must_count: bool) -> Iterator[Diagnostic]:
    def say(message: str, hint: str) -> Diagnostic:
        return IGNORE.at(comment.span, message, hint=hint, severity=Severity.WARNING)

    if not comment.codes:
        yield say("this `ignore` has no code", "write `# flujo: ignore[FLJ231] reason`")
        return
    if not comment.reason:
        yield say(
            "this `ignore` has no reason", "write after the bracket why the finding does not matter here"
        )
    for code in comment.codes:
        if code not in RULES:
            yield say(f"there is no rule {code}", suggest(code, RULES, what="rules"))
        elif must_count and code not in comment.used:
            yield say(
                f"`{code}` has no warning to ignore here",
                "remove the comment; errors cannot be ignored, and warnings only on their own line",
            )


def _comments(document: Document) -> Iterator[_Comment]:
    texts = None
    for match in _COMMENT.finditer(document.text):
        if texts is None:
            texts = list(_scalars(document.root))
        if any(start <= match.start() < end for start, end in texts):
            continue  # a `#` inside a text
        span = document.between(match.start(), match.end())
        alone = not document.text[: match.start()].rpartition("\n")[2].strip()
        codes = tuple(code.strip().upper() for code in (match["codes"] or "").split(",") if code.strip())
        lines = range(span.line, span.line + (2 if alone else 1))
        yield _Comment(span, lines, codes, match["reason"].strip(" \t:-"), set())


def _scalars(node: Node | None) -> Iterator[tuple[int, int]]:
    match node:
        case Scalar():
            yield node.start, node.end
        case Sequence():
            for item in node.items:
                yield from _scalars(item)
        case Mapping():
            for key, value in node.entries.values():
                yield from _scalars(key)
                yield from _scalars(value)
        case None:
            return
