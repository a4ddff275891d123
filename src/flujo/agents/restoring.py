"""Replaces the pseudonyms in a response by their values: in text, answers in JSON and arguments of tools.

One that was not sent is left as it is: the model has made it up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flujo.domain.conversations import Message

# Some encoders of JSON write brackets as escapes.
_PSEUDONYM = re.compile(r"(?:<|\\u003[cC])([A-Z_]{2,24}_[a-z]{8})(?:>|\\u003[eE])")
_BEGUN = re.compile(r"(?:<|\\(?:u[0-9a-fA-F]{0,4})?)[A-Za-z_]{0,32}(?:\\(?:u[0-9]{0,3})?)?\Z")


def restored(text: str, sent: Mapping[str, str], *, in_json: bool = False) -> str:
    """Return a text with the values of the pseudonyms in it.

    Args:
        text: the text of a model.
        sent: the values, by their pseudonyms.
        in_json: the text has JSON, so the values are written as in a JSON string.
    """

    def value_of(found: re.Match[str]) -> str:
        value = sent.get(f"<{found[1]}>")
        if value is None:
            return found[0]
        value = restored(value, sent)  # a value may have been found around a pseudonym
        return json.dumps(value, ensure_ascii=False)[1:-1] if in_json else value

    return _PSEUDONYM.sub(value_of, text)


def restored_message(message: Message, sent: Mapping[str, str], *, in_json: bool) -> Message:
    """Return a response with the values of the pseudonyms in it. Reasoning stays: its provider has signed it.

    Args:
        message: the response.
        sent: the values, by their pseudonyms.
        in_json: its text has JSON.
    """
    return {**message, "parts": [_part(part, sent, in_json=in_json) for part in message["parts"]]}


def _part(part: dict[str, Any], sent: Mapping[str, str], *, in_json: bool) -> dict[str, Any]:
    match part:
        case {"part_kind": "text", "content": str(text)}:
            return {**part, "content": restored(text, sent, in_json=in_json)}
        case {"part_kind": "tool-call", "args": str(text)}:
            return {**part, "args": restored(text, sent, in_json=True)}
        case {"part_kind": "tool-call", "args": data}:
            return {**part, "args": _data(data, sent)}
        case _:
            return part


def _data(data: Any, sent: Mapping[str, str]) -> Any:
    match data:
        case str():
            return restored(data, sent)
        case dict():
            return {restored(name, sent): _data(each, sent) for name, each in data.items()}
        case list():
            return [_data(each, sent) for each in data]
        case _:
            return data


@dataclass(slots=True)
class RestoredStream:
    """Forwards a text in pieces, with values in place of pseudonyms; waits for the rest of a begun one."""

    forward: Callable[[str], Awaitable[None]]
    sent: Mapping[str, str]
    in_json: bool
    _held: str = ""

    async def more(self, piece: str) -> None:
        """Take the next piece."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        end = len(text) if begun is None else begun.start()
        self._held = text[end:]
        await self._forward(text[:end])

    async def end(self) -> None:
        """Forward what was held back."""
        text, self._held = self._held, ""
        await self._forward(text)

    async def _forward(self, text: str) -> None:
        if text:
            await self.forward(restored(text, self.sent, in_json=self.in_json))
