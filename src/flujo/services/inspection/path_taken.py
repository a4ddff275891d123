"""The path of a run through its pipeline: how far each step of the tree was executed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from flujo.domain.paths import is_inside, without_counts
from flujo.domain.run import RunStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.services.inspection.trace_tree import TraceNode


class Passed(StrEnum):
    """How far a step was executed; of several executions, what needs attention first."""

    RUNNING = "running"
    WAITING = "waiting"
    """For a human, a time, an event, or a process that resumes the run."""
    FAILED = "failed"
    DONE = "done"
    SKIPPED = "skipped"
    NOT_REACHED = "not reached"

    @property
    def was_taken(self) -> bool:
        """Whether the run has come to the step, and did not skip it."""
        return self not in (Passed.SKIPPED, Passed.NOT_REACHED)


_KNOWN = {"completed": Passed.DONE, "failed": Passed.FAILED, "skipped": Passed.SKIPPED}
_MOVING = (RunStatus.ACCEPTED, RunStatus.RUNNING)
_RESTING = (RunStatus.PAUSED, RunStatus.WAITING, RunStatus.INTERRUPTED, RunStatus.PARKED)


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of a step of the tree."""

    state: Passed = Passed.NOT_REACHED
    times: int = 0
    """How often it was executed: in each iteration, for each item, at each visit."""
    failed: int = 0
    """How many of these failed."""
    seconds: float = 0.0
    """How long they took together."""


NOT_PASSED = Passage()


def path_taken(pipeline: Pipeline, root: TraceNode) -> Mapping[StepPath, Passage]:
    """Return what became of each step of a pipeline in a run.

    Args:
        pipeline: the tree with which the run was accepted.
        root: the trace of the run.
    """
    places = [path for path, _ in pipeline.walk()]
    found: dict[StepPath, list[TraceNode]] = {path: [] for path in places}
    for node in root.walk():
        place = without_counts(node.path)
        if node.items is not None and _folded(node):
            for inner in (each for each in places if is_inside(each, place)):
                found[inner].append(node)
        if place in found and not node.path.endswith("]"):  # which is one iteration or item of its step
            found[place].append(node)
    status = RunStatus(root.status)
    return {path: _passage(nodes, status) if nodes else NOT_PASSED for path, nodes in found.items()}


def _passage(nodes: list[TraceNode], status: RunStatus) -> Passage:
    states = [_state(node, status) for node in nodes]
    counts = [_folded(node) if node.items is not None else 1 for node in nodes]
    return Passage(
        state=next(each for each in Passed if each in states),
        times=sum(count for count, each in zip(counts, states, strict=True) if each is not Passed.SKIPPED),
        failed=sum(each is Passed.FAILED for each in states),
        seconds=sum(node.seconds for node in nodes),
    )


def _folded(node: TraceNode) -> int:
    """Return how many items of a range have no entries of their own."""
    first, last = node.items or (0, -1)
    return max(0, last - first + 1 - len(node.children))


def _state(node: TraceNode, status: RunStatus) -> Passed:
    if (known := _KNOWN.get(str(node.status))) is not None:
        return known
    if str(node.status) in ("paused", "waiting"):
        return Passed.WAITING if status in (*_MOVING, *_RESTING) else Passed.FAILED
    if status in _MOVING:
        return Passed.RUNNING
    return Passed.WAITING if status in _RESTING else Passed.FAILED
