"""Paths of renamed steps, both ways, and the migrations that a pipeline in Python may not have."""

from __future__ import annotations

from typing import Any

import pytest

from flujo import Flujo, Pipeline, Step
from flujo.domain.migrations import Migrations
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Migration
from flujo.domain.steps import Expr, LoopStep, ParallelStep
from flujo.exceptions import PipelineError
from flujo.state.memory_store import MemoryStateStore


def renamed(**paths: str) -> Migrations:
    """Return migrations from old to new paths; `__` stands for `/`."""
    pairs = [(StepPath(old.replace("__", "/")), StepPath(new)) for old, new in paths.items()]
    return Migrations([Migration(old, new) for old, new in pairs])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a", "b"),
        ("a/x", "b/y"),
        ("a/z", "b/z"),
        ("a[2]/x", "b[2]/y"),
        ("a[2]/x[7]/c", "b[2]/y[7]/c"),
        ("a[0..9]", "b[0..9]"),
        ("a[..]", "b[..]"),
        ("a:left/x", "b:left/x"),
        ("a!doubt[0]", "b!doubt[0]"),
        ("a[1]/x!stub", "b[1]/y!stub"),
        ("a/turn[3]/tool[0]", "b/turn[3]/tool[0]"),
        ("a:unfinished", "b:unfinished"),
        ("ab", "ab"),
        ("c/a", "c/a"),
        ("", ""),
    ],
)
def test_a_path_is_converted_both_ways(old: str, new: str) -> None:
    found = renamed(a="b", a__x="b/y")
    assert found.new(StepPath(old)) == new
    assert found.old(StepPath(new)) == old
    assert not found.is_ambiguous(StepPath(old))


def test_a_recorded_path_that_a_renamed_step_has_now_is_ambiguous() -> None:
    assert renamed(a="b").is_ambiguous(StepPath("b[0]/c"))


@pytest.mark.parametrize(
    ("recorded", "applied"),
    [
        (["a"], ["a"]),
        (["a[3]/c"], ["a"]),
        (["a!doubt[0]"], ["a"]),
        (["ab", "b"], []),
        (["older", "a"], ["a"]),
        (["older"], ["older"]),
        ([], []),
    ],
)
def test_a_migration_applies_to_a_run_that_has_recorded_its_old_path(
    recorded: list[str], applied: list[str]
) -> None:
    declared = renamed(a="b", older="b").applied
    assert [each.old for each in Migrations.of(declared, map(StepPath, recorded)).applied] == applied


def same(data: Any) -> Any:
    return data


INNER = LoopStep(name="loop", body=Pipeline((Step("inner", same),)), until=Expr("true"))
BRANCHES = ParallelStep(name="both", branches={"left": Pipeline((Step("one", same),))})


@pytest.mark.parametrize(
    ("migrations", "code", "words"),
    [
        ({"a": "nothing"}, "FLJ284", "no step `nothing`"),
        ({"first": "loop"}, "FLJ286", "still a path"),
        ({"a": "loop", "loop": "first"}, "FLJ286", "still a path"),
        ({"a": "loop/inner"}, "FLJ286", "different places"),
        ({"loop/inner": "first"}, "FLJ286", "still a path"),
        ({"both:right": "both:left"}, "FLJ286", "different places"),
        ({"old/a": "loop/inner"}, "FLJ286", "different places"),
        ({"": "first"}, "FLJ286", "not the path of a step"),
        ({"loop[0]/a": "loop/inner"}, "FLJ286", "not the path of a step"),
        ({1: "first"}, "FLJ198", "mapping of old paths"),
    ],
)
def test_migrations_that_no_run_could_follow_are_refused(migrations: Any, code: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words) as refused:
        Flujo(
            Pipeline((Step("first", same), INNER, BRANCHES), "p", migrations=migrations),
            store=MemoryStateStore(),
        )
    assert refused.value.code == code


def test_a_step_inside_a_renamed_step_may_be_renamed_as_well() -> None:
    migrations = {"old": "loop", "old/a": "loop/inner", "older": "loop"}
    Flujo(Pipeline((INNER,), "p", migrations=migrations), store=MemoryStateStore())
