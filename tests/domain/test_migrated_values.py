"""Recorded values that name a branch, a state or a step are converted with its path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flujo import Pipeline, Step
from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.migrated_values import named
from flujo.domain.migrations import Migrations
from flujo.domain.paths import StepPath
from flujo.domain.run import new_write
from flujo.domain.steps import (
    ConditionalStep,
    Expr,
    ParallelStep,
    State,
    StateMachineStep,
)
from flujo.domain.threads import THREADS

ONE = Step("one", str)


def entry(path: str, kind: EntryKind = EntryKind.DONE, fingerprint: str = "", **values: Any) -> Entry:
    """Return an entry; its values are canonical JSON."""
    bare = Entry(path=StepPath(path), kind=kind, attempt=1, fingerprint=fingerprint, started_at=0, ended_at=0)
    changes: Any = {name: canonical.encode(value) for name, value in values.items()}
    return replace(bare, **changes)


TREE = Pipeline(
    (
        ParallelStep("both", {"port": ONE, "right": ONE}),
        ParallelStep("told", {"port": ONE}, output="done"),
        ConditionalStep(name="size", condition=Expr("input"), branches={"small": ONE}, default=ONE),
        StateMachineStep(name="new", initial="only", states={"only": State(ONE)}, final=("only",)),
        Step("said", str),
    ),
    "p",
    migrations={
        "pair": "both",
        "pair:left": "both:port",
        "told:left": "told:port",
        "size:3": "size:small",
        "new:first": "new:only",
        "spoke": "said",
    },
)
VALUES = [
    ("pair", "both", EntryKind.DONE, "output", {"left": 1, "right": 2}, {"port": 1, "right": 2}),
    ("pair", "both", EntryKind.DONE, "output", {"left": 1, "other": 2}, {"left": 1, "other": 2}),
    ("pair", "both", EntryKind.DECISION, "output", ["left", "right"], ["port", "right"]),
    ("told", "told", EntryKind.DONE, "output", {"left": 1}, {"left": 1}),
    ("size", "size", EntryKind.DECISION, "output", "3", "small"),
    ("size", "size", EntryKind.DECISION, "output", "4", "4"),
    ("new:first[0]", "new:only[0]", EntryKind.DONE, "detail", {"to": "first"}, {"to": "only"}),
    ("new:first[0]", "new:only[0]", EntryKind.DONE, "detail", {"to": None}, {"to": None}),
    ("spoke", "said", EntryKind.WORK, "patch", [["append", [THREADS, "t"], ["spoke"]]], ["said"]),
    ("last", "last", EntryKind.DONE, "patch", [["set", [THREADS], {"t": ["spoke"]}]], {"t": ["said"]}),
    ("last", "last", EntryKind.WORK, "patch", [["set", ["t"], ["spoke"]]], ["spoke"]),
]


@pytest.mark.parametrize(("old", "new", "kind", "field", "before", "after"), VALUES)
def test_values_that_name_a_part_are_converted_both_ways(
    old: str, new: str, kind: EntryKind, field: str, before: Any, after: Any
) -> None:
    found = Migrations(TREE.migrations, TREE)
    recorded = entry(old, kind, **{field: before})
    read = found.read_entry(recorded)
    assert read.path == new
    value = canonical.decode(getattr(read, field))
    assert (value[0][2] if field == "patch" else value) == after
    written = found.written(new_write(run_id=RunId("run"), fence=1, entries=(read,), move=None))
    assert written.entries == (recorded,)


def test_what_a_step_has_seen_of_a_thread_is_converted() -> None:
    seen, now = {"thread": {"name": "t", "after": "spoke"}}, {"thread": {"name": "t", "after": "said"}}
    found = Migrations(TREE.migrations, TREE)
    assert found.read_entry(entry("a", EntryKind.WORK, detail=seen)).detail == canonical.encode(now)
    talk = entry("a", EntryKind.DECISION, output=seen, fingerprint="granular")
    assert found.read_entry(talk).output == canonical.encode(now)
    chosen = entry("a", EntryKind.DECISION, output=seen)
    assert found.read_entry(chosen) == chosen, "the decision of a callable is data"
    ranged = entry("m[0..1]", detail={"patches": {"0": [["append", [THREADS, "t"], ["spoke"]]]}, "failed": 0})
    read = canonical.decode(found.read_entry(ranged).detail or b"")
    assert read["patches"] == {"0": [["append", [THREADS, "t"], ["said"]]]}


def test_a_choice_applies_before_its_branch_has_begun() -> None:
    chosen = entry("pair", EntryKind.DECISION, output=["left"])
    visit = entry("new:start[0]", detail={"to": "first"})
    assert [*named(chosen)] == ["pair:left"]
    assert [*named(visit)] == ["new:first"]
