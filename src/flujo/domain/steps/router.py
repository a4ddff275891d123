"""`router`: an agent or a callable chooses which branches run at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, InitVar
from typing import ClassVar

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import Conversation, Extent, In, Out
from flujo.domain.steps.arguments import Answerer, answerer
from flujo.domain.steps.parallel import ParallelStep
from flujo.domain.values import CallableRef, Value, Valued


@node
class DynamicParallelRouterStep(ParallelStep[In, Out]):
    """A parallel step whose branches are chosen by an agent or a callable."""

    kind: ClassVar[str] = "router"

    _: KW_ONLY
    router: Takes[Answerer | None, AgentSpec | CallableRef] = takes(
        answerer, default=None, spelled="router_agent"
    )
    """An agent or a callable that answers with the names of branches."""
    router_agent: InitVar[Answerer | None] = None
    """An alias of `router`."""
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """The router's input, instead of the output of the step before."""

    @property
    def extent(self) -> Extent:
        """The branches that the router picks."""
        return Extent(way="some")

    def conversations(self) -> Iterator[Conversation]:
        """Yield that with the router."""
        yield Conversation(who=self.router, input=self.input)

    def summary(self) -> str:
        """Return the router."""
        return f"the branches that {self.router} picks"

    def decides(self) -> str:
        """Return the router."""
        return str(self.router)
