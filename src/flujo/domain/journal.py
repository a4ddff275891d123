"""Journal entries: the records of a step, by its path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NewType

from flujo.domain import canonical
from flujo.domain.fast_dataclass import constructor, record
from flujo.domain.paths import StepPath
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

RunId = NewType("RunId", str)

Transcripts = Literal["full", "last", "off"]
"""The transcripts that a run keeps: of every attempt, of an attempt that no retry follows, or none."""

TRANSCRIPT = "transcript"
"""The key of an entry's `detail` that holds the digest of the blob with the attempt's transcript."""

CACHE_MISS = "cache"
"""The fingerprint of the decision to execute a cached step; its value is the cache key."""

FILES = "files"
"""The fingerprint of the decision which files a step sends; its value is a list of `domain.files.File`."""

UNFINISHED = "unfinished"
"""The fingerprint of the record of an attempt without an entry of its own; its value is an `Unfinished`."""

Unfinished = Literal["paused", "aborted", "interrupted"]
"""How such an attempt ended: it asks a human, its code ends the run, or the run was stopped."""


class EntryKind(StrEnum):
    """The kind of an entry."""

    WORK = "work"
    """A leaf step's attempt: an agent's answer, a callable's result, or its failure."""
    DECISION = "decision"
    """A decision of a composite: the chosen branch, whether a loop continues, a `when` that is false."""
    ANSWER = "answer"
    """The answer of a human."""
    DONE = "done"
    """The end of a composite or of one of its iterations: its output and net patch."""


class EntryStatus(StrEnum):
    """The result that an entry records."""

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


# Frozen only for type checkers, and numbered in place: a frozen class that is copied for its number costs
# 12 us of the 90 us of a step in `bench/engine.py` (the copy alone 4).
@record(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event in a run. Values are canonical JSON bytes (`domain.canonical`).

    The key is (run, path, kind, attempt). `seq` counts the run's entries from 1 without a gap and is part
    of the digest, so that a missing or exchanged entry is detected. `detail` holds further facts: the model
    and repairs of an answer, the facts of a composite (`exhausted`, a loop's carried variables).
    """

    path: StepPath
    kind: EntryKind
    attempt: int = 1
    status: EntryStatus = EntryStatus.COMPLETED
    seq: int = 0
    input: bytes | None = None
    output: bytes | None = None
    patch: bytes | None = None
    error: bytes | None = None
    detail: bytes | None = None
    usage: Usage = NOTHING
    fingerprint: str = ""
    started_at: float = 0.0
    """Seconds since the epoch, by the clock of the recording process; for display only."""
    ended_at: float = 0.0

    def numbered(self, seq: int) -> Entry:
        """Set this entry's number in the run's sequence, once, and return the entry."""
        self.seq = seq  # type: ignore[misc]  # frozen for type checkers only
        return self

    def digest(self) -> str:
        """Return the SHA-256 over every field, which detects any change in the database."""
        is_used = self.usage is not NOTHING and bool(self.usage)
        usage = canonical.encode(self.usage.to_json()).decode() if is_used else "{}"
        # Joined, because formatting enum members is slow.
        head = "|".join(
            (str(self.seq), self.path, self.kind, str(self.attempt), self.status, self.fingerprint)
        )
        given, output, patch, error, detail = self.input, self.output, self.patch, self.error, self.detail
        parts = (
            f"{head}\n{self.started_at!r}|{self.ended_at!r}\n{usage}".encode(),
            b"-" if given is None else b"%d:%b" % (len(given), given),
            b"-" if output is None else b"%d:%b" % (len(output), output),
            b"-" if patch is None else b"%d:%b" % (len(patch), patch),
            b"-" if error is None else b"%d:%b" % (len(error), error),
            b"-" if detail is None else b"%d:%b" % (len(detail), detail),
        )
        return canonical.digest(b"\n".join(parts))


new_entry = constructor(Entry)
"""Creates `Entry`."""


@dataclass(frozen=True, slots=True)
class CodeFrame:
    """A place in the code of the user."""

    file: str
    """The file, relative to the project, with `/`."""
    line: int
    function: str
    """The qualified name of the function."""
    source: str = ""
    """The text of the line; empty if it cannot be read."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CodeFrame:
        """Return the place that `to_json` wrote."""
        return cls(data["file"], data["line"], data["function"], data["source"])

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as plain data in the journal; its class is not rebuilt."""

    code: str
    message: str
    hint: str | None = None
    type: str = ""
    path: str = ""
    retryable: bool = False
    frame: CodeFrame | None = None
    """Where the code of the user raised it, or called what raised it; None if no such code was involved."""
    traceback: str | None = None
    """The digest of the blob with the traceback; set together with `frame`."""
    is_handled: bool = False
    """Of a run: whether its `on_failure` or `finally` has been executed: no step is tried again."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; without `frame` and `traceback` if there are none."""
        data = {name: getattr(self, name) for name in self.__slots__}
        if self.frame is None:
            del data["frame"], data["traceback"]
        else:
            data["frame"] = self.frame.to_json()
        if not self.is_handled:
            del data["is_handled"]
        return data

    def as_value(self) -> dict[str, Any]:
        """Return plain JSON data for expressions: without the place in code, which moves with every edit."""
        return {name: value for name, value in self.to_json().items() if name not in ("frame", "traceback")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ErrorInfo:
        """Return the error that `to_json` of this version or an earlier one wrote."""
        frame = data.get("frame")
        return cls(**{**data, "frame": None if frame is None else CodeFrame.from_json(frame)})
