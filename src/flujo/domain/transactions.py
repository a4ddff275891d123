"""The port of transactions of the state database that a tool writes in, and Flujo commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from flujo.domain.executor import CodeThreads
    from flujo.domain.journal import RunId
    from flujo.domain.run import Write

CONNECTION = "connection"
"""The parameter of a transactional tool that gets the connection."""


class Transaction(Protocol):
    """An open transaction. One tool call writes in it; then `check` and `commit`, or `roll_back`."""

    @property
    def timeout_s(self) -> float:
        """The maximum duration of the call."""
        ...

    @property
    def executor(self) -> CodeThreads | None:
        """Calls sync callables; None for the usual executor."""
        ...

    def connection(self, *, is_async: bool) -> Any:
        """Return the connection for the callable; it cannot commit, roll back or be closed."""
        ...

    async def check(self) -> None:
        """Let the database judge what the callable wrote, and take the connection away from it.

        Raises:
            TransactionRefused: the callable has ended the transaction, or the time is over.
            Exception: the driver's error for a constraint that is judged at the commit.
        """
        ...

    async def commit(self, write: Write) -> None:
        """Lock the run, and commit a write together with what the callable wrote.

        Raises:
            Fenced: another process executes the run; nothing is committed.
            StateBackendUnavailable: whether it is committed is unknown, or it is not.
            TransactionRefused: the database refused it, or the time is over; nothing is committed.
        """
        ...

    def roll_back(self) -> None:
        """End the transaction, unless it is committed. Idempotent; waits for nothing."""
        ...


@runtime_checkable
class TransactionalStore(Protocol):
    """A store whose database a tool can write to."""

    @property
    def lends_writer(self) -> bool:
        """Whether a transaction keeps all other writes waiting, and takes sync callables only."""
        ...

    async def begin(self, run_id: RunId, timeout_s: float | None) -> Transaction:
        """Begin a transaction for one tool call of a run.

        Args:
            run_id: the run, whose earlier writes are committed.
            timeout_s: the maximum duration of the call; by default, and at most for a SQLite file, that of
                the database.

        Raises:
            StateBackendUnavailable: the database does not answer.
        """
        ...
