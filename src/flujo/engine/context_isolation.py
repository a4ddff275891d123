"""The context of one isolated part of a run: views for its attempts, and the patches of their changes."""

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
        """Return a context with the same content, whose writes do not affect this one."""
        return ContextScope(self.type, self.tree)

    def view(self) -> PipelineContext:
        """Return a context object for one attempt, whose changes are taken only as a patch."""
        return self.type.view(self.tree)

    def tree_of(self, context: PipelineContext | None) -> Any:
        """Return the tree of an attempt's view; this context's own tree when the attempt has none."""
        return self.tree if context is None else self.type.dump(context)

    def changes(self, after: Any, *, what: str) -> merge.Patch:
        """Return the patch from this context's tree to `after`.

        Raises:
            NotJournalable: a field has a value that is not JSON.
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

    def accepted(self, patch: merge.Patch, *, what: str) -> tuple[merge.Patch, Any]:
        """Return `patch` with its values in their declared types, and the tree after it.

        This context's tree is unchanged.

        Raises:
            OutputRejected: the context would no longer match its type.
        """
        if not patch:
            return patch, self.tree
        after = merge.apply(self.tree, patch)
        changed = {str(op[1][0]) for op in patch}
        declared = self.type.check(after, what=f"context after {what}", changed=changed)
        if declared is not after:
            patch = merge.revalued(self.tree, patch, declared)
            after = merge.apply(self.tree, patch)
        return patch, after
