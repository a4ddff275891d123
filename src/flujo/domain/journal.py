"""Journal entries: what is recorded of a step, by its path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

from flujo.domain import canonical
from flujo.domain.fast_dataclass import record
from flujo.domain.paths import StepPath
from flujo.domain.usage import NOTHING, Usage

RunId = NewType("RunId", str)

CACHE_MISS = "cache"
"""The fingerprint of the decision that a cached step has to be run; what it decides is the key."""


class EntryKind(StrEnum):
    """What an entry records."""

    WORK = "work"
    """A leaf step's attempt: an agent's answer, a callable's result, or its failure."""
    DECISION = "decision"
    """Which way a composite went: a branch, whether a loop goes on, a `when` that did not hold."""
    ANSWER = "answer"
    """What a human answered."""
    DONE = "done"
    """A composite (or one iteration of it) has finished: its output and net patch."""


class EntryStatus(StrEnum):
    """How what an entry records came out."""

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


# Frozen to type checkers alone, and numbered in place: `bench/engine.py` makes an entry for each step, and a
# frozen class with a copy for its number costs 12 us of the 90 that a step takes (the copy alone 4).
@record(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that has happened in a run. Values are canonical JSON bytes (`domain.canonical`).

    The key is (run, path, kind, attempt). `seq` counts the run's entries from 1 without a gap and is part
    of the digest, so that a missing or exchanged entry is found. `detail` is what else is known: the model
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
    """Seconds since the epoch, by the recording process's clock; for people, never for decisions."""
    ended_at: float = 0.0

    def numbered(self, seq: int) -> Entry:
        """Return this entry with its place in the run's sequence, which the journal gives it once."""
        object.__setattr__(self, "seq", seq)
        return self

    def digest(self) -> str:
        """Return the SHA-256 over every field, so that a flipped bit in the database is found."""
        usage = canonical.encode(self.usage.to_json()).decode() if self.usage else "{}"
        # Joined, because formatting the members of an enumeration is slow.
        head = "|".join(
            (str(self.seq), self.path, self.kind, str(self.attempt), self.status, self.fingerprint)
        )
        parts = [f"{head}\n{self.started_at!r}|{self.ended_at!r}\n{usage}".encode()]
        for value in (self.input, self.output, self.patch, self.error, self.detail):
            parts.append(b"-" if value is None else b"%d:%b" % (len(value), value))
        return canonical.digest(b"\n".join(parts))


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as the journal keeps it: data, never a class to rebuild."""

    code: str
    message: str
    hint: str | None = None
    type: str = ""
    path: str = ""
    retryable: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ErrorInfo:
        """Return the error that `to_json` wrote."""
        return cls(**data)
