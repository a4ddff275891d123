"""Messages of a conversation as JSON data, in pydantic-ai's form: what Flujo writes, and what it reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.conversations import Message, ToolCall, ToolResult
from flujo.exceptions import NotJournalable
from flujo.json_schema import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.files import File
    from flujo.domain.threads import Exchange

_OUTCOMES = {
    "result": "success",
    "retry": "retried",
    "error": "failed",
    "refused": "failed",
    "denied": "failed",
}
_CHANGED = {"changed": True}
"""Marks a response whose text had characters that the journal cannot hold; it is not a valid answer."""


class MessageWriter:
    """What Flujo says in a conversation, in the same words for every agent: the base of the sessions."""

    files: Sequence[File] = ()
    """The files that are sent with the first message."""

    def prompt(self, data: Any) -> Message:
        """Return the first message: text unchanged, anything else as compact JSON."""
        text = data if isinstance(data, str) else canonical.encode(data, what="the prompt").decode()
        return from_user(text, self.files)

    def results(self, answers: Sequence[tuple[ToolCall, ToolResult]]) -> Message:
        """Return the message with the results of tool calls, in the order of the calls."""
        parts = [
            {
                "part_kind": "tool-return",
                "tool_name": call.name,
                "tool_call_id": call.call_id,
                "content": result.content,
                "outcome": _OUTCOMES[result.outcome],
            }
            for call, result in answers
        ]
        return {"kind": "request", "parts": parts}

    def again(self, reason: str) -> Message:
        """Return the message that rejects an answer."""
        return from_user(
            f"That answer cannot be used: {reason}. Answer again, with the requested output only."
        )

    def last(self, turns: int) -> Message:
        """Return the message that requests the answer at the limit of turns."""
        return from_user(
            f"All {turns} turns are used, and no tool can be called any more. Give the final answer now, "
            "from what you know."
        )

    def summarise(self) -> Message:
        """Return the message that requests a summary of the conversation."""
        return from_user(
            "Your earlier messages are about to be removed. Summarise the conversation so far in text, "
            "without calling a tool: what the task is, what was found, decided and done, and what is left to "
            "do. Keep names, numbers and ids exact."
        )

    def recap(self, task: Message, summary: str) -> Message:
        """Return the first message with a summary of the turns that are left out after it."""
        (said,) = from_user(f"Summary of the conversation so far:\n{summary}")["parts"]
        return {**task, "parts": [*task["parts"], said]}


def from_user(text: str, files: Sequence[File] = ()) -> Message:
    """Return the message of a user; files are named by their digests."""
    said = clean(text)
    content = [said, *(file.to_message() for file in files)] if files else said
    return {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": content}]}


def from_model(text: str = "", calls: Sequence[ToolCall] = (), *, model: str | None = None) -> Message:
    """Return the response of a model."""
    parts: list[dict[str, Any]] = [{"part_kind": "text", "content": text}] if text else []
    for call in calls:
        part = {"tool_name": call.name, "args": call.arguments, "tool_call_id": call.call_id}
        parts.append({"part_kind": "tool-call", **part})
    return {"kind": "response", "parts": parts, "model_name": model}


def of_thread(history: Sequence[Exchange]) -> list[Message]:
    """Return the messages of a thread as one of its agents sees them.

    Its own exchanges are those of a conversation. The others are messages of a user, under the author's name;
    so no agent takes another's answer, or its tool calls, for its own.
    """
    seen: list[Message] = []
    for each in history:
        if each.is_own:
            given, answer = [each.prompt], [from_model(each.answer)] if each.answer else []
        else:
            given, answer = [f"[user to {each.author}]\n{each.prompt}", f"[{each.author}]\n{each.answer}"], []
        if not seen or seen[-1]["kind"] == "response":
            seen.append({"kind": "request", "parts": []})
        seen[-1]["parts"] += [part for text in given for part in from_user(text)["parts"]]
        seen += answer
    return seen


def calls_in(message: Message) -> tuple[ToolCall, ...]:
    """Return the tool calls of a response, in order."""
    return tuple(
        ToolCall(part["tool_name"], _arguments(part.get("args")), part.get("tool_call_id", ""))
        for part in message["parts"]
        if part["part_kind"] == "tool-call"
    )


def text_in(message: Mapping[str, Any]) -> str:
    """Return the text of a response, without its reasoning."""
    return "".join(part["content"] for part in message["parts"] if part["part_kind"] == "text")


def is_changed(message: Message) -> bool:
    """Return whether the stored text of a response is not the text that the model wrote."""
    return message.get("metadata") == _CHANGED


def storable(message: Mapping[str, Any]) -> Message:
    """Return a response that the journal can hold: without its usage, empty fields, NUL and lone surrogates.

    Arguments with numbers that JSON in the journal cannot hold become text, and are refused like broken ones.
    """
    kept = {key: value for key, value in message.items() if value is not None and key != "usage"}
    stored: dict[str, Any] = clean(kept)
    if text_in(stored) != text_in(message):
        stored["metadata"] = _CHANGED
    stored["parts"] = [
        _storable_part({key: value for key, value in part.items() if value is not None})
        for part in stored["parts"]
    ]
    return stored


def _storable_part(part: dict[str, Any]) -> dict[str, Any]:
    try:
        canonical.encode(part)
    except NotJournalable:
        if "args" not in part:
            raise
        return {**part, "args": json.dumps(part["args"])}
    return part


def clean(value: Any) -> Any:
    """Return JSON data with U+FFFD for each NUL and each half of a surrogate pair in its texts."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
        case dict():
            return {clean(key): clean(each) for key, each in value.items()}
        case list():
            return [clean(each) for each in value]
        case _:
            return value


def _arguments(given: Any) -> Any:
    """Return the arguments of a call as data; a text when they are not JSON that the journal can hold."""
    if not isinstance(given, str):
        return {} if given is None else given
    if not given.strip():
        return {}
    try:
        value = strict_json.loads(given)
        canonical.encode(value)
    except (ValueError, RecursionError, NotJournalable):
        return given
    return value
