"""The runs that an erasure may delete: asked before it, and once more under the locks of the runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.run import AT_A_PAUSE
from flujo.exceptions import ErasureRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.domain.erasure import FamilyRun


def require_erasable(runs: Iterable[FamilyRun], *, cancel_paused: bool) -> None:
    """Refuse to erase runs that are executed, or that wait and are not to be cancelled.

    Raises:
        ErasureRefused: one of them is.
    """
    for run in runs:
        if run.is_live:
            raise ErasureRefused(
                f"run {run.run_id} of this person is `{run.status}`: a process executes it or is about to",
                hint=f"`{command('flujo', 'tasks', 'cancel', run.run_id)}`, and repeat the command",
                run_id=run.run_id,
            )
        if run.status in AT_A_PAUSE and not cancel_paused:
            raise ErasureRefused(
                f"run {run.run_id} of this person is `{run.status}`",
                hint="`--cancel-paused` cancels and erases such runs, `--keep-paused` keeps them",
                run_id=run.run_id,
            )
