"""What a batch writes, gathered while its requests are judged, so that each kind of row is one statement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from flujo.state import codec
    from flujo.state.sql.statements import Statements


@dataclass(slots=True)
class PendingRows:
    """The rows to write at the end of a batch, one statement for each kind."""

    connection: sa.Connection
    statements: Statements
    runs: list[dict[str, Any]] = field(default_factory=list)
    children: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    pauses: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)
    """Runs with a question that was settled after their newest claim."""
    woken: set[str] = field(default_factory=set)
    """Those of them with a settled wait that asked no human."""
    moves: list[dict[str, Any]] = field(default_factory=list)
    renewals: list[dict[str, Any]] = field(default_factory=list)
    voids: list[dict[str, Any]] = field(default_factory=list)
    """Questions, one by one."""
    voided: list[dict[str, Any]] = field(default_factory=list)
    """Runs, with all their open questions."""
    intents: list[dict[str, Any]] = field(default_factory=list)
    holds: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    """Claims that end, with the moment."""
    wishes: list[dict[str, Any]] = field(default_factory=list)
    acts: list[dict[str, Any]] = field(default_factory=list)
    rests: list[dict[str, Any]] = field(default_factory=list)
    fills_queue: bool = False
    """Whether a run can be claimed from its queue from now on."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    aside: codec.Rows = field(default_factory=dict)
    """Blobs, by digest."""
    refs: set[tuple[str, str]] = field(default_factory=set)
    """Which blob is named by which run."""

    def keep(self, run_id: str, blobs: codec.Rows) -> None:
        """Write blobs that a run names from now on."""
        self.aside |= blobs
        self.refs.update((digest, run_id) for digest in blobs)

    def write(self) -> Any:
        """Send all rows; return the cursor of the blobs that are held, or None."""
        known = self.statements
        held = self._keep_blobs(sorted(self.aside)) if self.aside else None
        for change, rows in (
            (known.insert_runs, self.runs),
            (known.insert_children, self.children),
            (
                known.keep_refs,
                [{"digest": digest, "run_id": run_id} for digest, run_id in sorted(self.refs)],
            ),
            (known.claim_runs, self.claims),
            (known.insert_entries, self.entries),
            (known.keep_intents, self.intents),
            (known.keep_holds, self.holds),
            (known.end_times, self.ended),
            (known.open_pauses, self.pauses),
            (known.settle_pauses, self.answers),
            (known.note_answers, [{"of_run": run_id} for run_id in sorted(self.unseen)]),
            (known.void_pauses, self.voids),
            (known.renew_leases, self.renewals),
            (known.move_runs, self.moves),
            (known.rest_runs, self.rests),
            (known.void_all_pauses, self.voided),
            (known.wish, self.wishes),
            (known.insert_acts, self.acts),
            (known.insert_messages, self.messages),
            (known.keep_evaluations, self.evaluations),
        ):
            if rows:
                change(self.connection, rows)
        return held

    def keep_again(self, held: set[str]) -> None:
        """Insert the blobs that a purge deleted after they were found and before they were held."""
        while missing := sorted(self.aside.keys() - held):
            held |= {digest for (digest,) in self._keep_blobs(missing).fetchall()}

    def _keep_blobs(self, digests: Sequence[str]) -> Any:
        """Insert the blobs that are not there, and on Postgres hold all of them; return the cursor of these.

        The digests are in one order everywhere, so that two processes never wait crosswise.
        """
        known = self.statements
        known.keep_blobs(self.connection, [self.aside[digest] for digest in digests])
        is_postgres = self.connection.dialect.name == "postgresql"
        return known.hold_blobs(self.connection, digests) if is_postgres else None
