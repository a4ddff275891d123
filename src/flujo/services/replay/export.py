"""Writes a run as one file: JSON lines, compressed by zstd, with a digest over everything."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import zstandard

from flujo.domain import canonical
from flujo.exceptions import SecretInValue
from flujo.governance.sink import GATE
from flujo.services.project.project import replace_file
from flujo.services.replay.recording import recorded_family
from flujo.services.replay.run_lines import content_line, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from flujo.domain.journal import RunId
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.store import RunSource
    from flujo.services.replay.run_lines import Line

FORMAT = "flujo-run"
VERSION = 1
"""Increased by each change after which an older Flujo would misread a file."""

SUFFIX = ".jsonl.zst"

_NAMES = ("type", "run_id", "digest", "path", "pause_id", "closure")
"""What a line is found by; never masked."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written."""

    run_id: RunId
    path: Path
    size: int
    """In bytes."""
    masked: int
    """In how many lines a secret is masked."""


async def write_file(source: RunSource, run_id: RunId, path: Path) -> Exported:
    """Write a run as a file that only its owner can read; see `export_run`.

    Args:
        source: where the run is.
        run_id: the whole id of the run.
        path: the file, which is replaced.

    Raises:
        SettingsError: the file cannot be written.
    """
    data, masked = _packed(await recorded_family(source, run_id))
    replace_file(path, data, mode=0o600)
    return Exported(run_id, path, len(data), masked)


async def export_run(source: RunSource, run_id: RunId) -> bytes:
    """Return a run and its background tasks as one file: journal, questions, calls, acts, pinned files.

    The values of the known secrets are masked. The digests of entries and contents stay those of the run, so
    a reader finds every masked line.

    Args:
        source: a state store, or the file of another export.
        run_id: the whole id of the run.

    Raises:
        RunNotFound: there is no such run.
        CorruptState: a row or a content is damaged or missing.
        ResumeConflict: the run changes hands again and again while it is read.
        SecretInValue: a secret cannot be masked: it is in a name, or in a content that is not text.
    """
    return _packed(await recorded_family(source, run_id))[0]


def _packed(runs: Sequence[RecordedRun]) -> tuple[bytes, int]:
    """Return the file of runs, and in how many lines a secret is masked."""
    lines = list(_lines(runs))
    text = b"".join(canonical.encode(line) + b"\n" for line in lines)
    end = {"type": "end", "lines": len(lines), "digest": canonical.digest(text)}
    packer = zstandard.ZstdCompressor(level=6, write_checksum=True)
    packed = packer.compress(text + canonical.encode(end) + b"\n")
    return packed, sum("masked" in line for line in lines)


def _lines(runs: Sequence[RecordedRun]) -> Iterator[Line]:
    ids = [run.run_id for run in runs]
    yield {
        "type": "start",
        "format": FORMAT,
        "version": VERSION,
        "flujo": metadata.version("flujo"),
        "runs": ids,
    }
    contents: dict[str, bytes] = {}
    for run in runs:
        yield from map(_masked, lines_of(run))
        contents |= run.blobs
    for digest in sorted(contents):
        line = content_line(digest, contents[digest])
        if "base64" in line:
            GATE.admit(contents[digest], f"content {digest}")
        yield _masked(line)


def _masked(line: Line) -> Line:
    """Return a line without secrets and personal data, marked if there was any.

    Raises:
        SecretInValue: there still is a secret.
    """
    if not GATE.knows_secrets and not GATE.hides_personal_data:
        return line
    what = f"{line['type']} {line.get('path', line.get('digest', ''))}"
    if GATE.hides_personal_data:
        masked = _without(line)
        GATE.admit(canonical.encode(masked), what)
        return line if masked == line else {**masked, "masked": True}
    try:
        GATE.admit(canonical.encode(line), what)
    except SecretInValue:
        line = {**_without(line), "masked": True}
        GATE.admit(canonical.encode(line), what)
    return line


def _without(line: Line) -> Line:
    """Return a line with its values masked, and the names that lines are found by."""
    kept: dict[str, Any] = {name: line[name] for name in _NAMES if name in line}
    return {**GATE.data(line), **kept}
