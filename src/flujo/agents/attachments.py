"""Files in messages: recorded by digest, and sent as pydantic-ai's binary parts where the model takes them.

A recorded message has `{"kind": "binary", "data": "", "identifier": NAME, …}` with the digest and the size in
`vendor_metadata`. It is pydantic-ai's own form without the bytes, which are filled in for each request.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import BinaryContent, ModelRequest, UserPromptPart

from flujo.domain.files import File
from flujo.exceptions import FileNotTaken, FileRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model

    from flujo.agents.outgoing import Door
    from flujo.domain.files import Contents

_PLAIN = "text/plain"
_IMAGE_TOKENS = 5_000
_OF_OLD_IMAGES = 50_000
"""The tokens of an image for models of the family of gpt-4o-mini, which count it 33 times."""
_PAGE_TOKENS = 8_000
"""Its text and its picture: providers send both."""
_BYTES_OF_A_PAGE = 10_000
"""The size of a page of a PDF that hides its number of pages."""
_BYTES_OF_A_TOKEN_OF_AUDIO = 30
"""32 tokens a second, of a recording of 8 kbit a second."""
_MOST_TOKENS = 1_000_000
"""Of one file: no context window is larger."""
_PAGES = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")


def files_in(messages: Sequence[ModelMessage]) -> Iterator[BinaryContent]:
    """Yield the files of a conversation."""
    for message in messages:
        for part in message.parts if isinstance(message, ModelRequest) else ():
            if isinstance(part, UserPromptPart) and not isinstance(part.content, str):
                yield from (item for item in part.content if isinstance(item, BinaryContent))


async def with_contents(
    messages: Sequence[ModelMessage],
    contents: Contents | None,
    model: Model,
    *,
    door: Door,
) -> list[ModelMessage]:
    """Return the messages with the bytes of their files.

    A text of a type that the model does not know is sent as a plain text. Texts are masked; images, PDF files
    and audio are sent as they are.

    Raises:
        FileRefused: the bytes cannot be read here.
    """
    files = list(files_in(messages))
    if not files:
        return list(messages)
    if contents is None:
        raise FileRefused(f"file {files[0].identifier!r} is of a run, and its bytes cannot be read here")
    data = await contents({_digest(file) for file in files})
    known = model.profile.get("supported_document_media_types")
    return await door.apart(lambda: [_filled(message, data, known, door.text) for message in messages])


def _filled(
    message: ModelMessage, data: Mapping[str, bytes], known: Any, masked: Callable[[str], str]
) -> ModelMessage:
    def filled(item: Any) -> Any:
        if not isinstance(item, BinaryContent):
            return item
        is_plain = _recorded(item).is_text and known is not None and item.media_type not in known
        kind = _PLAIN if is_plain else item.media_type
        content = data[_digest(item)]
        if _recorded(item).is_text:
            text = content.decode("utf-8", "surrogateescape")
            content = masked(text).encode("utf-8", "surrogateescape")
        return BinaryContent(content, media_type=kind, identifier=item.identifier)

    def part_of(part: Any) -> Any:
        has_files = isinstance(part, UserPromptPart) and not isinstance(part.content, str)
        return replace(part, content=[filled(item) for item in part.content]) if has_files else part

    if not isinstance(message, ModelRequest):
        return message
    return replace(message, parts=[part_of(part) for part in message.parts])


def require_taken(messages: Sequence[ModelMessage], model: Model, *, agent: str, asked: str) -> None:
    """Check that a model takes the files of a conversation, before any of it is sent.

    Raises:
        FileNotTaken: it does not take one of them.
    """
    for item in files_in(messages):
        file = _recorded(item)
        if asked.startswith("local:") or not _takes(model, item):
            raise FileNotTaken(
                f"agent {agent!r}: model {asked!r} does not take files of type {file.media_type}: {file}",
                agent=agent,
                model=asked,
                file=file.name,
                media_type=file.media_type,
            )


def _takes(model: Model, item: BinaryContent) -> bool:
    profile = model.profile
    if item.is_image:
        return profile.get("supports_image_input", True)
    if item.is_audio:
        # OpenAI's form of a request has these two only.
        is_known = model.system != "openai" or item.media_type in ("audio/wav", "audio/mpeg")
        return is_known and profile.get("supports_audio_file_input", True)
    if not profile.get("supports_document_input", True):
        return False
    known = profile.get("supported_document_media_types")
    return known is None or item.media_type in known or (_recorded(item).is_text and _PLAIN in known)


def tokens_of(messages: Sequence[ModelMessage], model: str) -> int:
    """Return an estimate of the largest number of tokens of the files of a conversation.

    Providers count differently, and few say how; the usage that a response reports replaces the estimate.
    """
    return sum(min(_tokens(item, model), _MOST_TOKENS) for item in files_in(messages))


def _tokens(item: BinaryContent, model: str) -> int:
    if item.is_image:
        return _OF_OLD_IMAGES if "gpt-4o-mini" in model else _IMAGE_TOKENS
    if item.is_audio:
        return len(item.data) // _BYTES_OF_A_TOKEN_OF_AUDIO
    if item.media_type == "application/pdf":
        pages = len(_PAGES.findall(item.data)) or len(item.data) // _BYTES_OF_A_PAGE + 1
        return pages * _PAGE_TOKENS
    return len(item.data)


def without_files(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Return the messages without their files, to measure the rest."""
    return [
        replace(message, parts=[_without(part) for part in message.parts])
        if isinstance(message, ModelRequest)
        else message
        for message in messages
    ]


def _without(part: Any) -> Any:
    if not isinstance(part, UserPromptPart) or isinstance(part.content, str):
        return part
    return replace(part, content=[item for item in part.content if not isinstance(item, BinaryContent)])


def _recorded(item: BinaryContent) -> File:
    facts = item.vendor_metadata or {}
    return File(item.identifier, item.media_type, facts.get("size", 0), facts.get("sha256", ""))


def _digest(item: BinaryContent) -> str:
    return _recorded(item).sha256
