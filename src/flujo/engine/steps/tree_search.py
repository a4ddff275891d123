"""`tree_search`: proposes and evaluates candidates level by level, and continues from the best ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.outcomes import Failure, StepOutcome, Success
from flujo.domain.paths import StepPath, child, indexed
from flujo.domain.steps import CallableRef, Expr
from flujo.engine.decisions import decide_flag, limit_of
from flujo.engine.fanout import Branch, fan_out, stopped_by
from flujo.exceptions import ExpressionFailed, OutputRejected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import TreeSearchStep
    from flujo.engine.frame import Frame, RunBody


@dataclass(frozen=True, slots=True)
class Node:
    """A candidate in the tree of all candidates: `place` is its path in the journal."""

    place: StepPath
    path: tuple[Any, ...] = ()
    """The candidates on the path to this one, including it; empty for the root."""
    score: float | int = 0

    @property
    def candidate(self) -> Any:
        """The candidate; None for the root."""
        return self.path[-1] if self.path else None


async def run(step: TreeSearchStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return `{candidate, score, path, depth, goal_reached}` of the best candidate.

    Every request is a separate step in the journal: `search[2][0]/propose` asks for candidates after the
    first candidate below the third one. So a resumed run repeats no request, and a failure, a pause or an
    exhausted budget keeps all earlier nodes.

    Raises:
        ExpressionFailed: `goal` is neither true nor false, or `max_concurrency` is out of its range.
    """
    search = _Search(step, frame, run_body, _given(step, frame))
    try:
        return await _descend(step, frame, path, search)
    except OutputRejected as error:
        return Failure(frame.run.journal.error_info(error, StepPath(error.path or "")), error)


async def _descend(step: TreeSearchStep, frame: Frame, path: StepPath, search: _Search) -> StepOutcome:
    beam, best = [Node(path)], None
    for _ in range(step.max_depth):
        proposed = await search.proposed(beam)
        if not isinstance(proposed, list):
            return proposed
        level = await search.evaluated(proposed)
        if not isinstance(level, list):
            return level
        if not level:
            break
        for node in level:
            if await _is_goal(step, frame, node):
                return _found(node, goal_reached=True)
        best = _best([*([best] if best else []), *level])[0]
        beam = level[: step.beam_width]
    if best is None:
        raise OutputRejected(
            f"`propose` of step {step.name!r} returned no candidate for the root",
            hint="it must propose at least one for the node whose `candidate` is null",
            path=child(path, "propose"),
        )
    return _found(best, goal_reached=False)


def _given(step: TreeSearchStep, frame: Frame) -> Any:
    given = frame.previous if step.input is None else frame.render(step.input)
    return canonical.normalise(given, what=f"input of step {step.name!r}")


def _best(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes by descending score; equal ones in the order of proposal."""
    return sorted(nodes, key=lambda node: -node.score)


def _found(node: Node, *, goal_reached: bool) -> Success:
    return Success(
        {
            "candidate": node.candidate,
            "score": node.score,
            "path": list(node.path),
            "depth": len(node.path),
            "goal_reached": goal_reached,
        }
    )


async def _is_goal(step: TreeSearchStep, frame: Frame, node: Node) -> bool:
    """Return whether a node meets the goal; the result of a callable is a decision."""
    what = f"`goal` of step {step.name!r}"
    names = {"candidate": node.candidate, "score": node.score, "depth": len(node.path)}
    match step.goal:
        case None:
            return False
        case CallableRef():
            asked = frame.inside(node.place, previous=names)
            return await decide_flag(step.goal, asked, node.place, what=what)
        case Expr():
            holds = frame.evaluate(step.goal, **names)
            if not isinstance(holds, bool):
                raise ExpressionFailed(f"{what} is {holds!r}, which is neither true nor false")
            return holds


class _Search:
    """Asks the two agents of one search, several nodes at once."""

    def __init__(self, step: TreeSearchStep, frame: Frame, run_body: RunBody, given: Any) -> None:
        self._step = step
        self._frame = frame
        self._run_body = run_body
        self._given = given
        what = f"`max_concurrency` of step {step.name!r}"
        self._limit = limit_of(step.max_concurrency, frame, what=what)

    async def proposed(self, beam: Sequence[Node]) -> list[Node] | StepOutcome:
        """Return the proposed successors of the nodes of a beam, in order, not yet evaluated."""
        answers = await self._ask(self._step.proposes, beam)
        if not isinstance(answers, list):
            return answers
        return [
            Node(indexed(node.place, index), (*node.path, candidate))
            for node, candidates in zip(beam, answers, strict=True)
            for index, candidate in enumerate(_candidates(node, candidates))
        ]

    async def evaluated(self, nodes: Sequence[Node]) -> list[Node] | StepOutcome:
        """Return the nodes with their scores, the best first."""
        answers = await self._ask(self._step.evaluates, nodes)
        if not isinstance(answers, list):
            return answers
        pairs = zip(nodes, answers, strict=True)
        return _best([Node(node.place, node.path, _score(node, answer)) for node, answer in pairs])

    async def _ask(self, question: Pipeline, nodes: Sequence[Node]) -> list[Any] | StepOutcome:
        """Return the answers for all nodes, or the outcome that stops the search."""

        async def branches() -> AsyncGenerator[Branch, None]:
            for node in nodes:
                asked = {
                    "candidate": node.candidate,
                    "path": list(node.path),
                    "depth": len(node.path),
                    "input": self._given,
                }
                yield Branch(str(node.place), node.place, question, asked)

        results = await fan_out(
            self._frame,
            self._step.kind,
            branches(),
            self._run_body,
            limit=self._limit,
            stop_at_failure=True,
            one_entry=False,
        )
        stopped = stopped_by(self._frame, results, failures_stop=True)
        return [result.output for result in results] if stopped is None else stopped


def _candidates(node: Node, answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise _rejected(node, "propose", "is not a list of candidates", "it must answer with a list")
    return answer


def _score(node: Node, answer: Any) -> float | int:
    score = answer.get("score") if isinstance(answer, dict) else answer
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise _rejected(
            node, "evaluate", "has no score", "it must answer with a number, or with `{score, reason}`"
        )
    return score


def _rejected(node: Node, name: str, what: str, hint: str) -> OutputRejected:
    return OutputRejected(
        f"the answer of `{name}` at `{node.place}` {what}", hint=hint, path=child(node.place, name)
    )
