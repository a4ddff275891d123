"""What an attempt may see and change of the context: a view of its own, and the patch that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.agents import Ask
from flujo.domain.steps import BaseStep, CallableRef, Expr
from flujo.exceptions import NotJournalable

if TYPE_CHECKING:
    from flujo.domain.models import PipelineContext
    from flujo.engine.frame import Frame


def view(frame: Frame) -> PipelineContext:
    """Return a context object that belongs to one attempt: what it does to it stays there."""
    return frame.scope.type.view(frame.scope.tree)


def after(frame: Frame, context: PipelineContext | None) -> Any:
    """Return the context's tree as an attempt leaves the view it was given."""
    return frame.scope.tree if context is None else frame.scope.type.dump(context)


def changes(frame: Frame, after: Any, *, what: str) -> merge.Patch:
    """Return what an attempt has changed, when it leaves the context's tree as `after`.

    Raises:
        NotJournalable: a field holds a value that JSON cannot.
    """
    patch = merge.diff(frame.scope.tree, after)
    if not patch:
        return patch
    try:
        changed: merge.Patch = canonical.normalise(patch)
    except NotJournalable:
        canonical.encode(after, what=f"context after {what}")  # names the field
        raise
    return changed


async def saved(step: BaseStep, frame: Frame, output: Any) -> merge.Patch:
    """Return the patch of a step's `save:`, in which `output` is the step's own.

    Raises:
        ExpressionFailed: one of the expressions does not fit the values.
    """
    patch: merge.Patch = []
    for name, save in step.save.items():
        match save.value:
            case Expr():
                value = frame.evaluate(save.value, output=output)
            case CallableRef():
                ask = Ask(data=output, resources=frame.run.resources)
                reply = await frame.run.binding.agent(save.value).ask(ask)
                value = canonical.normalise(reply.output, what=f"`save.{name}` of step {step.name!r}")
        patch.append(["append", [name], [value]] if save.append else ["set", [name], value])
    return patch


def accepted(frame: Frame, patch: merge.Patch, *, what: str) -> Any:
    """Return the context's tree as it is after `patch`; the frame's own is not touched.

    Raises:
        OutputRejected: the context would not fit its type any more.
    """
    if not patch:
        return frame.scope.tree
    after = merge.apply(frame.scope.tree, patch)
    changed = {str(op[1][0]) for op in patch}
    frame.scope.type.check(after, what=f"context after {what}", changed=changed)
    return after
