"""Files that steps send to models: their types by content, their limits, and how they are shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from posixpath import splitext
from typing import Any

from flujo.domain import canonical
from flujo.domain.fast_dataclass import record
from flujo.domain.wording import size
from flujo.exceptions import FileRefused

MOST_BYTES = 20 * 1024 * 1024
"""The maximum size of all files of a step together."""

Contents = Callable[[Collection[str]], Awaitable[Mapping[str, bytes]]]
"""Returns the bytes of a run's files, by their digests."""

_TEXTS = {
    ".csv": "text/csv",
    ".htm": "text/html",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_OTHERS = {
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".wav": "audio/wav",
    ".webp": "image/webp",
}
MEDIA_TYPES = tuple(sorted({*_TEXTS.values(), *_OTHERS.values()}))
"""The types of files that are known by their content."""
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


@record(frozen=True, slots=True)
class File:
    """A file that a step sends; the run keeps its bytes under their digest."""

    name: str
    """Its path or key, for display."""
    media_type: str
    size: int
    """In bytes."""
    sha256: str

    @classmethod
    def of(cls, name: str, data: bytes) -> File:
        """Return the file with these bytes.

        Raises:
            FileRefused: it is empty, or its type is none that is sent, or not that of its name.
        """
        return cls(name, _media_type(name, data), len(data), canonical.digest(data))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> File:
        """Return a recorded file."""
        return cls(data["name"], data["media_type"], data["size"], data["sha256"])

    @classmethod
    def of_message(cls, part: Mapping[str, Any]) -> File:
        """Return the file of a part of a recorded message."""
        facts = part.get("vendor_metadata") or {}
        return cls(part["identifier"], part["media_type"], facts.get("size", 0), facts.get("sha256", ""))

    def to_message(self) -> dict[str, Any]:
        """Return it as a part of a message, in pydantic-ai's form without the bytes."""
        return {
            "kind": "binary",
            "media_type": self.media_type,
            "data": "",
            "identifier": self.name,
            "vendor_metadata": {"sha256": self.sha256, "size": self.size},
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "name": self.name, "media_type": self.media_type, "size": self.size, "sha256": self.sha256
        }  # fmt: skip

    @property
    def is_text(self) -> bool:
        """Whether it is a text, which any model takes."""
        return self.media_type in _TEXTS.values()

    def __str__(self) -> str:
        """Return the file for display: `scan.png (image/png, 11.8 KiB, sha256:0f4a…)`."""
        return f"{self.name} ({self.media_type}, {size(self.size)}, sha256:{self.sha256[:12]}…)"


def _media_type(name: str, data: bytes) -> str:
    """Return the type of a file by its content; its name decides between the types of texts only."""
    suffix = splitext(name)[1].lower()
    if not data:
        raise FileRefused(f"file {name!r} is empty", hint="send a file with content", file=name)
    found = _binary(data) or (_TEXTS.get(suffix, "text/plain") if _is_text(data) else None)
    if found is None:
        raise FileRefused(
            f"file {name!r} is not of a type that is sent to models, by its content",
            hint="send PNG, JPEG, GIF, WebP, PDF, WAV, MP3, Ogg, FLAC, or text in UTF-8",
            file=name,
        )
    named = _TEXTS.get(suffix) or _OTHERS.get(suffix)
    if named not in (None, found):
        raise FileRefused(
            f"file {name!r} is {found} by its content, and its name says {named}",
            hint="give the file the suffix of its type, or send the file that you mean",
            file=name,
        )
    return found


def _binary(data: bytes) -> str | None:
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:  # a frame of MPEG audio, layer III
        return "audio/mpeg"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _is_text(data: bytes) -> bool:
    try:
        return b"\0" not in data and bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False
