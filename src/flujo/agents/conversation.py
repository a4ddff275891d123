"""The messages of a conversation with a model, as pydantic-ai holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from pydantic_ai.messages import ModelMessage


def before_the_cut(conversation: list[ModelMessage]) -> list[ModelMessage]:
    """Return a conversation without its cut answer, which a stream has put there and a body has not."""
    is_there = isinstance(conversation[-1], ModelResponse)
    return sendable(conversation[:-1] if is_there else conversation)


def sendable(conversation: list[ModelMessage]) -> list[ModelMessage]:
    """Return a conversation with U+FFFD for each half of a surrogate pair, which cannot be sent."""
    for message in conversation:
        for part in message.parts if isinstance(message, ModelResponse) else ():
            if isinstance(part, TextPart):
                part.content = part.content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return conversation


def text_to(
    on_text: Callable[[str], Awaitable[None]],
) -> Callable[[Any, AsyncIterable[Any]], Awaitable[None]]:
    """Return an event handler for pydantic-ai that forwards each piece of text."""

    async def handle(_: Any, events: AsyncIterable[Any]) -> None:
        async for event in events:
            match event:
                case (
                    PartStartEvent(part=TextPart(content=text))
                    | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                ) if text:
                    await on_text(text)
                case _:
                    pass

    return handle
