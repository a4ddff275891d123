"""Which entries are before a path: laws that hold for every journal, and the places of each kind of step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.domain import paths
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.steps import (
    ConditionalStep,
    Expr,
    GranularStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Transition,
    TreeSearchStep,
)
from flujo.services.runs.copied import Point, chain_of, numbered
from flujo.testing import ScriptedAgent
from support import NOTHING, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.steps import BaseStep

WORK, DONE, DECISION = EntryKind.WORK, EntryKind.DONE, EntryKind.DECISION


def leaf(name: str) -> BaseStep:
    return call(name, NOTHING)


TREE = pipeline(
    leaf("a"),
    LoopStep("loop", body=pipeline(leaf("x"), leaf("y")), until=Expr("true")),
    MapStep("map", over=Expr("[1]"), body=pipeline(leaf("x"), leaf("y"))),
    ParallelStep("par", branches={"p": pipeline(leaf("x"), leaf("y")), "q": pipeline(leaf("x"))}),
    ConditionalStep(
        "if", condition=Expr("true"), branches={"then": pipeline(leaf("x")), "else": pipeline(leaf("y"))}
    ),
    StateMachineStep(
        "machine",
        initial="go",
        states={"go": State(pipeline(leaf("x")), (Transition("end"),)), "end": State(pipeline(leaf("y")))},
        final=("end",),
    ),
    GranularStep("talk", ScriptedAgent(["hello"])),
    TreeSearchStep("search", propose=NOTHING, evaluate=NOTHING),
    leaf("z"),
)
PLACES = [
    *("a", "loop", "loop[0]", "loop[0]/x", "loop[0]/y", "loop[1]", "loop[1]/x", "loop[1]/y"),
    *("map", "map[0]", "map[0]/x", "map[0]/y", "map[1]", "map[1]/x", "map[0..1]", "map[2..3]"),
    *("par", "par:p", "par:p/x", "par:p/y", "par:q", "par:q/x", "if", "if:then/x"),
    *("machine", "machine:go[0]", "machine:go[0]/x", "machine:end[0]", "machine:end[0]/y"),
    *(
        "talk",
        "talk/turn[0]",
        "talk/turn[0]/tool[0]",
        "talk/turn[0]/tool[1]",
        "talk/turn[1]",
        "talk/summary[0]",
    ),
    *("search", "search/propose", "search[0]/evaluate", "search[1]/evaluate", "search[0]/propose"),
    *("search[0][0]/evaluate", "z"),
]


def journal(*places: str | tuple[str, EntryKind]) -> list[Entry]:
    """Return entries at these places, in this order."""
    each = [(place, WORK) if isinstance(place, str) else place for place in places]
    return [Entry(path=StepPath(path), kind=kind, seq=seq) for seq, (path, kind) in enumerate(each, 1)]


def before(at: str, entries: Sequence[Entry]) -> list[str]:
    point = Point.of(StepPath(at), entries, TREE)
    return [entry.path for entry in entries if point.is_after(entry)]


@st.composite
def journals(draw: st.DrawFn) -> list[Entry]:
    """Return a journal with entries of any kind at any places, in any order."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(PLACES), st.sampled_from([WORK, DONE, DECISION]), st.integers(1, 2)),
            unique=True,
            min_size=1,
            max_size=25,
        )
    )
    statuses = st.sampled_from([EntryStatus.COMPLETED, EntryStatus.FAILED])
    return [
        Entry(path=StepPath(path), kind=kind, attempt=attempt, seq=seq, status=draw(statuses))
        for seq, (path, kind, attempt) in enumerate(keys, 1)
    ]


@settings(max_examples=200)
@given(journals(), st.data())
def test_what_is_before_a_path_obeys_the_laws(entries: list[Entry], data: st.DataObject) -> None:
    at = data.draw(
        st.sampled_from([entry.path for entry in entries if ".." not in entry.path])
        if any(".." not in entry.path for entry in entries)
        else st.just(StepPath("a"))
    )
    point = Point.of(at, entries, TREE)
    kept = [entry for entry in entries if point.is_after(entry)]
    copied = numbered(kept)
    assert [entry.seq for entry in copied] == list(range(1, len(kept) + 1))
    assert [(e.path, e.kind, e.attempt) for e in copied] == [(e.path, e.kind, e.attempt) for e in kept]
    assert not any(paths.is_within(entry.path, at) for entry in kept)
    first = min((entry.seq for entry in entries if paths.is_within(entry.path, at)), default=None)
    for entry in kept:
        if paths.is_within(at, entry.path) and first is not None:
            assert entry.seq < first, "the end of what encloses the path comes after it"
    again = Point.of(at, copied, TREE)
    assert all(again.is_after(entry) for entry in copied if not paths.is_within(at, entry.path))


LOOPED = (
    "loop[0]/x",
    "loop[0]/y",
    ("loop[0]", DECISION),
    ("loop[0]", DONE),
    "loop[1]/x",
    "loop[1]/y",
    ("loop", DONE),
)


@pytest.mark.parametrize(
    ("at", "entries", "kept"),
    [
        ("loop[1]/x", ["a", *LOOPED, "z"], ["a", "loop[0]/x", "loop[0]/y", "loop[0]", "loop[0]"]),
        ("loop[0]/y", ["a", *LOOPED, "z"], ["a", "loop[0]/x"]),
        ("loop", ["a", *LOOPED, "z"], ["a"]),
        (
            "map[1]",
            [("map", DECISION), "map[1]/x", "map[0]/x", ("map[0]", DONE), ("map[1]", DONE), ("map[0..1]", DONE), "map[2]/x", ("map[2..3]", DONE), ("map", DONE)],
            ["map", "map[0]/x", "map[0]", "map[2]/x", "map[2..3]"],
        ),
        (
            "par:p/y",
            ["par:p/x", "par:p/y", "par:q/x", ("par:q", DONE), ("par:p", DONE), ("par:merge", DECISION), ("par", DONE)],
            ["par:p/x", "par:q/x", "par:q"],
        ),
        ("if:then/x", [("if", DECISION), "if:then/x", ("if", DONE), "z"], ["if"]),
        (
            "machine:end[0]/y",
            ["machine:go[0]/x", ("machine:go[0]", DONE), "machine:end[0]/y", ("machine:end[0]", DONE), ("machine", DONE)],
            ["machine:go[0]/x", "machine:go[0]"],
        ),
        ("machine:go[0]", ["machine:go[0]/x", ("machine:go[0]", DONE), "machine:end[0]/y"], []),
        (
            "talk/turn[0]/tool[1]",
            [("talk", DECISION), "talk/turn[0]", "talk/turn[0]/tool[0]", "talk/turn[0]/tool[1]", "talk/turn[1]", ("talk", DONE)],
            ["talk", "talk/turn[0]", "talk/turn[0]/tool[0]"],
        ),
        (
            "talk/turn[1]",
            ["talk/turn[0]", "talk/summary[0]", "talk!limit[0]", "talk/turn[1]", "talk/summary[1]"],
            ["talk/turn[0]", "talk/summary[0]", "talk!limit[0]"],
        ),
        (
            "search[0]/propose",
            ["search/propose", "search[0]/evaluate", "search[1]/evaluate", ("search[0]", DECISION), "search[0]/propose", "search[1]/propose", "search[0][0]/evaluate", ("search", DONE)],
            ["search/propose", "search[0]/evaluate", "search[1]/evaluate", "search[0]", "search[1]/propose"],
        ),
        ("a", ["a:cache", "a", "z"], []),
        ("z", ["a:cache", "a", "loop:unfinished", ("loop", DONE), "z"], ["a:cache", "a", "loop:unfinished", "loop"]),
    ],
)  # fmt: skip
def test_what_is_before_a_path_in_each_kind_of_step(at: str, entries: list[Any], kept: list[str]) -> None:
    assert before(at, journal(*entries)) == kept


def test_the_order_of_the_tree_decides_and_not_that_of_the_entries() -> None:
    """A step that was added to a changed blueprint may be executed after later ones of its body."""
    entries = journal("loop[0]/y", "loop[0]/x")
    assert before("loop[0]/x", entries) == []
    assert before("loop[0]/y", entries) == ["loop[0]/x"]


def test_a_question_without_an_entry_has_everything_that_does_not_follow_it_in_the_tree_before_it() -> None:
    entries = journal("a", ("par", DECISION), "par:p/x", "par:q/x")
    assert before("par:p/y", entries) == ["a", "par", "par:p/x", "par:q/x"]


def test_the_chain_of_a_path_leads_from_the_outside_to_the_path() -> None:
    assert chain_of(StepPath("loop[2]/if:then/x")) == [
        "loop",
        "loop[2]",
        "loop[2]/if",
        "loop[2]/if:then",
        "loop[2]/if:then/x",
    ]
    assert paths.parent(chain_of(StepPath("a"))[0]) == ROOT
