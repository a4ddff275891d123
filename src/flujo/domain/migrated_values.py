"""The recorded values that name a step, a branch or a state, converted together with its path.

- the decision of a router: the chosen branches;
- the decision of a `switch`: its value, when that is the name of a renamed branch;
- the end of a visit of a state machine: the next state, `to` of its detail;
- the end of a `parallel` or router without `output:`: the branches, as keys of its output;
- a patch, also in a range: the paths of the exchanges that it adds to a thread;
- the detail of a step on a thread, and the agent of a conversation on one: the path of the last exchange
  that the step has seen, `thread.after`;
- an error: the path of the step that has failed.

Other values stay as they are recorded. What a pipeline has copied out of these, for example into its context
or into the input of a later step, is data of the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.paths import StepPath, branch, operator, parent, without_counts
from flujo.domain.steps.conditional import value_text
from flujo.domain.threads import THREADS, is_of_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flujo.domain.journal import Entry
    from flujo.domain.merge import Patch

_THREAD, _THREADS = b'"thread":', THREADS.encode()
"""Without these, values are not decoded."""


@dataclass(frozen=True, slots=True)
class Names:
    """The other names of branches or states of one composite."""

    newer: Mapping[str, str]

    def reversed(self) -> Names:
        """Return the conversion back."""
        return Names({new: old for old, new in self.newer.items()})

    def of(self, value: Any) -> Any:
        """Return a decision with other names: a list of branches, or a value that is the name of one."""
        if isinstance(value, list):
            return [self.of(each) for each in value]
        return self.newer.get(value_text(value), value)

    def keys(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """Return a map by branches with other keys."""
        return {self.newer.get(key, key): value for key, value in output.items()}


def named(entry: Entry) -> Iterator[StepPath]:
    """Yield the paths of the branches or states that an entry may name, without counts.

    A run may have ended after a choice, before the branch or state has an entry of its own.
    """
    if entry.kind is EntryKind.DECISION and entry.attempt and entry.output is not None:
        chosen = canonical.decode(entry.output)
        for each in chosen if isinstance(chosen, list) else [chosen]:
            if isinstance(each, str | int | float):
                yield branch(without_counts(entry.path), value_text(each))
    elif entry.kind is EntryKind.DONE and entry.detail is not None and b'"to":' in entry.detail:
        to = canonical.decode(entry.detail).get("to")
        if isinstance(to, str):
            yield branch(without_counts(parent(parent(entry.path))), to)


@dataclass(frozen=True, slots=True)
class Renaming:
    """One direction of the conversion of entries: as the pipeline has them, or as the journal has them."""

    moved: Callable[[StepPath], StepPath]
    """Returns the other path."""
    names: Mapping[StepPath, Names]
    """By composite of the pipeline, the other names of its branches or states."""
    outputs: Mapping[StepPath, frozenset[str]]
    """By composite of the pipeline whose output is a map by branches, all names that branches have or had."""
    is_read: bool
    """Whether the result is what the pipeline has."""

    def entry(self, entry: Entry) -> Entry:
        """Return an entry with the other path, and with other paths and names in its values."""
        path = self.moved(entry.path)
        output, detail = self._named(entry, path if self.is_read else entry.path)
        if entry.kind is EntryKind.DECISION and entry.fingerprint and output is not None:
            output = self._heard(output)  # an agent; the decision of a composite has no fingerprint
        patch = None if entry.patch is None else self._patched(entry.patch)
        detail = None if detail is None else self._detail(detail)
        error = self.error(entry.error)
        if (path, output, patch, detail, error) == (
            *(entry.path, entry.output, entry.patch, entry.detail, entry.error),
        ):
            return entry
        return replace(entry, path=path, output=output, patch=patch, detail=detail, error=error)

    def error(self, error: bytes | None) -> bytes | None:
        """Return an error with the other path of the step that has failed."""
        if error is None:
            return None
        said: dict[str, Any] = canonical.decode(error)
        path = said.get("path")
        return canonical.encode({**said, "path": self.moved(StepPath(path))}) if path else error

    # Branches and states ------------------------------------------------------------------------------------

    def _named(self, entry: Entry, path: StepPath) -> tuple[bytes | None, bytes | None]:
        """Return the output and the detail of an entry with other names; `path` is that in the pipeline."""
        output, detail = entry.output, entry.detail
        if not self.names:
            return output, detail
        place, machine = without_counts(path), without_counts(parent(parent(path)))
        names = self.names.get(place)
        if names is not None and output is not None and entry.kind is EntryKind.DECISION and entry.attempt:
            output = canonical.encode(names.of(canonical.decode(output)))
        elif names is not None and output is not None and place in self.outputs:
            given = canonical.decode(output)
            if (
                entry.kind is EntryKind.DONE
                and isinstance(given, dict)
                and given.keys() <= self.outputs[place]
            ):
                output = canonical.encode(names.keys(given))
        elif machine in self.names and detail is not None and operator(parent(path)) == ":":
            facts = canonical.decode(detail)
            if entry.kind is EntryKind.DONE and isinstance(facts.get("to"), str):
                detail = canonical.encode({**facts, "to": self.names[machine].of(facts["to"])})
        return output, detail

    # Threads ------------------------------------------------------------------------------------------------

    def _patched(self, patch: bytes) -> bytes:
        return canonical.encode(self._ops(canonical.decode(patch))) if _THREADS in patch else patch

    def _ops(self, patch: Patch) -> Patch:
        return [[*op[:2], self._exchanges(op[2])] if is_of_threads(op) and op[2:] else op for op in patch]

    def _exchanges(self, added: Any) -> Any:
        """Return paths that are added to a thread, or several threads with theirs."""
        if isinstance(added, dict):
            return {thread: self._exchanges(each) for thread, each in added.items()}
        return [self.moved(path) for path in added] if isinstance(added, list) else self.moved(added)

    def _detail(self, detail: bytes) -> bytes:
        if _THREADS in detail:
            facts = canonical.decode(detail)
            ranges = {item: self._ops(patch) for item, patch in facts.get("patches", {}).items()}
            detail = canonical.encode({**facts, "patches": ranges}) if ranges else detail
        return self._heard(detail)

    def _heard(self, said: bytes) -> bytes:
        """Return what a step has seen of its thread, with the other path of the last exchange."""
        if _THREAD not in said:
            return said
        facts = canonical.decode(said)
        seen = facts.get("thread") if isinstance(facts, dict) else None
        if not isinstance(seen, dict) or not seen.get("after"):
            return said
        return canonical.encode({**facts, "thread": {**seen, "after": self.moved(seen["after"])}})
