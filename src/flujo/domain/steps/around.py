"""Steps around others: a cache, an import, and a search that asks two agents again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, overload

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import In, Out, Pipeline
from flujo.domain.steps.base import (
    Answerer,
    BaseStep,
    CachePolicy,
    Common,
)
from flujo.domain.steps.making import ArgumentReader, set_fields
from flujo.domain.values import CallableRef, Logic, Logical, Value, Valued

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, kw_only=True, init=False)
class CacheStep(BaseStep[In, Out]):
    """Answers from the cache when `step` was asked the same before.

    `cache=CachePolicy(…)` on a step does the same without a step around it.
    """

    step: BaseStep
    key: Logic | None
    """A further part of the key, beside what the step is and what it is handed."""
    ttl_s: float | None
    """For how many seconds an answer is good, from when it was given."""

    kind: ClassVar[str] = "cache"

    def __init__(
        self,
        name: str,
        step: BaseStep[In, Out],
        *,
        key: Logical | None = None,
        ttl_s: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        """Take the step whose answers are kept.

        Args:
            name: an identifier.
            step: who is asked when the cache has no answer.
            key: a further part of the key, beside what the step is and what it is handed.
            ttl_s: for how many seconds an answer is good.
            common: `when`, `save`, `cache`, `tags`, `config`.
        """
        at = ArgumentReader(name)
        key = values.maybe_logic(key, at("key"))
        set_fields(self, common, name=name, step=at.a(BaseStep, "step", step), key=key, ttl_s=ttl_s)

    @property
    def policy(self) -> CachePolicy:
        """How its answers are kept."""
        return CachePolicy(key=self.key, ttl_s=self.ttl_s)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return a body of the one step."""
        return {"step": Pipeline((self.step,))}


@dataclass(frozen=True, kw_only=True, init=False)
class ImportStep(BaseStep[In, Out]):
    """Another pipeline as one step, with a scope of its own; a blueprint is read when the tree is built."""

    blueprint: str
    """The path, relative to the project's root; empty for a pipeline written in Python."""
    pipeline: Pipeline
    arguments: Mapping[str, Value] | None
    context: Literal["own", "inherit"]
    """Whether its steps read and write a context of the pipeline's own, or the one around this step."""
    on_failure: Literal["fail", "skip"] | Mapping[str, Value]

    kind: ClassVar[str] = "import"

    @overload
    def __init__(
        self: ImportStep[A, B],
        name: str,
        pipeline: Pipeline[A, B],
        *,
        blueprint: str = "",
        arguments: None = None,
        context: Literal["own", "inherit"] = "own",
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: ImportStep[Any, B],
        name: str,
        pipeline: Pipeline[Any, B],
        *,
        blueprint: str = "",
        arguments: Mapping[str, Valued],
        context: Literal["own", "inherit"] = "own",
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        *,
        blueprint: str = "",
        arguments: Mapping[str, Valued] | None = None,
        context: Literal["own", "inherit"] = "own",
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None:
        """Take the pipeline that is one step of another.

        Args:
            name: an identifier.
            pipeline: what is run; `flujo.read_blueprint` gives that of a file.
            blueprint: the file that it was read from.
            arguments: its input, by name, instead of the output of the step before; texts are filled in.
            context: whether its steps have a context of their own, or the one around this step.
            on_failure: whether its failure fails the step, is skipped, or gives `{"output": …}` instead.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            blueprint=blueprint,
            pipeline=at.a(Pipeline, "pipeline", pipeline),
            arguments=values.maybe_mapping(arguments, at("arguments")),
            context=context,
            on_failure=at.instead("on_failure", on_failure),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the imported pipeline."""
        return {"import": self.pipeline}


@dataclass(frozen=True, kw_only=True, init=False)
class TreeSearchStep(BaseStep[In, Out]):
    """Beam search: `propose` candidates, `evaluate` them, keep the best, until `goal` holds.

    Both are handed a node: `{candidate, path, depth, input}`. `propose` answers with a list of candidates,
    `evaluate` with a number or with `{score, reason}`; more is better.
    """

    propose: AgentSpec | CallableRef
    evaluate: AgentSpec | CallableRef
    goal: Logic | None
    """Over `candidate`, `score` and `depth`; without it the search goes to `max_depth`."""
    beam_width: int
    max_depth: int
    max_concurrency: int
    input: Value

    kind: ClassVar[str] = "tree_search"

    def __init__(
        self,
        name: str,
        *,
        propose: Answerer,
        evaluate: Answerer,
        goal: Logical | None = None,
        beam_width: int = 3,
        max_depth: int = 5,
        max_concurrency: int = 10,
        input: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take who proposes and who judges.

        Args:
            name: an identifier.
            propose: an agent or a callable that gives candidates.
            evaluate: an agent or a callable that scores one; more is better.
            goal: when a candidate is good enough; without it the search goes to `max_depth`.
            beam_width: how many candidates of a depth are gone on with.
            max_depth: how deep it goes at most.
            max_concurrency: how many candidates are worked on at once.
            input: what is searched for, instead of the output of the step before.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            propose=at.who("propose", propose),
            evaluate=at.who("evaluate", evaluate),
            goal=values.maybe_logic(goal, at("goal")),
            beam_width=at.count("beam_width", beam_width),
            max_depth=at.count("max_depth", max_depth),
            max_concurrency=at.count("max_concurrency", max_concurrency),
            input=values.value(input, at("input")),
        )
