"""Why a text stops being YAML, in our words: the parser's complaint becomes a finding with a remedy."""

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
        "a second `:` on this line, or an entry that is indented further than the ones before it",
        "put a text that holds `: ` in quotes, or line the key up with its neighbours",
    ),
    "could not find expected ':'": ("a key without its `:`", "write `key: value`, or put the text in quotes"),
    "did not find expected key": (
        "here should be the next key of the mapping",
        "line the key up with its neighbours; text after a closing quote belongs inside of the quotes",
    ),
    "did not find expected '-' indicator": (
        "here should be the next `- ` of the list",
        "line the entry up with its neighbours",
    ),
    "did not find expected ',' or ']'": ("a `[` list is not closed, or lacks a comma", "add `,` or `]`"),
    "did not find expected ',' or '}'": ("a `{` mapping is not closed, or lacks a comma", "add `,` or `}`"),
    "did not find expected node content": ("a value is missing between two marks", "remove the extra comma"),
    "did not find expected <document start>": (
        "a second value stands where the file should end",
        "a blueprint is one mapping; line the key up with the first one",
    ),
    "block sequence entries are not allowed in this context": (
        "a list cannot begin on the line of its key",
        "begin the list on the next line",
    ),
    "found character that cannot start any token": ("no value can begin with this character", _QUOTE),
    "did not find expected comment or line break": (
        "`|` or `>` opens a block of text, which begins on the next line",
        "begin the text on the next line, or put it in quotes",
    ),
    "found unknown escape character": (
        "a backslash in double quotes starts an escape, and this one does not exist",
        "use single quotes, or write the backslash twice",
    ),
}


def explain(document: Document, error: MarkedYAMLError) -> Diagnostic:
    """Return the finding for the place where the parser gave up."""
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
    return SYNTAX.at(span, message, hint="close it with the same kind of quote")


def _tab(document: Document, at: int) -> Diagnostic | None:
    """Return the finding for a tab where the indentation should be."""
    start = document.text.rfind("\n", 0, at) + 1
    lead = re.match(r" *\t", document.text[start:])
    if lead is None:
        return None
    span = document.between(start + lead.end() - 1, start + lead.end())
    return SYNTAX.at(span, "a tab in the indentation", hint="YAML indents with spaces only")


def _refused(document: Document, problem: str, begun: int, at: int) -> Diagnostic | None:
    """Return the finding for what is not even well-formed of the things that the language refuses anyway."""
    span = document.between(begun, max(at, begun + 1))
    if "Unicode character escape" in problem:
        hint = "write the character itself, or `\\U0001F600` with eight digits"
        return ENCODING.at(
            document.between(at, at + 1), "half of a surrogate pair is no character", hint=hint
        )
    rules: tuple[tuple[str, Rule, str], ...] = (
        ("alphabetic or numeric", ALIAS, "`&` and `*` begin an anchor or an alias, which are not allowed"),
        ("a tag", TAG, "`!` begins a tag, which is not allowed; an expression with `!` needs quotes"),
        ("tag handle", TAG, "a tag is not allowed"),
        ("directive", SYNTAX, "a `%` at the start of a line is a directive, which is not allowed"),
    )
    for words, rule, message in rules:
        if words in problem:
            return rule.at(span, message, hint=_QUOTE)
    return None


def _syntax(document: Document, problem: str, at: int) -> Diagnostic:
    message, hint = _REASONS.get(problem, ("the text does not fit what stands before it", _QUOTE))
    span = document.between(at, at + 1)
    return SYNTAX.at(span, f"{message} (line {span.line})", hint=hint)
