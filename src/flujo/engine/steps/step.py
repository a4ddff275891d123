"""`step`: asks one agent, or calls one callable."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.engine.attempts import perform
from flujo.engine.call_layers import LeafCall
from flujo.engine.fallback import or_its_fallback

if TYPE_CHECKING:
    from flujo.domain.ports import Binding
    from flujo.domain.steps import Step
    from flujo.engine.frame import RunBody, Work


def work(step: Step, binding: Binding, run_body: RunBody) -> Work:
    """Return the execution of the step, and of its fallback if the step fails."""
    attempts = partial(perform, LeafCall(step, binding))
    return attempts if step.fallback is None else partial(or_its_fallback, step, attempts, run_body)
