"""The wire formats of four providers' APIs: the body of a response, and the events of a streamed one.

`FORMATS` has one entry per API. Each writes the same `Response` in its own way: a refusal of OpenAI is a content
part, that of Anthropic is a stop reason, and Google blocks the prompt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agents.provider_server import Response

Event = tuple[str | None, Any]
"""The name of an event, and its data: JSON, or text that is sent unchanged."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one API writes a response, its events, and an error."""

    body: Callable[[Response, Mapping[str, Any]], Any]
    events: Callable[[Response, Mapping[str, Any]], Iterator[Event]]
    error: Callable[[int, str], Any]
    error_event: Callable[[int, str], Event]


def pieces(text: str) -> list[str]:
    """Return a text in the pieces that a stream sends."""
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def _arguments(arguments: Any) -> str:
    """Return the arguments of a tool call as text; a text is sent as it is, also when it is not JSON."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


# OpenAI chat completions ---------------------------------------------------------------------------------


def _chat(response: Response, _: Mapping[str, Any]) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": response.text}
    finish = "stop"
    if response.kind == "refusal":
        message |= {"content": None, "refusal": response.text or "I cannot help with that."}
    elif response.kind == "content_filter":
        message["content"], finish = "", "content_filter"
    elif response.kind == "length" and response.tool_call is None:
        finish = "length"
    elif response.tool_call is not None:
        calls = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": _arguments(arguments)},
            }
            for number, (name, arguments) in enumerate((response.tool_call, *response.more_calls), 1)
        ]
        message |= {"content": None, "tool_calls": calls}
        finish = "length" if response.kind == "length" else "tool_calls"
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    asked, answered = response.tokens
    usage = {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": response.cached},
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": response.model or "gpt-4o-mini-2024-07-18",
        "choices": [] if response.kind == "empty" else choices,
    } | response.reported("usage", usage)


def _chat_events(response: Response, request: Mapping[str, Any]) -> Iterator[Event]:
    whole = _chat(response, request)
    chunk = {**whole, "object": "chat.completion.chunk", "usage": None}

    def event(delta: Mapping[str, Any], finish: str | None = None) -> Event:
        return None, {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    for choice in whole["choices"]:
        message = choice["message"]
        yield event({"role": "assistant", "content": ""})
        for index, call in enumerate(message.get("tool_calls", ())):
            yield event({"tool_calls": [{"index": index, **call}]})
        for piece in pieces(message.get("refusal") or ""):
            yield event({"refusal": piece})
        for piece in pieces(message["content"] or ""):
            yield event({"content": piece})
        yield event({}, choice["finish_reason"])
    if "usage" in whole:
        yield None, {**chunk, "choices": [], "usage": whole["usage"]}
    yield None, "[DONE]"


def _openai_error(status: int, message: str) -> Any:
    kind = {429: "rate_limit_exceeded", 500: "server_error"}.get(status, "error")
    return {"error": {"message": message, "type": kind, "code": kind, "param": None}}


def _chat_error_event(status: int, message: str) -> Event:
    return None, _openai_error(status, message)


# OpenAI responses ----------------------------------------------------------------------------------------


def _responses(response: Response, _: Mapping[str, Any]) -> Any:
    content: dict[str, Any] = {"type": "output_text", "text": response.text, "annotations": []}
    if response.kind == "refusal":
        content = {"type": "refusal", "refusal": response.text or "I cannot help with that."}
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [] if response.kind == "content_filter" else [content],
    }
    if response.tool_call is not None:
        name, arguments = response.tool_call
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": name,
            "arguments": _arguments(arguments),
            "status": "completed",
        }
    cut = {"content_filter": "content_filter", "length": "max_output_tokens"}.get(response.kind)
    asked, answered = response.tokens
    usage = {
        "input_tokens": asked,
        "output_tokens": answered,
        "total_tokens": 1100,
        "input_tokens_details": {"cached_tokens": response.cached},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "model": response.model or "gpt-4o-mini-2024-07-18",
        "output": [] if response.kind == "empty" else [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    } | response.reported("usage", usage)


def _responses_events(response: Response, request: Mapping[str, Any]) -> Iterator[Event]:
    whole = _responses(response, request)
    number = -1

    def event(kind: str, **more: Any) -> Event:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number, **more}

    begun = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for item in whole["output"]:
        at = {"output_index": 0, "item_id": item["id"]}
        blank: dict[str, Any] = {"arguments": ""} if "arguments" in item else {"content": []}
        empty = {**item, "status": "in_progress"} | blank
        yield event("response.output_item.added", output_index=0, item=empty)
        if "arguments" in item:
            for piece in pieces(item["arguments"]):
                yield event("response.function_call_arguments.delta", **at, delta=piece)
            yield event(
                "response.function_call_arguments.done",
                **at,
                name=item["name"],
                arguments=item["arguments"],
            )
        for content in item.get("content", ()):
            field = "text" if "text" in content else "refusal"
            kind, inside = ("output_text" if field == "text" else "refusal"), {**at, "content_index": 0}
            more: dict[str, Any] = {"logprobs": []} if field == "text" else {}
            yield event("response.content_part.added", **inside, part={**content, field: ""})
            for piece in pieces(content[field]):
                yield event(f"response.{kind}.delta", **inside, delta=piece, **more)
            yield event(f"response.{kind}.done", **inside, **{field: content[field]}, **more)
            yield event("response.content_part.done", **inside, part=content)
        yield event("response.output_item.done", output_index=0, item=item)
    yield event(f"response.{whole['status']}", response=whole)


def _responses_error_event(status: int, message: str) -> Event:
    error = _openai_error(status, message)["error"]
    return "error", {**error, "type": "error", "sequence_number": 9}


# Anthropic messages --------------------------------------------------------------------------------------


def _anthropic(response: Response, request: Mapping[str, Any]) -> Any:
    content: list[dict[str, Any]] = [{"type": "text", "text": response.text}] if response.text else []
    stop = {"length": "max_tokens", "refusal": "refusal", "content_filter": "refusal"}.get(
        response.kind, "end_turn"
    )
    if response.kind in ("refusal", "content_filter", "empty"):
        content = []
    elif response.tool_call is not None:
        name, arguments = response.tool_call
        # The whole body holds an object: broken text is only possible in the pieces of a stream.
        whole = {"": arguments} if isinstance(arguments, str) else arguments
        content = [{"type": "tool_use", "id": "toolu_1", "name": name, "input": whole}]
        stop = "tool_use"
    asked, answered = response.tokens
    usage = {
        "input_tokens": asked - response.cached if isinstance(asked, int) else asked,
        "cache_read_input_tokens": response.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": answered,
    }
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": response.model or request.get("model"),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    } | response.reported("usage", usage)


def _anthropic_events(response: Response, request: Mapping[str, Any]) -> Iterator[Event]:
    def event(kind: str, **more: Any) -> Event:
        return kind, {"type": kind, **more}

    whole = _anthropic(response, request)
    begun = {**whole, "content": [], "stop_reason": None}
    if isinstance(whole.get("usage"), dict):
        begun["usage"] = {**whole["usage"], "output_tokens": 1}
    yield event("message_start", message=begun)
    yield event("ping")
    for block in whole["content"]:
        if block["type"] == "text":
            empty, text, kind, field = {**block, "text": ""}, block["text"], "text_delta", "text"
        else:
            sent = response.tool_call[1] if response.tool_call else None
            empty, text = {**block, "input": {}}, _arguments(sent)
            kind, field = "input_json_delta", "partial_json"
        yield event("content_block_start", index=0, content_block=empty)
        for piece in pieces(text):
            yield event("content_block_delta", index=0, delta={"type": kind, field: piece})
        yield event("content_block_stop", index=0)
    ended = {"delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}}
    yield event("message_delta", **ended, **({"usage": whole["usage"]} if "usage" in whole else {}))
    yield event("message_stop")


def _anthropic_error(status: int, message: str) -> Any:
    kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
    kinds |= {429: "rate_limit_error", 529: "overloaded_error"}
    return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}


def _anthropic_error_event(status: int, message: str) -> Event:
    return "error", _anthropic_error(status, message)


# Google generateContent ----------------------------------------------------------------------------------


def _google(response: Response, request: Mapping[str, Any]) -> Any:
    parts: list[dict[str, Any]] = [{"text": response.text}]
    if response.tool_call is not None:
        name, arguments = response.tool_call
        parts = [
            {
                "functionCall": {
                    "name": name,
                    "args": {"": arguments} if isinstance(arguments, str) else arguments,
                }
            }
        ]
    finish = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(response.kind, "STOP")
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "finishReason": finish}
    if response.kind == "content_filter":
        del candidate["content"]
    asked, answered = response.tokens
    usage = {"promptTokenCount": asked, "candidatesTokenCount": answered, "totalTokenCount": 1100}
    if response.cached:
        usage["cachedContentTokenCount"] = response.cached
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}} if response.kind == "refusal" else {}
    return {
        "candidates": [] if response.kind in ("empty", "refusal") else [{**candidate, "index": 0}],
        "modelVersion": response.model or request.get("model"),
        "responseId": "r1",
        **blocked,
    } | response.reported("usageMetadata", usage)


def _google_events(response: Response, request: Mapping[str, Any]) -> Iterator[Event]:
    whole = _google(response, request)
    if whole["candidates"] and response.kind != "content_filter" and response.tool_call is None:
        for piece in pieces(response.text):
            content = {"role": "model", "parts": [{"text": piece}]}
            part = {**whole, "candidates": [{"content": content, "index": 0}]}
            part.pop("usageMetadata", None)
            yield None, part
        whole["candidates"][0]["content"]["parts"] = [{"text": ""}]
    yield None, whole


def _google_error(status: int, message: str) -> Any:
    kinds = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
    return {"error": {"code": status, "message": message, "status": kinds.get(status, "INTERNAL")}}


def _google_error_event(status: int, message: str) -> Event:
    return None, _google_error(status, message)


FORMATS: Mapping[str, Format] = {
    "openai-chat": Format(_chat, _chat_events, _openai_error, _chat_error_event),
    "openai-responses": Format(_responses, _responses_events, _openai_error, _responses_error_event),
    "anthropic": Format(_anthropic, _anthropic_events, _anthropic_error, _anthropic_error_event),
    "google": Format(_google, _google_events, _google_error, _google_error_event),
}
"""API → its format."""
