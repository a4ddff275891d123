"""A parsed file: plain data, with the exact place of every key and every value.

A `Document` has the data (`data`) and the `Span`s for findings: `span(path)` for a key or a value,
`span_in(path, start, end)` for a part of a text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import Span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence as Path

    from flujo.blueprint.diagnostics import Diagnostic

_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK = frozenset(" \t\r\n")
_ESCAPE = re.compile(r"\\(?:x(..)|u(....)|U(........)|\r\n|.)", re.DOTALL)
_SHORT_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\t": "\t", " ": " ", "\n": "\n", "\r": "\n"}


# Nodes are not frozen: creating frozen ones takes longer, and a file has thousands.


@dataclass(slots=True, eq=False)
class Scalar:
    """A text, number, boolean or null. `start` and `end` are offsets in the file, quotes included."""

    value: str | int | float | bool | None
    start: int
    end: int
    style: str = ""
    """How it is written: empty for plain, otherwise `'`, `"`, `|` or `>`."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A list. `value` is its plain data."""

    value: list[Any]
    items: tuple[Node, ...]
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Mapping:
    """A mapping with text keys. `value` is its plain data."""

    value: dict[str, Any]
    entries: dict[str, tuple[Scalar, Node]]
    start: int
    end: int


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True)
class Document:
    """A parsed file. With errors among the `diagnostics`, `root` has the parts that could be read."""

    file: str
    text: str
    """The file's text, without a byte order mark."""
    root: Node | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    lookalikes: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    """The places of plain texts that YAML 1.1 reads as another type, and what to write instead."""
    elsewhere: dict[tuple[str | int, ...], tuple[Document, tuple[str | int, ...]]] = field(
        default_factory=dict
    )
    """The places of parts that come from other files, with the file and the place in it."""

    @property
    def data(self) -> Any:
        """The plain JSON data; None if the file could not be read."""
        return self.root.value if self.root is not None else None

    def node(self, path: Path[str | int]) -> Node | None:
        """Return the node at a path of keys and indexes, or None."""
        node, rest = self._nearest(path)
        return node if not rest else None

    def span(self, path: Path[str | int], *, key: bool = False) -> Span:
        """Return the span of the value at `path`, or of the nearest existing value around it.

        Args:
            path: keys and indexes from the root.
            key: return the span of the key instead.
        """
        if (other := self._other(path[:-1] if key else path)) is not None:
            return other[0].span((*other[1], *path[other[2] :]), key=key)
        above, rest = self._nearest(path[:-1])
        if key and path and not rest and isinstance(above, Mapping) and path[-1] in above.entries:
            own = above.entries[str(path[-1])][0]
            return self.between(own.start, own.end)
        node, _ = self._nearest(path)
        return self.between(node.start, node.end) if node else self.between(0, 0)

    def span_in(self, path: Path[str | int], start: int, end: int | None = None) -> Span:
        """Return the span of `value[start:end]` in the file, for the text at `path`.

        Exact for every style of text; the span of the whole value if there is no such part.

        Args:
            path: keys and indexes from the root.
            start: the first character, as an offset in the value.
            end: the offset after the last one; by default one character.
        """
        if (other := self._other(path)) is not None:
            return other[0].span_in((*other[1], *path[other[2] :]), start, end)
        node = self.node(path)
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            return self.span(path)
        places = _places(self.text, node)
        if places is None:
            return self.span(path)
        first = _inked(node.value[:start])
        last = first + _inked(node.value[start : max(start + 1, end or 0)])
        if first >= len(places):
            return self.between(node.end, node.end)
        return self.between(places[first], places[max(first, last - 1)] + 1)

    def path_at(self, span: Span) -> tuple[str | int, ...]:
        """Return the path of the value at the start of a span."""
        at, node = self.offset(span.line, span.column), self.root
        path: tuple[str | int, ...] = ()
        while node is not None and path not in self.elsewhere:
            inner = next(((key, one) for key, start, one in _inside(node) if start <= at < one.end), None)
            path, node = ((*path, inner[0]), inner[1]) if inner else (path, None)
        return path

    def between(self, start: int, end: int) -> Span:
        """Return the span between two offsets in the text."""
        line, column = self._position(start)
        end_line, end_column = self._position(max(start, end))
        return Span(self.file, line, column, end_line, end_column)

    def offset(self, line: int, column: int) -> int:
        """Return the offset in the text of a line and column, counted as in spans."""
        return self._line_starts[line - 1] + column - 1

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(found.end() for found in _LINE_END.finditer(self.text))]

    def _position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def _other(self, path: Path[str | int]) -> tuple[Document, tuple[str | int, ...], int] | None:
        """Return the file of a part, its place there, and the length of its path here; None for this file."""
        lengths = range(len(path), 0, -1) if self.elsewhere else ()
        found = ((self.elsewhere.get(tuple(path[:length])), length) for length in lengths)
        return next(((*place, length) for place, length in found if place is not None), None)

    def _nearest(self, path: Path[str | int]) -> tuple[Node | None, Path[str | int]]:
        """Return the deepest existing node along `path`, and the rest of the path."""
        node = self.root
        for depth, step in enumerate(path):
            if isinstance(node, Mapping) and step in node.entries:
                node = node.entries[str(step)][1]
            elif isinstance(node, Sequence) and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
            else:
                return node, path[depth:]
        return node, ()


def node_of(value: Any, at: int) -> Node:
    """Return a tree for a value that is not in the file, as if it were written at an offset."""
    if isinstance(value, dict):
        entries = {key: (Scalar(key, at, at), node_of(one, at)) for key, one in value.items()}
        return Mapping(value, entries, at, at)
    if isinstance(value, list):
        return Sequence(value, tuple(node_of(one, at) for one in value), at, at)
    return Scalar(value, at, at)


def _inside(node: Node) -> Iterator[tuple[str | int, int, Node]]:
    """Yield the key or index of each child of a node, its start, and the child."""
    if isinstance(node, Mapping):
        yield from ((name, key.start, value) for name, (key, value) in node.entries.items())
    elif isinstance(node, Sequence):
        yield from ((index, item.start, item) for index, item in enumerate(node.items))


# YAML folds, indents and chomps white space; the other characters of a text keep their order in the file.
# So the n-th non-blank character of a value is the n-th non-blank character of its source.


def _inked(text: str) -> int:
    """Return the number of non-blank characters."""
    return sum(char not in _BLANK for char in text)


def _places(text: str, node: Scalar) -> list[int] | None:
    """Return the offset in the file of each non-blank character of a text, or None if uncertain."""
    found = [(char, at) for char, at in _characters(text, node) if char not in _BLANK]
    same = [char for char, _ in found] == [char for char in str(node.value) if char not in _BLANK]
    return [at for _, at in found] if same else None


def _characters(text: str, node: Scalar) -> list[tuple[str, int]]:
    """Return the characters that a scalar's source stands for, each with its offset in the file."""
    match node.style:
        case "|" | ">":
            head = _LINE_END.search(text, node.start, node.end)
            start = head.end() if head else node.end
            return [(text[at], at) for at in range(start, node.end)]
        case "'":
            inner = text[node.start + 1 : node.end - 1]
            doubled = {found.end() - 1 for found in re.finditer("''", inner)}
            return [(char, node.start + 1 + at) for at, char in enumerate(inner) if at not in doubled]
        case '"':
            return _unescaped(text, node.start + 1, node.end - 1)
        case _:
            return [(text[at], at) for at in range(node.start, node.end)]


def _unescaped(text: str, start: int, end: int) -> list[tuple[str, int]]:
    """Return the characters of a double-quoted text; an escape has the offset of its backslash."""
    found, at = [], start
    while at < end:
        escape = _ESCAPE.match(text, at, end)
        if escape is None:
            found.append((text[at], at))
            at += 1
            continue
        digits = escape[1] or escape[2] or escape[3]
        char = chr(int(digits, 16)) if digits else _SHORT_ESCAPES.get(escape[0][1], escape[0][1])
        found.append((char, at))
        at = escape.end()
    return found
