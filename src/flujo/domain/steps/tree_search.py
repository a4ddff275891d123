"""`tree_search`: proposes candidates, evaluates them, keeps the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY
from typing import ClassVar

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, In, Out
from flujo.domain.steps.arguments import Answerer, answerer
from flujo.domain.values import CallableRef, Logic, Logical, Value, Valued


@node
class TreeSearchStep(BaseStep[In, Out]):
    """Beam search: `propose` candidates, `evaluate` them, keep the best, until `goal` holds.

    Both get a node: `{candidate, path, depth, input}`. `propose` answers with a list of candidates,
    `evaluate` with a number or with `{score, reason}`; more is better.
    """

    kind: ClassVar[str] = "tree_search"

    _: KW_ONLY
    propose: Takes[Answerer, AgentSpec | CallableRef] = takes(answerer)
    """An agent or a callable that gives candidates."""
    evaluate: Takes[Answerer, AgentSpec | CallableRef] = takes(answerer)
    """An agent or a callable that scores one; more is better."""
    goal: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """Over `candidate`, `score` and `depth`; without it the search goes to `max_depth`."""
    beam_width: int = takes(values.count, default=3)
    """How many candidates of each depth the search continues with."""
    max_depth: int = takes(values.count, default=5)
    """How deep it goes at most."""
    max_concurrency: int = takes(values.count, default=10)
    """How many candidates are worked on at once."""
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """What is searched for, instead of the output of the step before."""

    def summary(self) -> str:
        """Return who proposes and who evaluates."""
        return f"searches what {self.propose} proposes, judged by {self.evaluate}"

    def limits(self) -> Iterator[str]:
        """Yield the depth and the width."""
        yield f"at most {self.max_depth} deep, the best {self.beam_width} of each depth"
