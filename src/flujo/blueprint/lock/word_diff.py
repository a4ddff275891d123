"""Word diffs of texts, readable without colour."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PIECES = re.compile(r"\s+|\w+|[^\w\s]+")
_AROUND = 6
"""How many words around a change are shown."""


class Piece(NamedTuple):
    """A piece of text: unchanged, removed, added, or omitted because it is unchanged."""

    kind: Literal["same", "removed", "added", "skipped"]
    text: str


def words(before: str, after: str) -> list[Piece]:
    """Return the pieces that turn `before` into `after`, in order."""
    was, now = _PIECES.findall(before), _PIECES.findall(after)
    pieces: list[Piece] = []
    matcher = difflib.SequenceMatcher(None, was, now, autojunk=False)
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(was[start:end])))
            continue
        pieces += [Piece("removed", "".join(was[start:end]))] if end > start else []
        pieces += [Piece("added", "".join(now[new_start:new_end]))] if new_end > new_start else []
    return list(_joined(pieces))


def shortened(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces with only a few unchanged words around each change."""
    for number, piece in enumerate(pieces):
        if piece.kind != "same":
            yield piece
            continue
        parts = _PIECES.findall(piece.text)
        head = 0 if number == 0 else 2 * _AROUND
        tail = 0 if number == len(pieces) - 1 else 2 * _AROUND
        if len(parts) <= head + tail + 2 * _AROUND:
            yield piece
            continue
        yield from (Piece("same", "".join(parts[:head])),) if head else ()
        yield Piece("skipped", "".join(parts[head : len(parts) - tail]))
        yield from (Piece("same", "".join(parts[len(parts) - tail :])),) if tail else ()


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield changes that are separated only by white space as one."""
    waiting: list[Piece] = []
    for number, piece in enumerate(pieces):
        between = piece.kind == "same" and piece.text.isspace() and 0 < number < len(pieces) - 1
        if piece.kind == "same" and not between:
            yield from _flushed(waiting)
            waiting = []
            yield piece
        else:
            waiting.append(piece)
    yield from _flushed(waiting)


def _flushed(waiting: Sequence[Piece]) -> Iterator[Piece]:
    removed = "".join(piece.text for piece in waiting if piece.kind != "added")
    added = "".join(piece.text for piece in waiting if piece.kind != "removed")
    if waiting and waiting[-1].kind == "same":  # white space before unchanged text
        space = waiting[-1].text
        yield from _flushed(waiting[:-1])
        yield Piece("same", space)
        return
    yield from (Piece("removed", removed),) if removed else ()
    yield from (Piece("added", added),) if added else ()
