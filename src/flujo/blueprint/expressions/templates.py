"""Scans texts for `{{ … }}`, aware of CEL's literals, maps and comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from flujo.blueprint.expressions.cel_lexicon import MAX_SOURCE, TOKEN
from flujo.blueprint.expressions.error_messages import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_JINJA = re.compile(
    r"\{%-?\s*(for|if|elif|else|endfor|endif|set|block|include|extends|macro|raw)\b[^%]*(?:%\})?"
)
_JINJA_HINT = (
    "use a `conditional` or `loop` step, or an expression: "
    '`{{ items.map(item, "- " + item.title).join("\\n") }}`, `{{ condition ? "one" : "other" }}`'
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text: literal, or the inside of one `{{ … }}`. `start` is its offset in the text."""

    source: str
    start: int
    code: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """The pieces of a text, and findings about its braces."""

    pieces: tuple[Piece, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def single(self) -> Piece | None:
        """The expression of a text that is only one `{{ … }}` and white space, otherwise None."""
        said = [piece for piece in self.pieces if piece.code or piece.source.strip()]
        return said[0] if len(said) == 1 and said[0].code else None


@lru_cache(maxsize=4096)
def scan(text: str) -> Scan:
    """Return the pieces of a text. Never raises; a text without `{{` is one literal piece."""
    pieces: list[Piece] = []
    problems: list[Problem] = []
    at = 0
    while (start := text.find("{{", at)) >= 0:
        end = _end(text, start + 2)
        if end is None:
            problems.append(_unclosed(text, start))
            break
        pieces += [Piece(text[at:start], at), Piece(text[start + 2 : end], start + 2, code=True)]
        if not pieces[-1].source.strip():
            hint = 'put a name or an expression between the braces, or write `{{ "{{" }}` for literal braces'
            problems.append(Problem("`{{ }}` is empty", hint, start, end + 2, slug="empty-expression"))
        at = end + 2
    pieces.append(Piece(text[at:], at))
    kept = tuple(piece for piece in pieces if piece.code or piece.source)
    return Scan(kept, (*problems, *_look_alikes(kept)))


def _end(text: str, start: int) -> int | None:
    """Return the offset of the `}}` that closes the expression at `start`."""
    depth = 0
    # Expressions have a maximum length, so the search for an unclosed brace is bounded too.
    for token in TOKEN.finditer(text, start, start + 4 * MAX_SOURCE):
        match token.group():
            case "{":
                depth += 1
            case "}" if depth:
                depth -= 1
            case "}":
                return token.start() if text.startswith("}}", token.start()) else None
            case _:
                continue
    return None


def _unclosed(text: str, start: int) -> Problem:
    line = text.find("\n", start)
    end = len(text) if line < 0 else line
    return Problem(
        "this `{{` is never closed",
        'end it with `}}` (outside quotes and `//` comments); write `{{ "{{" }}` for literal braces, '
        "or set `template: false` for the whole text",
        start,
        min(end, start + 80),
        slug="unclosed-braces",
    )


def unwrap(source: str) -> tuple[Piece, Problem | None]:
    """Return the expression of a logic key: bare, or all of it in one `{{ … }}`."""
    if not source.lstrip().startswith("{{"):
        return Piece(source, 0, code=True), None
    found = scan(source)
    if found.single:
        return found.single, None
    hint = "write it bare, or all of it in one `{{ … }}`"
    mixed = Problem("this key takes one expression, not a text", hint, 0, len(source))
    return Piece(source, 0, code=True), next(iter(found.problems), mixed)


def _look_alikes(pieces: tuple[Piece, ...]) -> Iterator[Problem]:
    """Yield findings about other template syntax and stray braces in the literal pieces."""
    depth = 0
    for piece in pieces:
        if piece.code:
            continue
        for match in _JINJA.finditer(piece.source):
            start, end = piece.start + match.start(), piece.start + match.end()
            yield Problem(
                "template logic is not supported in a text", _JINJA_HINT, start, end, slug="logic-in-text"
            )
        for brace in re.finditer(r"[{}]+", piece.source):
            depth += brace.group().count("{") - brace.group().count("}")
            # JSON in a prompt may end with `}}`; only unmatched braces are a finding.
            if depth < 0 and "}}" in brace.group():
                start, end = piece.start + brace.start(), piece.start + brace.end()
                hint = "write `{{` before it, or keep it if the braces are meant literally"
                yield Problem("this `}}` closes nothing", hint, start, end, "warning", "stray-braces")
            depth = max(depth, 0)
