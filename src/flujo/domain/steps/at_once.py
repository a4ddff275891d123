"""Steps whose bodies run at the same time: items, branches, and branches that a router chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import Body, In, Out, Pipeline
from flujo.domain.pipeline import body as as_body  # `body` is also what constructors call an argument
from flujo.domain.steps.base import (
    NO_ITEMS,
    PREVIOUS,
    Answerer,
    BaseStep,
    Common,
    OnError,
)
from flujo.domain.steps.making import ArgumentReader, Merge, set_fields
from flujo.domain.values import CallableRef, Logic, Logical, Value, Valued


@dataclass(frozen=True, kw_only=True, init=False)
class MapStep(BaseStep[In, Out]):
    """Runs `body` once for each item of `over`; results in the input's order."""

    over: Logic
    body: Pipeline
    item_name: str | None
    """`as`: a second name for `item`."""
    max_concurrency: int
    on_error: OnError
    merge: str | CallableRef
    output: Value

    kind: ClassVar[str] = "map"

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        over: Logical = PREVIOUS,
        item_name: str | None = None,
        max_concurrency: int = 10,
        on_error: OnError = "fail",
        merge: Merge | None = None,
        merge_strategy: Merge | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take what is done with each item.

        Args:
            name: an identifier.
            body: the steps of one item, which is the first one's input and visible as `item`.
            over: the items: an expression, or a callable that gives a list or an async iterator.
            item_name: a second name for `item`.
            max_concurrency: how many items are worked on at once.
            on_error: whether an item's failure fails the step, is collected, or is left out.
            merge: what becomes of what items write to the context; by default nothing is kept.
            merge_strategy: the same, as the manual says it.
            output: what comes out, instead of the list of outputs.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            over=values.logic(over, at("over")),
            body=as_body(body, at("body")),
            item_name=item_name,
            max_concurrency=at.count("max_concurrency", max_concurrency),
            on_error=on_error,
            merge=at.merge(merge, merge_strategy, "no_merge"),
            output=values.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}


@dataclass(frozen=True, kw_only=True, init=False)
class ParallelStep(BaseStep[In, Out]):
    """Runs all branches at once, each on its own view of the context, then merges what they wrote."""

    branches: Mapping[str, Pipeline]
    merge: str | CallableRef
    field_mapping: Mapping[str, tuple[str, ...]]
    on_branch_failure: OnError
    max_concurrency: int | None
    output: Value

    kind: ClassVar[str] = "parallel"
    names_bodies: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        branches: Mapping[str, Body],
        *,
        merge: Merge | None = None,
        merge_strategy: Merge | None = None,
        field_mapping: Mapping[str, Sequence[str]] = NO_ITEMS,
        on_branch_failure: OnError = "fail",
        max_concurrency: int | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take the branches, and how what they write comes together.

        Args:
            name: an identifier.
            branches: the steps of each branch.
            merge: a strategy, or a callable of yours; by default `CONTEXT_UPDATE`.
            merge_strategy: the same, as the manual says it.
            field_mapping: the fields of the context that each branch may write.
            on_branch_failure: whether a branch's failure fails the step, is collected, or is left out.
            max_concurrency: how many branches run at once; without it, all.
            output: what comes out, instead of `{branch: output}`.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        own = branching(
            ArgumentReader(name),
            branches,
            merge,
            merge_strategy,
            field_mapping,
            on_branch_failure,
            max_concurrency,
            output,
        )
        set_fields(self, common, name=name, **own)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches."""
        return self.branches


@dataclass(frozen=True, kw_only=True, init=False)
class DynamicParallelRouterStep(ParallelStep[In, Out]):
    """A parallel step whose branches are chosen by an agent or a callable."""

    router: AgentSpec | CallableRef
    input: Value

    kind: ClassVar[str] = "router"

    def __init__(
        self,
        name: str,
        branches: Mapping[str, Body],
        *,
        router: Answerer | None = None,
        router_agent: Answerer | None = None,
        input: Valued = None,
        merge: Merge | None = None,
        merge_strategy: Merge | None = None,
        field_mapping: Mapping[str, Sequence[str]] = NO_ITEMS,
        on_branch_failure: OnError = "fail",
        max_concurrency: int | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take who chooses, and what can be chosen; the other arguments are `ParallelStep`'s.

        Args:
            name: an identifier.
            branches: the steps of each branch.
            router: an agent or a callable that answers with the names of branches.
            router_agent: the same, as the manual says it.
            input: what is asked, instead of the output of the step before.
            merge: see `ParallelStep`.
            merge_strategy: see there.
            field_mapping: see there.
            on_branch_failure: see there.
            max_concurrency: see there.
            output: see there.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: nobody chooses, or an argument is of another kind.
        """
        at = ArgumentReader(name)
        own = branching(
            at, branches, merge, merge_strategy, field_mapping, on_branch_failure, max_concurrency, output
        )
        router = at.who("router", at.one_of(router=router, router_agent=router_agent))
        set_fields(self, common, name=name, router=router, input=values.value(input, at("input")), **own)


def branching(
    at: ArgumentReader,
    branches: Mapping[str, Body],
    merge: Merge | None,
    merge_strategy: Merge | None,
    field_mapping: Mapping[str, Sequence[str]],
    on_branch_failure: OnError,
    max_concurrency: int | None,
    output: Valued,
) -> dict[str, Any]:
    """Return the fields that a parallel step and a router have in common."""
    return {
        "branches": at.bodies("branches", branches),
        "merge": at.merge(merge, merge_strategy, "context_update"),
        "field_mapping": {name: at.texts("field_mapping", each) for name, each in field_mapping.items()},
        "on_branch_failure": on_branch_failure,
        "max_concurrency": None if max_concurrency is None else at.count("max_concurrency", max_concurrency),
        "output": values.value(output, at("output")),
    }
