"""The end of a step as a step of a run's result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.outcomes import BackgroundLaunched, BegunAgain, Ended, Failure, Paused, Success
from flujo.domain.run import RunStatus
from flujo.domain.usage import NOTHING

if TYPE_CHECKING:
    from flujo.domain.events import StepEnded


def at_a_pause(outcome: Paused) -> RunStatus:
    """Return whether a human has to answer (paused), or only something has to happen (waiting)."""
    asks = any(pause.kind.asks_human for pause in outcome.pauses)
    return RunStatus.PAUSED if asks else RunStatus.WAITING


def step_facts(ended: StepEnded) -> dict[str, Any]:
    """Return the fields of the step's `StepResult` that differ from their defaults."""
    facts: dict[str, Any] = {"path": ended.path, "kind": ended.kind, "seconds": ended.seconds}
    outcome = ended.outcome
    if isinstance(outcome, Success):
        facts["status"] = "skipped" if outcome.skipped else "completed"
        facts["output"] = outcome.output
        if outcome.facts.get("cached") is True:
            facts["cached"] = True
    elif isinstance(outcome, Failure):
        facts["status"], facts["error"] = "failed", outcome.error
    elif isinstance(outcome, Paused):
        facts["status"] = str(at_a_pause(outcome))
    elif isinstance(outcome, BackgroundLaunched):
        facts["status"], facts["output"] = "running", {"task_id": outcome.task_id}
    elif isinstance(outcome, BegunAgain | Ended):
        facts["status"] = "completed"
    else:
        facts["status"] = "running"
    if ended.attempt != 1:
        facts["attempt"] = ended.attempt
    if ended.usage is not NOTHING:
        facts["usage"] = ended.usage
    return facts
