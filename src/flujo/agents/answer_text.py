"""Finds the values in the text of an answer: outside its reasoning, after its last correction.

The text is read once, from the left. A value starts at the first bracket and ends where that bracket is
closed; nothing inside it is a value of its own, also if it is broken. Blocks such as `<think>…</think>` are
reasoning, and so is all text before a closing tag without an opening one; tags inside a JSON text are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from flujo.json_schema import strict_json

MAX_PIECES = 50
"""How many values of one answer are compared."""

_NAMES = "think|thinking|thought|reasoning|reflection|scratchpad|analysis"
_TAG = rf"</?(?:{_NAMES})\s*>|\[/?THINK\]|◁/?think▷"
_TOKEN = re.compile(rf"(?P<tag>{_TAG})|[{{}}\[\]]", re.IGNORECASE)
_OF_REGION = re.compile(rf'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|(?P<tag>{_TAG})|[{{}}\[\]]', re.IGNORECASE | re.DOTALL)
_THINKING = r"</?think(?:ing)?\s*>"
_LEADING = re.compile(rf"\s*(?P<tag>{_THINKING})", re.IGNORECASE)
_LONE = re.compile(rf"^[ \t]*(?P<tag>{_THINKING})[ \t]*$", re.IGNORECASE | re.MULTILINE)
_SECOND_THOUGHTS = (
    r"\b(?:on second thought|scratch that|my mistake|i meant)\b|(?:^|[.!?:;\n*-])\s*(?:wait|actually|oops)\b"
)
_NEW_VERSION = r"\b(?:corrected|correction|revised|revision|final (?:answer|version|json|result))\b"
_WITHDRAWN = re.compile(rf"{_SECOND_THOUGHTS}|{_NEW_VERSION}[^.!?\n]*:", re.IGNORECASE)
"""A correction at the end of an answer: a remark on a final version announces none."""
_REPLACED = re.compile(rf"{_SECOND_THOUGHTS}|{_NEW_VERSION}", re.IGNORECASE)
_CLOSING = {"{": "}", "[": "]"}
_FENCE_END = re.compile(r"\n?[ \t]*```\s*\Z")

NO_VALUE: Any = object()


@dataclass(frozen=True, slots=True)
class Piece:
    """One value of an answer."""

    text: str
    value: Any = NO_VALUE
    """The value, or NO_VALUE if its JSON is broken."""
    is_complete: bool = True
    """Whether its first bracket is closed."""

    @property
    def looks_like_json(self) -> bool:
        """Whether broken JSON was meant as a value: `{name}` in prose was not."""
        return not self.is_complete or '"' in self.text or (self.text[0] == "{" and ":" in self.text)


@dataclass
class Answer:
    """The parts of an answer's text."""

    pieces: list[Piece] = field(default_factory=list)
    prose: str = ""
    """The text outside of values and reasoning."""
    has_reasoning: bool = False
    problem: str | None = None
    """Why none of the values can be the answer."""


def take_apart(text: str) -> Answer:
    """Return the values of an answer, and what surrounds them."""
    answer, at, said = Answer(), 0, 0
    while (token := _TOKEN.search(text, at)) is not None and len(answer.pieces) <= MAX_PIECES:
        sign, start = token[0], token.start()
        if token["tag"]:
            answer.has_reasoning = True
            if "/" in sign:
                answer.pieces, answer.prose, answer.problem = [], "", None
                said = at = token.end()
                continue
            _pass_prose(answer, text[said:start])
            close = _closing(sign).search(text, start)
            if close is None:
                answer.problem = "its reasoning does not end"
                return answer
            said = at = close.end()
        elif sign in "}]":
            answer.problem = "it has a closing bracket without an opening one"
            at = token.end()
        else:
            at = _take(answer, text, said, start)
            said = at
    if len(answer.pieces) > MAX_PIECES:
        answer.problem = f"it has more than {MAX_PIECES} values"
    _pass_prose(answer, text[said:], is_last=True)
    return answer


def _take(answer: Answer, text: str, said: int, start: int) -> int:
    """Add the value that starts at a bracket; return where reading continues."""
    try:
        value, end = strict_json.DECODER.raw_decode(text, start)
        piece = Piece(text[start:end], value)
    except (ValueError, RecursionError):
        end, is_complete, tag_end = _region(text, start)
        if tag_end is not None:
            answer.pieces, answer.prose, answer.problem, answer.has_reasoning = [], "", None, True
            return tag_end
        piece = Piece(text[start:end], is_complete=is_complete)
    _pass_prose(answer, text[said:start])
    if re.search(r"""["'”]\s*:\s*\Z""", text[said:start]) or re.match(r"\s*,\s*[\"'{\[]", text[end:]):
        answer.problem = "its values are parts of a value that has no brackets"
    answer.pieces.append(piece)
    return end


def _region(text: str, start: int) -> tuple[int, bool, int | None]:
    """Return the end of broken JSON, whether it is closed, and the end of a closing tag that cuts it off."""
    open_ones: list[str] = []
    for token in _OF_REGION.finditer(text, start):
        sign = token[0]
        if sign in _CLOSING:
            open_ones.append(_CLOSING[sign])
        elif token["tag"]:
            if "/" in sign:
                return token.end(), False, token.end()
        elif sign in open_ones:  # brackets inside that were not closed end here too
            del open_ones[len(open_ones) - 1 - open_ones[::-1].index(sign) :]
            if not open_ones:
                return token.end(), True, None
    return len(text), False, None


def _pass_prose(answer: Answer, prose: str, *, is_last: bool = False) -> None:
    """Keep the text between two values; a correction in it withdraws the values before."""
    answer.prose += prose
    if answer.pieces and is_last and _WITHDRAWN.search(prose):
        answer.problem = "it corrects its value without a new one"
    elif answer.pieces and not is_last and _REPLACED.search(prose):
        answer.pieces, answer.problem = [], None


def _closing(tag: str) -> re.Pattern[str]:
    """Return the pattern of the tag that closes an opening one."""
    return re.compile(rf"{re.escape(f'{tag[0]}/{tag[1:-1].rstrip()}')}\s*{re.escape(tag[-1])}", re.IGNORECASE)


def without_reasoning(text: str) -> str | None:
    """Return a text answer without the reasoning before it, or None if it is nothing but reasoning.

    Only blocks at the start count, and a closing tag that has a line of its own: a text may be about tags.
    """
    while (leading := _LEADING.match(text)) is not None and not leading["tag"].startswith("</"):
        close = _closing(leading["tag"]).search(text, leading.end())
        if close is None:
            return None
        text = text[close.end() :].lstrip()
    lone = _LONE.search(text)
    if lone is not None and lone["tag"].startswith("</"):
        text = text[lone.end() :].lstrip()
    return text


def closed_by_fence(piece: Piece) -> str | None:
    """Return the text of a value that lacks only its last bracket, or None if it may lack more.

    The fence shows that the model ended its answer. A nested value of the same kind makes it uncertain which
    bracket is missing.
    """
    body = _FENCE_END.sub("", piece.text)
    signs = re.sub(r'"(?:[^"\\]|\\.)*"', "", body, flags=re.DOTALL)
    opened, closed = (sum(map(signs.count, brackets)) for brackets in ("{[", "}]"))
    is_certain = body != piece.text and signs.count(body[0]) == 1 and opened == closed + 1
    return body + _CLOSING[body[0]] if is_certain else None
