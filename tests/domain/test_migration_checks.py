"""Migrations that no run could follow are refused, with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flujo import Flujo, Pipeline, Step
from flujo.domain.migration_checks import migration_findings
from flujo.domain.pipeline import CachePolicy, StepConfig
from flujo.domain.steps import (
    CacheStep,
    CallableRef,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
)
from flujo.exceptions import PipelineError
from flujo.state.memory_store import MemoryStateStore


def same(data: Any) -> Any:
    return data


INNER = LoopStep(name="loop", body=Pipeline((Step("inner", same),)), until=Expr("true"))
ONE = Step("one", same)
BRANCHES = ParallelStep(name="both", branches={"left": ONE})
STATES = StateMachineStep(name="new", initial="only", states={"only": State(ONE)}, final=("only",))
SIZE = ConditionalStep(name="size", condition=Expr("input"), branches={"small": ONE}, default=ONE)


@pytest.mark.parametrize(
    ("migrations", "code", "words"),
    [
        ({"a": "nothing"}, "FLJ284", "no step `nothing`"),
        ({"first": "loop"}, "FLJ286", "still a path"),
        ({"a": "loop", "loop": "first"}, "FLJ286", "still a path"),
        ({"a": "loop/inner"}, "FLJ287", "has iterations"),
        ({"both:left/a": "first"}, "FLJ286", "different places"),
        ({"both:left/a": "both:right/one"}, "FLJ284", "no step"),
        ({"loop/inner": "first"}, "FLJ286", "still a path"),
        ({"both:right": "both:middle"}, "FLJ284", "no branch or state `both:middle`"),
        ({"both:left": "both:left"}, "FLJ286", "still a path"),
        ({"other:right": "both:left"}, "FLJ286", "different places"),
        ({"both/right": "both:left"}, "FLJ286", "different places"),
        ({"both:merge": "both:left"}, "FLJ286", "records of its own"),
        ({"size:then": "size:small"}, "FLJ286", "not its name"),
        ({"size:big": "size:default"}, "FLJ286", "not its name"),
        ({"old/a": "loop/inner"}, "FLJ286", "different places"),
        ({"": "first"}, "FLJ286", "not the path of a step"),
        ({"loop[0]/a": "loop/inner"}, "FLJ286", "not the path of a step"),
        ({1: "first"}, "FLJ198", "mapping of old paths"),
    ],
)
def test_migrations_that_no_run_could_follow_are_refused(migrations: Any, code: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words) as refused:
        Flujo(
            Pipeline((Step("first", same), INNER, BRANCHES, SIZE), "p", migrations=migrations),
            store=MemoryStateStore(),
        )
    assert refused.value.code == code


def test_a_step_inside_a_renamed_step_may_be_renamed_as_well() -> None:
    migrations = {"old": "loop", "old/a": "loop/inner", "older": "loop"}
    Flujo(Pipeline((INNER,), "p", migrations=migrations), store=MemoryStateStore())


def test_a_branch_and_a_state_may_be_renamed_as_well() -> None:
    migrations = {"pair": "both", "pair:west": "both:left", "size:tiny": "size:small"}
    Flujo(Pipeline((BRANCHES, SIZE), "p", migrations=migrations), store=MemoryStateStore())


@pytest.mark.parametrize(
    ("composite", "into", "words"),
    [
        (MapStep(name="new", over=Expr("input"), body=ONE), "new", "has items"),
        (STATES, "new:only", "has visits"),
        (DynamicParallelRouterStep(name="new", router=same, branches={"x": ONE}), "new:x", "asks for its"),
        (CacheStep(name="new", step=ONE), "new", "calls what is inside it itself"),
        (replace(ONE, name="new", fallback=ONE), "new", "no step"),
        (replace(BRANCHES, name="new", cache=CachePolicy()), "new:left", "has a cache"),
        (replace(BRANCHES, name="new", when=CallableRef("x:y", same)), "new:left", "has a callable"),
        (ConditionalStep(name="new", condition=same, then=ONE), "new:then", "has a callable"),
        (
            replace(BRANCHES, name="new", config=StepConfig(execution_mode="background")),
            "new:left",
            "a journal",
        ),
    ],
)
def test_a_step_cannot_move_where_its_record_cannot_follow(composite: Any, into: str, words: str) -> None:
    tree = Pipeline((composite,), "p", migrations={"old": f"{into}/one"})
    with pytest.raises(PipelineError, match=words) as refused:
        Flujo(tree, store=MemoryStateStore())
    assert refused.value.code == ("FLJ284" if words == "no step" else "FLJ287")


@pytest.mark.parametrize(
    ("composite", "into"),
    [
        (BRANCHES, "both:left"),
        (replace(BRANCHES, when=Expr("input > 1")), "both:left"),
        (SIZE, "size:small"),
        (SIZE, "size:default"),
        (ImportStep("sub", Pipeline(ONE, "sub")), "sub"),
        (ImportStep("sub", Pipeline(BRANCHES, "sub")), "sub/both:left"),
    ],
)
def test_a_step_may_move_into_a_new_composite(composite: Any, into: str) -> None:
    tree = Pipeline((composite,), "p", migrations={"old": f"{into}/one"})
    Flujo(tree, store=MemoryStateStore())


def test_a_step_in_the_background_keeps_its_name_in_a_pipeline_without_files() -> None:
    later = replace(ONE, config=StepConfig(execution_mode="background"))
    tree = Pipeline((later,), "p", migrations={"old": "one"})
    assert [*migration_findings(tree)] == []
    with pytest.raises(PipelineError, match="finds it by the old path"):
        Flujo(tree, store=MemoryStateStore())
