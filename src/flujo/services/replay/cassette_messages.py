"""Messages of a conversation as a cassette has them, and back: texts, results, calls; the rest as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.agents.messages import calls_in, from_model, text_in
from flujo.domain.conversations import ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.conversations import Message
    from flujo.services.replay.cassette import Part

_OF_RESULT = ("tool-return", "retry-prompt")


def sent(messages: Sequence[Message]) -> tuple[Part, ...]:
    """Return what requests say to a model, without ids and times."""
    return tuple(_sent(part) for message in messages for part in message["parts"])


def _sent(part: Mapping[str, Any]) -> Part:
    if part["part_kind"] == "user-prompt":
        return {"user": part["content"]}
    if part["part_kind"] in _OF_RESULT and part.get("tool_name"):
        return {"result": part["tool_name"], "content": part["content"]}
    return {
        "message": {key: value for key, value in part.items() if key not in ("tool_call_id", "timestamp")}
    }


def answered(message: Message) -> tuple[Part, ...]:
    """Return what a response says: its text, and its tool calls; not its reasoning."""
    text = text_in(message)
    calls = [{"call": call.name, "arguments": call.arguments} for call in calls_in(message)]
    return (*([{"text": text}] if text or not calls else []), *calls)


def response(answer: Sequence[Part], number: int, model: str | None) -> Message:
    """Return the response that a cassette has recorded, as number `number` of its conversation."""
    text = "".join(part["text"] for part in answer if "text" in part)
    calls = [
        ToolCall(part["call"], part.get("arguments", {}), f"call_{number}_{place}")
        for place, part in enumerate(each for each in answer if "call" in each)
    ]
    return from_model(text, calls, model=model)


def split(messages: Sequence[Message]) -> Iterator[tuple[Sequence[Message], Message]]:
    """Yield each response of a conversation, with the requests since the one before."""
    unanswered: list[Message] = []
    for message in messages:
        if message["kind"] == "response":
            yield unanswered, message
            unanswered = []
        else:
            unanswered.append(message)


def shown(instructions: str | None, parts: Sequence[Part]) -> list[str]:
    """Return a prompt as lines, for a comparison."""
    lines = [f"[instructions] {line}" for line in (instructions or "").splitlines()]
    for part in parts:
        if "user" in part:
            said = part["user"] if isinstance(part["user"], list) else [part["user"]]
            lines += [f"[user] {line}" for each in said for line in str(each).splitlines() or [""]]
        elif "result" in part:
            lines.append(f"[result of {part['result']}] {part['content']}")
        else:
            lines.append(f"[message] {part}")
    return lines
