"""The types of files by their content, and how files are shown."""

from __future__ import annotations

import struct
import zlib

import pytest

from flujo.domain.files import File
from flujo.exceptions import FileRefused


def png(color: int = 0) -> bytes:
    """Return a picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(bytes([0, color, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


PDF = b"%PDF-1.4\n1 0 obj << /Type /Pages /Count 1 >> endobj 2 0 obj << /Type /Page >> endobj\n%%EOF"
SAMPLES = {
    "image/png": png(),
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "image/gif": b"GIF89a\x01\x00",
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "application/pdf": PDF,
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "audio/mpeg": b"\xff\xfb\x90\x44\x00",
    "audio/ogg": b"OggS\x00\x02",
    "audio/flac": b"fLaC\x00\x00",
    "text/plain": "grüezi\n".encode(),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_type_is_that_of_the_content(kind: str) -> None:
    assert File.of("scans/march", SAMPLES[kind]).media_type == kind
    assert File.of("ID3.mp3", b"ID3\x03\x00").media_type == "audio/mpeg"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "text/csv"),
        ("a.MD", "text/markdown"),
        ("a.json", "application/json"),
        ("a.py", "text/plain"),
        ("a", "text/plain"),
        ("a.html", "text/html"),
    ],
)
def test_the_name_tells_texts_apart(name: str, kind: str) -> None:
    file = File.of(name, b"a,b")
    assert (file.media_type, file.is_text) == (kind, True)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.png", b"", "'a.png' is empty"),
        ("a.png", SAMPLES["image/jpeg"], "is image/jpeg by its content, and its name says image/png"),
        ("a.jpg", b"not a picture", "is text/plain by its content, and its name says image/jpeg"),
        ("a.txt", png(), "is image/png by its content, and its name says text/plain"),
        ("a.pdf", b"  %PDF-1.4", "is text/plain by its content, and its name says application/pdf"),
        ("a.docx", b"PK\x03\x04\x00\x00", "not of a type that is sent"),
        ("a.txt", b"one\x00two", "not of a type that is sent"),
        ("a.txt", "grüezi".encode("latin-1"), "not of a type that is sent"),
        ("a.txt", "hello".encode("utf-16"), "not of a type that is sent"),
        ("a.wav", b"RIFF\x24\x00\x00\x00AVI LIST", "not of a type that is sent"),
    ],
)
def test_other_content_is_refused(name: str, data: bytes, why: str) -> None:
    with pytest.raises(FileRefused) as refused:
        File.of(name, data)
    assert why in refused.value.message
    assert refused.value.hint
    assert refused.value.file == name


@pytest.mark.parametrize(("size", "shown"), [(999, "999 B"), (12_034, "11.8 KiB"), (2_500_000, "2.4 MiB")])
def test_a_file_is_shown_by_type_size_and_digest(size: int, shown: str) -> None:
    file = File.of("scan.txt", b"x" * size)
    assert str(file) == f"scan.txt (text/plain, {shown}, sha256:{file.sha256[:12]}…)"


def test_a_file_is_the_same_in_the_journal_and_in_a_message() -> None:
    file = File.of("scan.png", png())
    assert File.from_json(file.to_json()) == file
    assert File.of_message(file.to_message()) == file
