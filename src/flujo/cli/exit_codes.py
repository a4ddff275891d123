"""The exit codes of commands, and the code of each error."""

from __future__ import annotations

from enum import IntEnum

from flujo import exceptions as ex


class ExitCode(IntEnum):
    """The exit codes. Scripts rely on them: a number never changes its meaning."""

    OK = 0
    """Done."""
    RUN_FAILED = 1
    """The run failed or was cancelled, a check found something, a worker skipped runs, a confirmation was
    declined, or the output could not be written."""
    USAGE = 2
    """The command line, the input or a setting is not valid."""
    CALLABLE = 3
    """A callable that the blueprint names is not allowed or could not be imported."""
    BLUEPRINT = 4
    """The blueprint is not valid."""
    PAUSED = 5
    """The run is paused and waits for an answer, or it waits for a time or an event."""
    BUDGET = 6
    """The budget is exhausted or too small."""
    LOCK = 7
    """The blueprint does not match flujo.lock."""
    STATE = 8
    """The database is unreachable or not migrated, or another process owns the run."""
    CANNOT_TELL = 9
    """The scores of cases prove neither that a version is worse nor that it is not."""
    INTERRUPTED = 130
    """Ctrl-C; the run can be resumed."""
    TERMINATED = 143
    """SIGTERM; the run can be resumed."""


_OF_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (ex.LockMismatch, ExitCode.LOCK),
    (ex.CasesInvalid, ExitCode.USAGE),
    (ex.SettingsError, ExitCode.USAGE),
    (ex.ProviderUnavailable, ExitCode.USAGE),
    (ex.SecretNotSet, ExitCode.USAGE),
    (ex.NotAvailableYet, ExitCode.USAGE),
    (ex.ProviderNotGiven, ExitCode.USAGE),
    (ex.QueueUnknown, ExitCode.USAGE),
    (ex.ForkPointMissing, ExitCode.USAGE),
    (ex.CallableError, ExitCode.CALLABLE),
    (ex.BudgetError, ExitCode.BUDGET),
    (ex.BlueprintError, ExitCode.BLUEPRINT),
    (ex.StateError, ExitCode.STATE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)
"""The first matching class decides; other errors exit with 1."""


def of_error(error: BaseException) -> ExitCode:
    """Return the exit code of a command that ends with `error`."""
    return next((code for kind, code in _OF_ERROR if isinstance(error, kind)), ExitCode.RUN_FAILED)


_OF_STATUS = {
    "completed": ExitCode.OK,
    "paused": ExitCode.PAUSED,
    "waiting": ExitCode.PAUSED,
    "interrupted": ExitCode.INTERRUPTED,
}


_BUDGET_ERRORS = (
    *(ex.BudgetError, ex.UsageLimitExceeded, ex.SharedBudgetExceeded),
    *(ex.PriceUnknown, ex.AnswerUnbounded),
)


def of_run(status: str, error_code: str | None) -> ExitCode:
    """Return the exit code for a run that ended with this status and error code."""
    if status == "failed" and error_code in {error.code for error in _BUDGET_ERRORS}:
        return ExitCode.BUDGET
    return _OF_STATUS.get(status, ExitCode.RUN_FAILED)
