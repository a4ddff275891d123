"""Translates YAML parser errors into findings with a hint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Fix
from flujo.blueprint.reading.syntax_rules import ALIAS, ENCODING, SYNTAX, TAG, UNQUOTED

if TYPE_CHECKING:
    from yaml.error import MarkedYAMLError

    from flujo.blueprint.diagnostics import Diagnostic, Rule
    from flujo.blueprint.reading.source_map import Document

LOGIC_KEYS = frozenset({"if", "switch", "until", "when", "over", "key", "next", "goal"})
"""Keys whose values are expressions."""

_ENTRY = re.compile(r"[ \t]*(?:- +)*(?P<key>[A-Za-z_][\w-]*) *: +(?P<value>\S.*?) *$", re.ASCII)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"")

_QUOTE = "put the whole value in quotes"
_REASONS: dict[str, tuple[str, str]] = {
    "mapping values are not allowed in this context": (
        "a second `:` on this line, or an entry that is indented more than the previous ones",
        "put a text that contains `: ` in quotes, or align the key with its neighbours",
    ),
    "could not find expected ':'": ("a key without its `:`", "write `key: value`, or put the text in quotes"),
    "did not find expected key": (
        "expected the next key of the mapping",
        "align the key with its neighbours; move text after a closing quote inside the quotes",
    ),
    "did not find expected '-' indicator": (
        "expected the next `- ` of the list",
        "align the entry with its neighbours",
    ),
    "did not find expected ',' or ']'": ("a `[` list is not closed, or lacks a comma", "add `,` or `]`"),
    "did not find expected ',' or '}'": ("a `{` mapping is not closed, or lacks a comma", "add `,` or `}`"),
    "did not find expected node content": (
        "a value is missing between two separators",
        "remove the extra comma",
    ),
    "did not find expected <document start>": (
        "expected the end of the file, found a second value",
        "a blueprint is one mapping; align the key with the first one",
    ),
    "block sequence entries are not allowed in this context": (
        "a list cannot start on the line of its key",
        "start the list on the next line",
    ),
    "found character that cannot start any token": ("a value cannot start with this character", _QUOTE),
    "did not find expected comment or line break": (
        "`|` or `>` opens a block of text, which starts on the next line",
        "start the text on the next line, or put it in quotes",
    ),
    "found unknown escape character": (
        "unknown escape sequence in double quotes",
        "use single quotes, or double the backslash",
    ),
}


def explain(document: Document, error: MarkedYAMLError) -> Diagnostic:
    """Return the finding for the place where the parser stopped."""
    at = error.problem_mark.index if error.problem_mark else len(document.text)
    begun = error.context_mark.index if error.context_mark else at
    problem = error.problem or ""
    return (
        next(filter(None, (unquoted(document, offset) for offset in (at, at - 1, begun))), None)
        or _open_quote(document, error, begun)
        or _tab(document, at)
        or _refused(document, f"{error.context}: {problem}", begun, at)
        or _syntax(document, problem, at)
    )


def unquoted(document: Document, offset: int) -> Diagnostic | None:
    """Return the finding for a line whose value is an expression that needs quotes, or None."""
    text = document.text
    start = text.rfind("\n", 0, max(offset, 0)) + 1
    end = text.find("\n", max(offset, 0))
    line = text[start : end if end >= 0 else len(text)].rstrip("\r")
    entry = _ENTRY.match(line)
    if entry is None or _QUOTED.fullmatch(entry["value"]):
        return None
    key, value = entry["key"], entry["value"]
    if key not in LOGIC_KEYS and not value.startswith("{{"):
        return None
    span = document.between(start + entry.start("value"), start + entry.end("value"))
    quoted = "'" + value.replace("'", "''") + "'"
    why = "`!` starts a tag" if value.startswith("!") else "YAML reads it as something else"
    message = f"the value of `{key}` needs quotes: {why}"
    return UNQUOTED.at(span, message, hint=f"quote it: `{key}: {quoted}`", fix=Fix(span, quoted))


def _open_quote(document: Document, error: MarkedYAMLError, begun: int) -> Diagnostic | None:
    if "quoted scalar" not in (error.context or "") or "unexpected" not in (error.problem or ""):
        return None
    span = document.between(begun, begun + 1)
    message = f"the quote that opens on line {span.line} is never closed"
    return SYNTAX.at(span, message, hint="close it with the same quote character")


def _tab(document: Document, at: int) -> Diagnostic | None:
    """Return the finding for a tab in the indentation."""
    start = document.text.rfind("\n", 0, at) + 1
    lead = re.match(r" *\t", document.text[start:])
    if lead is None:
        return None
    span = document.between(start + lead.end() - 1, start + lead.end())
    return SYNTAX.at(span, "a tab in the indentation", hint="use spaces: YAML does not allow tabs here")


def _refused(document: Document, problem: str, begun: int, at: int) -> Diagnostic | None:
    """Return the finding for malformed syntax of features that the language forbids anyway."""
    span = document.between(begun, max(at, begun + 1))
    if "Unicode character escape" in problem:
        hint = "write the character itself, or `\\U0001F600` with eight digits"
        return ENCODING.at(document.between(at, at + 1), "a lone surrogate is not a character", hint=hint)
    rules: tuple[tuple[str, Rule, str], ...] = (
        ("alphabetic or numeric", ALIAS, "`&` and `*` start an anchor or an alias, which are not allowed"),
        ("a tag", TAG, "`!` starts a tag, which is not allowed; an expression with `!` needs quotes"),
        ("tag handle", TAG, "a tag is not allowed"),
        ("directive", SYNTAX, "a `%` at the start of a line is a directive, which is not allowed"),
    )
    for words, rule, message in rules:
        if words in problem:
            return rule.at(span, message, hint=_QUOTE)
    return None


def _syntax(document: Document, problem: str, at: int) -> Diagnostic:
    message, hint = _REASONS.get(problem, ("unexpected text", _QUOTE))
    span = document.between(at, at + 1)
    return SYNTAX.at(span, f"{message} (line {span.line})", hint=hint)
