"""The requests that change the database, and what each one returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.fast_dataclass import record
from flujo.domain.journal import RunId
from flujo.domain.run import Pause, RunRecord, Write
from flujo.domain.sent_events import Delivery
from flujo.exceptions import FlujoError
from flujo.state.writer.events import Send

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import sqlalchemy as sa

    from flujo.domain.acts import Act, Actor
    from flujo.domain.ledger import Hold
    from flujo.domain.paths import StepPath
    from flujo.domain.queues import ClaimOrder
    from flujo.domain.run import GivenAnswer, NewRun, RunStatus


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

    @property
    def others(self) -> set[RunId]:
        """The other runs that its acts are on."""
        return {act.run_id for act in self.run.acts if act.run_id not in (None, self.run_id)}


@record(frozen=True, slots=True)
class Claim:
    """Take a run over."""

    run_id: RunId
    statuses: tuple[RunStatus, ...]
    recovering: bool = False
    act: Act | None = None
    answer: GivenAnswer | None = None


@record(frozen=True, slots=True)
class ClaimNext:
    """Take the next runs of queues over, after the rest of the batch, so a place that it releases is free."""

    order: ClaimOrder
    run_id: RunId = RunId("")
    """It is about no run that is known before."""


@record(frozen=True, slots=True)
class Answer:
    """Record an answer."""

    run_id: RunId
    answer: GivenAnswer


@record(frozen=True, slots=True)
class Cancel:
    """Record the wish that a run be cancelled."""

    run_id: RunId
    actor: Actor


@record(frozen=True, slots=True)
class Expire:
    """Settle a question whose deadline has passed."""

    run_id: RunId
    pause_id: StepPath


@record(frozen=True, slots=True)
class Lend:
    """Lend the connection and the thread to a tool, inside a transaction; see `state.transactions`."""

    run_id: RunId
    serve: Callable[[sa.Connection, Callable[[Write], None]], None]
    """Gets the connection, and the function that commits a write and what the tool has written."""


@record(frozen=True, slots=True)
class Reserve:
    """Write the hold of a request, if the budgets of several runs that it counts in have room for it."""

    run_id: RunId
    fence: int
    hold: Hold


Request = Accept | Claim | ClaimNext | Answer | Expire | Cancel | Send | Lend | Reserve | Write
Outcome = RunRecord | list[RunRecord] | Pause | bool | Delivery | FlujoError
"""The result of a request; an error is raised in its waiter. For a write: see the port."""
