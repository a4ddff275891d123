"""What is asked of the writer, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.fast_dataclass import record
from flujo.domain.run import NewRun, Pause, RunRecord, RunStatus, Write
from flujo.exceptions import FlujoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.journal import RunId, StepPath


@record(frozen=True, slots=True)
class Accept:
    """Record a new run."""

    run: NewRun
    blobs: Mapping[str, bytes]
    claim: bool

    @property
    def run_id(self) -> RunId:
        """The run's id."""
        return self.run.run_id


@record(frozen=True, slots=True)
class Claim:
    """Take a run over."""

    run_id: RunId
    statuses: tuple[RunStatus, ...]
    recovering: bool = False
    forced: bool = False


@record(frozen=True, slots=True)
class Answer:
    """Record a human's answer."""

    run_id: RunId
    pause_id: StepPath
    answer: bytes


@dataclass(frozen=True, slots=True)
class Expire:
    """Settle a question whose deadline has passed."""

    run_id: RunId
    pause_id: StepPath


Request = Accept | Claim | Answer | Expire | Write
Outcome = RunRecord | Pause | bool | FlujoError
"""What a request's waiter gets; an error is raised there. For a write: see the port."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch came to, true once its transaction is committed."""

    outcomes: list[Outcome]
    transaction_id: str | None = None
    """Postgres can be asked about it when the answer to COMMIT gets lost."""


def begins_lease(request: Request) -> bool:
    """Return whether a request, once it is committed, gives its run a lease that begins with it."""
    match request:
        case Claim():
            return True
        case Accept():
            return request.claim
        case Write():
            return request.is_empty
        case _:
            return False
