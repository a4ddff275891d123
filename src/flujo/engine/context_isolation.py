"""The context of one isolated part of a run: views for its attempts, and the patches of their changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.threads import is_of_threads, only_fields
from flujo.exceptions import NotJournalable
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.models import PipelineContext
    from flujo.domain.ports import ContextType


@dataclass(slots=True)
class ContextScope:
    """A context: its type, and its tree, which is replaced and never changed in place.

    The tree holds the fields, and the threads of conversations; only the fields belong to the type.
    """

    type: ContextType
    tree: Any

    @property
    def fields(self) -> Any:
        """The tree without the threads of conversations."""
        return only_fields(self.tree)

    def fork(self) -> ContextScope:
        """Return a context with the same content, whose writes do not affect this one."""
        return ContextScope(self.type, self.tree)

    def view(self) -> PipelineContext:
        """Return a context object for one attempt, whose changes are taken only as a patch."""
        return self.type.view(self.fields)

    def tree_of(self, context: PipelineContext | None) -> Any:
        """Return the tree of an attempt's view; this context's own fields when the attempt has none."""
        return self.fields if context is None else self.type.dump(context)

    def changes(self, after: Any, *, what: str) -> merge.Patch:
        """Return the patch from this context's fields to `after`.

        Raises:
            NotJournalable: a field has a value that is not JSON.
        """
        patch = merge.diff(self.fields, after)
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
        if GATE.masks_values or self.type.pii:
            patch = [self._entering(op) for op in patch]
        after = merge.apply(self.tree, patch)
        own = [op for op in patch if not is_of_threads(op)]
        if not own:
            return patch, after
        fields, changed = only_fields(after), {str(op[1][0]) for op in own}
        declared = self.type.check(fields, what=f"context after {what}", changed=changed)
        if declared is not fields:
            of_threads = [op for op in patch if is_of_threads(op)]
            patch = [*merge.revalued(self.fields, own, declared), *of_threads]
            after = merge.apply(self.tree, patch)
        return patch, after

    def _entering(self, op: merge.Op) -> merge.Op:
        """Return a write to a field with its personal data masked where that is declared."""
        match op:
            case ["set" | "append" as kind, [field, *_] as path, value] if not is_of_threads(op):
                return [kind, path, GATE.entering(value, self.type.pii.get(str(field)), key=str(path[-1]))]
            case _:
                return op
