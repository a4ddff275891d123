"""Parses a file into a `Document`: plain data with the place of every key and value, or findings.

The limits are checked on the parser's events, before data is built, so a hostile file costs no more than
reading its bytes. libyaml scans; `scalars.py` resolves the types of scalars (YAML 1.2; PyYAML has 1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from flujo.blueprint.diagnostics import Fix
from flujo.blueprint.reading.decoding import MAX_BYTES, decode
from flujo.blueprint.reading.scalars import NumberTooLarge, instead_of, resolve
from flujo.blueprint.reading.source_map import Document, Mapping, Node, Scalar, Sequence
from flujo.blueprint.reading.syntax_rules import (
    ALIAS,
    DEPTH,
    DUPLICATE_KEY,
    EMPTY,
    ENCODING,
    KEY,
    NODES,
    NUMBER,
    ONE_DOCUMENT,
    ROOT,
    SCALAR_SIZE,
    TAG,
    UNQUOTED,
)
from flujo.blueprint.reading.yaml_errors import LOGIC_KEYS, explain, unquoted
from flujo.domain.wording import size
from flujo.governance.screen import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Diagnostic, Rule

__all__ = ["Document", "read"]

MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_SCALAR_BYTES = 64 * 1024
MAX_KEY = 128
MAX_FINDINGS = 25
"""Reading stops after this many findings: most later ones would follow from earlier ones."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a file may be. The limits of a blueprint keep what a person writes readable."""

    file_bytes: int = MAX_BYTES
    scalar_bytes: int = MAX_SCALAR_BYTES
    nodes: int = MAX_NODES
    depth: int = MAX_DEPTH


OF_BLUEPRINTS = Limits()

_EXPRESSION_TAG = re.compile(r"!\(*[A-Za-z_]\w*[.(]", re.ASCII)


def read(data: bytes, file: str, *, limits: Limits = OF_BLUEPRINTS) -> Document:
    """Parse a blueprint's bytes, with a finding for everything that cannot be read.

    Never raises. Use the document's `data` only if no finding is an error.

    Args:
        data: the file's bytes, UTF-8, with or without a byte order mark.
        file: the file name in spans.
        limits: how large the file may be.
    """
    document = decode(data, file, limit=limits.file_bytes)
    if document.diagnostics:
        return document
    return _Reader(document, limits).read()


class _Stop(Exception):
    """Stops reading; the findings so far are in the list."""


class _Reader:
    """One walk over the events of one file."""

    def __init__(self, document: Document, limits: Limits) -> None:
        self.document = document
        self.limits = limits
        self.found: list[Diagnostic] = []
        self.lookalikes: dict[tuple[str | int, ...], str] = {}
        self.path: list[str | int] = []
        self.nodes = 0
        self.events: Iterator[Any] = yaml.parse(document.text, Loader=_LOADER)

    def read(self) -> Document:
        """Return the document with its tree and all findings."""
        root: Node | None = None
        try:
            root = self._document()
        except _Stop:
            pass
        except yaml.error.MarkedYAMLError as error:
            self._syntax(error)
        found = tuple(sorted(self.found, key=lambda finding: finding.span))
        return Document(self.document.file, self.document.text, root, found, self.lookalikes)

    def _document(self) -> Node | None:
        root: Node | None = None
        for event in self.events:
            match event:
                case yaml.DocumentStartEvent() if root is not None:
                    self._fail(
                        ONE_DOCUMENT,
                        event,
                        "a blueprint is one document; a second one begins here",
                        "move it to a separate file",
                    )
                case yaml.DocumentStartEvent():
                    root = self._node(next(self.events))
                case _:
                    pass
        if root is None or (isinstance(root, Scalar) and root.value is None and root.start == root.end):
            self._report(EMPTY, 0, 0, "the file is empty", "create a blueprint with `flujo init`")
            return None
        if not isinstance(root, Mapping):
            found = "a list" if isinstance(root, Sequence) else "a single value"
            self._report(
                ROOT,
                root.start,
                root.start + 1,
                f"the file must be a mapping, not {found}",
                'a blueprint starts with `version: "1"`, `name:` and `steps:`',
            )
        return root

    # Nodes -----------------------------------------------------------------------------------------------

    def _node(self, event: Any) -> Node:
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            self._fail(
                NODES,
                event,
                f"the file has more than {self.limits.nodes} keys and values",
                "pass large data as the run's input",
            )
        if isinstance(event, yaml.AliasEvent):
            self._at(
                ALIAS,
                event,
                "an alias (`*name`) is not allowed",
                "write the value out, or import a blueprint",
            )
            return Scalar(None, event.start_mark.index, event.end_mark.index)
        if event.anchor is not None:
            self._at(
                ALIAS,
                event,
                f"an anchor (`&{event.anchor}`) is not allowed",
                "write the value where it is used",
            )
        if event.tag is not None:
            self._tag(event)
        match event:
            case yaml.ScalarEvent():
                return self._scalar(event)
            case yaml.SequenceStartEvent():
                return self._sequence(event)
            case _:
                return self._mapping(event)

    def _scalar(self, event: Any) -> Scalar:
        start, end, text = event.start_mark.index, event.end_mark.index, event.value
        style = event.style or ""
        if style in ("|", ">"):
            end = start + len(self.document.text[start:end].rstrip())
        most = self.limits.scalar_bytes
        if len(text) > most // 4 and len(text.encode()) > most:
            what = f"a text of more than {size(most)}"
            self._report(SCALAR_SIZE, start, start + 1, what, "move it to a separate file")
        if "\0" in text:
            self._report(
                ENCODING, start, end, "the text has a NUL character, which databases reject", "remove `\\0`"
            )
        if style or event.tag is not None:
            return Scalar(text, start, end, style)
        return Scalar(self._plain(text, start, end), start, end)

    def _plain(self, text: str, start: int, end: int) -> str | int | float | bool | None:
        try:
            value = resolve(text)
        except NumberTooLarge as error:
            self._report(NUMBER, start, end, str(error), "put it in quotes to keep every digit")
            return None
        if isinstance(value, str) and (instead := instead_of(value)):
            self.lookalikes[tuple(self.path)] = instead
        return value

    def _sequence(self, event: Any) -> Sequence:
        self._deeper(event)
        items: list[Node] = []
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            self.path.append(len(items))
            items.append(self._node(inner))
            self.path.pop()
        start, end = event.start_mark.index, _end(event, inner, items[-1] if items else None)
        return Sequence([item.value for item in items], tuple(items), start, end)

    def _mapping(self, event: Any) -> Mapping:
        self._deeper(event)
        entries: dict[str, tuple[Scalar, Node]] = {}
        last: Node | None = None
        while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
            key = self._key(inner, event, entries)
            self.path.append(str(key.value) if key else "")
            last = self._node(next(self.events))
            self.path.pop()
            if key is not None:
                entries.setdefault(str(key.value), (key, last))
        start, end = event.start_mark.index, _end(event, inner, last)
        return Mapping({name: value.value for name, (_, value) in entries.items()}, entries, start, end)

    def _deeper(self, event: Any) -> None:
        if len(self.path) >= self.limits.depth:
            self._fail(
                DEPTH,
                event,
                f"the file is nested deeper than {self.limits.depth} levels",
                "move the inner steps to another blueprint and import it",
            )

    # Keys ------------------------------------------------------------------------------------------------

    def _key(self, event: Any, mapping: Any, entries: dict[str, tuple[Scalar, Node]]) -> Scalar | None:
        """Return the key, or report it and return None."""
        if not isinstance(event, yaml.ScalarEvent):
            self._odd_key(event, mapping)
            return None
        key = self._node(event)
        self.lookalikes.pop(tuple(self.path), None)  # A key is always text.
        if not isinstance(key, Scalar):
            return None
        problem = _key_problem(key, self.document.text[key.start : key.end])
        if problem is not None:
            rule, message, hint = problem
            self._report(rule, key.start, key.end, message, hint)
            return None
        if (first := entries.get(str(key.value))) is not None:
            self._duplicate(key, first[0])
        return key

    def _odd_key(self, event: Any, mapping: Any) -> None:
        """Consume a key that is not a scalar, such as an unquoted `{{ x }}`, which has its own hint."""
        start = mapping.start_mark.index
        findings = len(self.found)
        self.path.append("")
        self._node(event)
        self.path.pop()
        if not self.document.text.startswith("{{", start):
            self._at(
                KEY,
                event,
                "a key must be a string, not a list or a mapping",
                "write text before the `:`",
            )
            return
        del self.found[findings:]
        line = unquoted(self.document, start)
        if line is not None:
            self.found.append(line)
            return
        end = event.end_mark.index
        self._report(
            UNQUOTED,
            start,
            end,
            "`{{ … }}` needs quotes: in YAML a brace starts a mapping",
            'write "{{ … }}" in quotes',
        )

    def _duplicate(self, key: Scalar, first: Scalar) -> None:
        before = self.document.between(first.start, first.end)
        span = self.document.between(key.start, key.end)
        self._add(
            DUPLICATE_KEY.at(
                span,
                f"the key `{visible_line(str(key.value))}` is defined here and on line {before.line}",
                hint="remove one of the two",
                related=((before, "first here"),),
            )
        )

    # Findings --------------------------------------------------------------------------------------------

    def _tag(self, event: Any) -> None:
        """Report a tag; an unquoted expression that starts with `!` looks like one."""
        start, end = event.start_mark.index, event.end_mark.index
        source = self.document.text[start:].split(maxsplit=1)[0]
        logic = bool(self.path) and (self.path[-1] in LOGIC_KEYS or "save" in self.path[-2:-1])
        if isinstance(event, yaml.ScalarEvent) and (logic or _EXPRESSION_TAG.match(source)):
            line = unquoted(self.document, start)
            whole = self.document.text[start:end].rstrip()
            quoted = "'" + whole.replace("'", "''") + "'"
            span = self.document.between(start, start + len(whole))
            self._add(
                line
                or UNQUOTED.at(
                    span,
                    "an expression that starts with `!` needs quotes: `!` starts a tag",
                    hint=f"quote it: {quoted}",
                    fix=Fix(span, quoted),
                )
            )
            return
        self._report(
            TAG,
            start,
            start + len(source),
            f"the tag `{visible_line(source[:40])}` is not allowed",
            "remove it; to get a text, put the value in quotes",
        )

    def _syntax(self, error: yaml.error.MarkedYAMLError) -> None:
        finding = explain(self.document, error)
        if not any(known.span.line == finding.span.line for known in self.found):
            self.found.append(finding)

    def _fail(self, rule: Rule, event: Any, message: str, hint: str) -> NoReturn:
        self._at(rule, event, message, hint)
        raise _Stop

    def _at(self, rule: Rule, event: Any, message: str, hint: str) -> None:
        start = event.start_mark.index
        self._report(rule, start, max(start + 1, min(event.end_mark.index, start + 80)), message, hint)

    def _report(self, rule: Rule, start: int, end: int, message: str, hint: str) -> None:
        self._add(rule.at(self.document.between(start, end), message, hint=hint))

    def _add(self, finding: Diagnostic) -> None:
        self.found.append(finding)
        if len(self.found) >= MAX_FINDINGS:
            raise _Stop


def _end(start: Any, end: Any, last: Node | None) -> int:
    """Return where a collection ends, without the blank lines after it."""
    if start.flow_style or last is None:
        return int(end.end_mark.index)
    return last.end


def _key_problem(key: Scalar, source: str) -> tuple[Rule, str, str] | None:
    """Return the rule, message and hint for a forbidden key."""
    if not isinstance(key.value, str):
        message = f"a key must be a string, and `{source}` is not one"
        return KEY, message, f'write `"{source}":` if you mean the text'
    if key.value == "<<" and not key.style:
        return ALIAS, "a merge key (`<<`) is not allowed", "write the keys out"
    if len(key.value) > MAX_KEY:
        return (
            KEY,
            f"a key of {len(key.value)} characters; at most {MAX_KEY} are allowed",
            "use a shorter one",
        )
    if key.value == "__proto__" or key.value.startswith("$flujo"):
        return KEY, f"the key `{key.value}` is reserved", "choose another name"
    return None


# Every wheel of PyYAML has libyaml. Without it, the pure Python scanner gives the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
