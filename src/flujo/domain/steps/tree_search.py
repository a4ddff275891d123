"""`tree_search`: proposes candidates, evaluates them, keeps the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY
from functools import cached_property
from typing import Any, ClassVar

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Conversation, In, Out, Pipeline
from flujo.domain.steps.arguments import Answerer, answerer
from flujo.domain.steps.step import Step
from flujo.domain.values import CallableRef, Limit, Limited, Logic, Logical, Value, Valued

CANDIDATES: Mapping[str, Any] = {"type": "array"}
"""The schema of answers of `propose`."""
SCORE: Mapping[str, Any] = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "required": ["score"],
            "properties": {"score": {"type": "number"}, "reason": {"type": "string"}},
        },
    ]
}
"""The schema of answers of `evaluate`; more is better."""


@node
class TreeSearchStep(BaseStep[In, Out]):
    """Beam search: `propose` candidates, `evaluate` them, keep the best, until `goal` is true.

    Both get a node: `{candidate, path, depth, input}`. `propose` answers with a list of candidates,
    `evaluate` with a number or with `{score, reason}`; more is better.
    """

    kind: ClassVar[str] = "tree_search"
    records_inside: ClassVar[bool] = True

    _: KW_ONLY
    propose: Takes[Answerer, AgentSpec | CallableRef] = takes(answerer)
    """An agent or a callable that returns candidates."""
    evaluate: Takes[Answerer, AgentSpec | CallableRef] = takes(answerer)
    """An agent or a callable that scores one candidate; more is better."""
    goal: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """A condition on `candidate`, `score` and `depth`; without it the search continues to `max_depth`."""
    beam_width: int = takes(values.count, default=3)
    """How many candidates of each depth the search keeps."""
    max_depth: int = takes(values.count, default=5)
    """The maximum depth."""
    max_concurrency: Takes[Limited, int | Limit] = takes(values.limit, default=10)
    """How many candidates are processed concurrently."""
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """The input of the root, instead of the output of the step before."""

    def summary(self) -> str:
        """Return the proposer and the evaluator."""
        return f"searches candidates of {self.propose}, scored by {self.evaluate}"

    def conversations(self) -> Iterator[Conversation]:
        """Yield those about the nodes; how many candidates a node has, the proposer decides."""
        nodes = self.beam_width * (self.max_depth - 1) + 1
        yield Conversation(who=self.propose, name="propose", input=self.input, most=nodes)
        yield Conversation(who=self.evaluate, name="evaluate", input=self.input, least=0, most=None)

    def limits(self) -> Iterator[str]:
        """Yield the depth and the width."""
        yield f"at most {self.max_depth} deep, the best {self.beam_width} of each depth"

    @cached_property
    def proposes(self) -> Pipeline:
        """The body that asks for the candidates below a node."""
        return Pipeline((_question("propose", self.propose, CANDIDATES),))

    @cached_property
    def evaluates(self) -> Pipeline:
        """The body that asks for the score of a node."""
        return Pipeline((_question("evaluate", self.evaluate, SCORE),))


def _question(name: str, who: AgentSpec | CallableRef, schema: Mapping[str, Any]) -> Step:
    """Return the step that asks one of the two agents; an agent's own output schema takes precedence."""
    if isinstance(who, CallableRef):
        return Step(name=name, call=who, output_schema=schema)
    own = who.output_schema is not None or who.output_type is not None
    return Step(name=name, agent=who, output_schema=None if own else schema)
