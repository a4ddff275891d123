"""`parallel`: runs all branches at once, each on its own fork of the context, and merges the forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.engine.branches import run_branches

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import ParallelStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: ParallelStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return `{branch: output}`, or the value of `output`.

    Raises:
        MergeConflict: two branches wrote one field of the context and `merge` does not decide.
    """
    await frame.run.journal.load_level(path)
    return await run_branches(step, frame, path, run_body, step.branches)
