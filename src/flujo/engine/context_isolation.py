"""The context of one isolated part of a run: views for its attempts, and the patches that they leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.exceptions import NotJournalable

if TYPE_CHECKING:
    from flujo.domain.models import PipelineContext
    from flujo.domain.ports import ContextType


@dataclass(slots=True)
class ContextScope:
    """A context: its type, and its tree, which is replaced and never changed in place."""

    type: ContextType
    tree: Any

    def fork(self) -> ContextScope:
        """Return a context that starts as this one is: what is written to it stays there."""
        return ContextScope(self.type, self.tree)

    def view(self) -> PipelineContext:
        """Return a context object for one attempt: its changes are kept only as a patch."""
        return self.type.view(self.tree)

    def tree_of(self, context: PipelineContext | None) -> Any:
        """Return the tree as an attempt leaves its view; this context's own for an attempt without one."""
        return self.tree if context is None else self.type.dump(context)

    def changes(self, after: Any, *, what: str) -> merge.Patch:
        """Return what an attempt has changed, when it leaves the tree as `after`.

        Raises:
            NotJournalable: a field holds a value that JSON cannot.
        """
        patch = merge.diff(self.tree, after)
        if not patch:
            return patch
        try:
            changed: merge.Patch = canonical.normalise(patch)
        except NotJournalable:
            canonical.encode(after, what=f"context after {what}")  # names the field
            raise
        return changed

    def accepted(self, patch: merge.Patch, *, what: str) -> Any:
        """Return the tree as it is after `patch`; the one of this context is not touched.

        Raises:
            OutputRejected: the context would not fit its type any more.
        """
        if not patch:
            return self.tree
        after = merge.apply(self.tree, patch)
        changed = {str(op[1][0]) for op in patch}
        self.type.check(after, what=f"context after {what}", changed=changed)
        return after
