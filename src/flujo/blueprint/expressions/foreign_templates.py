"""Finds the placeholders of other languages in a text: `${{ x }}`, `${x}`, `{x}`.

They are text for Flujo, and a text may really contain them, so each is a warning. `{x}` is one only if `x` is
a name here, because prompts often contain JSON.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from flujo.blueprint.expressions.error_messages import Problem
from flujo.blueprint.schemas.shapes import NoField, follow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.blueprint.expressions.templates import Piece
    from flujo.blueprint.schemas.shapes import Shape

_PLACEHOLDER = re.compile(r"(?P<dollar>\$)?\{\s*(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}")
_LITERALLY = 'if the text means it, write `{{ "%s" }}` in its place'


def foreign(pieces: Sequence[Piece], scope: Shape, values: Mapping[Piece, Shape]) -> Iterator[Problem]:
    """Yield the placeholders of other languages in a text.

    Args:
        pieces: the pieces of the text.
        scope: the names that its expressions see.
        values: the values of its expressions; a `$` before a number is a currency.
    """
    for before, piece in pairwise(pieces):
        is_amount = values.get(piece) is not None and values[piece].kind in ("integer", "number")
        if piece.code and not before.code and before.source.endswith("$") and not is_amount:
            hint = f"remove the `$`; {_LITERALLY % '$'}"
            message = "the `$` before `{{ … }}` stays in the text"
            yield Problem(message, hint, piece.start - 3, piece.start, "warning", "foreign-template")
    for piece in pieces:
        if not piece.code:
            yield from _placeholders(piece, scope)


def _placeholders(piece: Piece, scope: Shape) -> Iterator[Problem]:
    for match in _PLACEHOLDER.finditer(piece.source):
        name, said = match["name"], match.group()
        meant = _meant(name, scope)
        if match["dollar"] is None and meant is None:
            continue
        hint = (
            f"did you mean `{{{{ {meant} }}}}`?"
            if meant
            else "write `{{ … }}`, for instance `{{ input.NAME }}`"
        )
        yield Problem(
            f"`{said}` is not replaced: it stays in the text",
            f"{hint} {_LITERALLY % said}",
            piece.start + match.start(),
            piece.start + match.end(),
            "warning",
            "foreign-template",
        )


def _meant(name: str, scope: Shape) -> str | None:
    """Return the expression that probably is meant by a name, or None."""
    chain = tuple(name.split("."))
    steps = follow(scope, ("steps", chain[0]))
    if not isinstance(steps, NoField) and steps.missing is None and steps.end.kind is not None:
        return (
            f"steps.{name}"
            if chain[1:2] == ("output",)
            else ".".join(("steps", chain[0], "output", *chain[1:]))
        )
    for before in ((), ("input",), ("context",)):
        root = ((scope.schema or {}).get("properties") or {}).keys()
        if not before and chain[0] not in root:
            continue
        found = follow(scope, (*before, *chain))
        if not isinstance(found, NoField) and found.end.kind is not None:
            return ".".join((*before, *chain))
    return None
