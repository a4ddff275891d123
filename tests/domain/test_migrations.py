"""Paths of renamed and moved parts, both ways, and the migrations that apply to a run."""

from __future__ import annotations

import pytest

from flujo import Pipeline, Step
from flujo.domain.migrations import Migrations
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Migration


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
    tree = Pipeline((Step("b", str),), migrations={"a": "b", "older": "b"})
    assert [each.old for each in Migrations.of(tree, map(StepPath, recorded)).applied] == applied


def test_a_path_moves_with_its_counts() -> None:
    found = renamed(a="c:l/a", a__x="c:l/a/p:z/y", b__x="b/c/x")
    pairs = {
        "a": "c:l/a",
        "a[1]/x[2]/q": "c:l/a[1]/p:z/y[2]/q",
        "a[1]/w!doubt[0]": "c:l/a[1]/w!doubt[0]",
        "b[3]/x": "b[3]/c/x",
        "b[3]": "b[3]",
        "c:l": "c:l",
        "c": "c",
    }
    assert {old: found.new(StepPath(old)) for old in pairs} == pairs
    assert [found.old(StepPath(new)) for new in pairs.values()] == [*pairs]
    assert found.shells == {"c", "c:l", "c:l/a/p", "c:l/a/p:z", "b/c"}
    levels = ["", "c", "c:l", "c:l/a", "c:l/a[1]/p:z", "b[3]/c", "b[3]"]
    moved = [found.moved_into(StepPath(level)) for level in levels]
    assert moved == [[], [], ["a"], [], ["a[1]/x"], ["b[3]/x"], []]
