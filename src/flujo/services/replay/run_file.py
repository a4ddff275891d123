"""A run that was exported as one file, read without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zstandard

from flujo.domain import canonical
from flujo.domain.acts import STEERING
from flujo.domain.journal import RunId
from flujo.domain.paths import level
from flujo.domain.run import Progress
from flujo.domain.usage import NOTHING
from flujo.domain.wording import size
from flujo.exceptions import CorruptState, ExportDamaged, ExportTooNew, RunNotFound
from flujo.services.replay.export import FORMAT, VERSION
from flujo.services.replay.run_lines import LineReader

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from flujo.domain.acts import Act
    from flujo.domain.journal import Entry
    from flujo.domain.ledger import Ledger
    from flujo.domain.paths import StepPath
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.run import Intent, Pause, RunRecord

_MOST = 4 * 1024**3
"""The largest size of the lines of a file, in bytes; a damaged size must not take all memory."""
_PIECE = 1024**2
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)


class RunFile:
    """The port `RunSource` for a file of `export_run`."""

    def __init__(
        self, runs: Mapping[RunId, RecordedRun], contents: Mapping[str, bytes], masked: set[str]
    ) -> None:
        self.runs = runs
        """The run that was exported, followed by its background tasks."""
        self.masked = masked
        """The digests of the contents in which a secret is masked."""
        self._contents = contents

    @classmethod
    def read(cls, data: bytes, name: str) -> RunFile:
        """Return the run in the bytes of a file, each line checked.

        Args:
            data: the bytes.
            name: the file, for errors.

        Raises:
            ExportDamaged: it is not such a file, or it was cut off or changed.
            ExportTooNew: a newer Flujo wrote it.
        """
        text = _unpacked(data, name)
        lines = text.split(b"\n")[:-1]
        start = _start(lines, name)
        reader = LineReader()
        for number, line in enumerate(lines[1:-1], 2):
            try:
                reader.take(canonical.decode(line))
            except _DAMAGE as error:
                raise _damaged(name, f"line {number}: {_reason(error)}") from error
        _check_end(lines, name)
        runs = reader.runs()
        if not runs or list(runs) != start.get("runs"):
            raise _damaged(name, "it lacks a run that its first line names")
        return cls(runs, reader.contents, reader.masked)

    @classmethod
    def open(cls, path: Path) -> RunFile:
        """Return the run in a file; see `read`.

        Raises:
            ExportDamaged: it cannot be read, too.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ExportDamaged(f"{path} cannot be read: {reason}", file=str(path)) from error
        return cls.read(data, str(path))

    @property
    def run_id(self) -> RunId:
        """The id of the run that was exported."""
        return next(iter(self.runs))

    async def find(self, text: str) -> RunRecord:
        """Return the run for an id, a unique prefix of an id, or `@last`: the run that was exported.

        Raises:
            RunNotFound: none or several match.
        """
        if text in self.runs or text == "@last":
            return self.runs[RunId(text) if text in self.runs else self.run_id].record
        found = [run_id for run_id in self.runs if text and run_id.startswith(text)]
        return self._run(found[0] if len(found) == 1 else RunId(text)).record

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run."""
        return self._run(run_id).record

    async def launched_by(self, run_id: RunId) -> Sequence[RunRecord]:
        """Return the background tasks of a run, the oldest first."""
        records = [each.record for each in self.runs.values()]
        own = [each for each in records if each.parent is not None and each.parent.run_id == run_id]
        return sorted(own, key=lambda each: each.created_at)

    async def entries(
        self,
        run_id: RunId,
        *,
        parent: StepPath | None = None,
        paths: Collection[StepPath] | None = None,
        after: int = 0,
    ) -> list[Entry]:
        """Return the journal in order: all of it, a part, a level, or some paths; see the port."""
        recorded = self.runs[run_id].entries if run_id in self.runs else ()
        entries = [entry for entry in recorded if entry.seq > after]
        if paths is not None:
            wanted = frozenset(paths)
            return [entry for entry in entries if entry.path in wanted]
        return [entry for entry in entries if parent is None or _is_below(entry.path, parent)]

    async def progress(self, run_id: RunId) -> Progress:
        """Return the progress of a run."""
        entries = await self.entries(run_id)
        return Progress(
            last_seq=len(entries),
            usage=sum((entry.usage for entry in entries), NOTHING),
            first=tuple(entry for entry in entries if entry.path and not level(entry.path)),
            pauses=tuple(await self.pauses(run_id)),
            acts=tuple(act for act in await self.acts(run_id) if act.verb in STEERING),
        )

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions of a run, in the order in which they were opened."""
        return list(self.runs[run_id].pauses) if run_id in self.runs else []

    async def ledger(self, run_id: RunId) -> Ledger:
        """Return the usage and times of each attempt, and the holds of the run's budget."""
        return self._run(run_id).ledger

    async def intents(self, run_id: RunId) -> list[Intent]:
        """Return the announced calls of a run, ordered by their last sending."""
        return list(self.runs[run_id].intents) if run_id in self.runs else []

    async def acts(self, run_id: RunId) -> list[Act]:
        """Return the acts on a run, in order."""
        return list(self.runs[run_id].acts) if run_id in self.runs else []

    async def blobs(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return contents by their digests; one in which a secret is masked has other bytes than its digest.

        Raises:
            CorruptState: the file has no such content.
        """
        missing = [digest for digest in digests if digest not in self._contents]
        if missing:
            raise CorruptState(f"the content {missing[0]} is not in the exported run", digest=missing[0])
        return {digest: self._contents[digest] for digest in digests}

    def _run(self, run_id: RunId) -> RecordedRun:
        if run_id not in self.runs:
            raise RunNotFound(
                f"there is no run {run_id!r} in this file",
                hint=f"it has {', '.join(self.runs)}",
                run_id=run_id,
            )
        return self.runs[run_id]


def _is_below(path: StepPath, above: StepPath) -> bool:
    return path != above and level(path) == above


def _unpacked(data: bytes, name: str) -> bytes:
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared != zstandard.CONTENTSIZE_UNKNOWN and declared <= _MOST:
            return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        pieces: list[bytes] = []
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:  # compressed from a pipe, or damaged
            while piece := reader.read(_PIECE):
                pieces.append(piece)
                if len(pieces) * _PIECE > _MOST:
                    raise _damaged(name, f"it has more than {size(_MOST)} of lines")
        return b"".join(pieces)
    except zstandard.ZstdError as error:
        raise _damaged(name, f"it is not a whole file of zstd ({error})") from error


def _start(lines: Sequence[bytes], name: str) -> Mapping[str, Any]:
    """Return the first line, of a version that this Flujo reads."""
    try:
        start: dict[str, Any] = canonical.decode(lines[0])
        is_run, version = start["format"] == FORMAT, start["version"]
    except (IndexError, *_DAMAGE) as error:
        raise _damaged(name, "it is not the file of a run") from error
    if not is_run:
        raise _damaged(name, "it is not the file of a run")
    if not isinstance(version, int) or version < 1:
        raise _damaged(name, f"its version is {version!r}")
    if version > VERSION:
        raise ExportTooNew(
            f"{name} has version {version} of the format, and this Flujo reads version {VERSION}",
            file=name,
            version=version,
        )
    return start


def _check_end(lines: Sequence[bytes], name: str) -> None:
    """Check the last line: how many there are before it, and their digest."""
    before = b"".join(line + b"\n" for line in lines[:-1])
    try:
        end = canonical.decode(lines[-1])
        is_end, count, digest = end["type"] == "end", end["lines"], end["digest"]
    except _DAMAGE:
        is_end, count, digest = False, None, None
    if not is_end:
        raise _damaged(name, "its last line is missing")
    if count != len(lines) - 1 or digest != canonical.digest(before):
        raise _damaged(name, "the digest over its lines differs")


def _reason(error: BaseException) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _damaged(name: str, why: str) -> ExportDamaged:
    return ExportDamaged(f"{name} is damaged: {why}", file=name)
