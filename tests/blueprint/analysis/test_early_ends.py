"""The scope after a body that may end early: what each way leaves behind."""

from __future__ import annotations

from flujo.blueprint.analysis.early_ends import EarlyEnds, perhaps_skipped
from flujo.blueprint.analysis.growing import Growing
from flujo.blueprint.analysis.scope import Scope
from flujo.blueprint.schemas.algebra import BOOLEAN, INTEGER, STRING, closed, union

NULL = {"type": "null"}
CONTEXT = {"type": "object", "properties": {"a": STRING, "b": STRING}}


def test_a_body_without_early_ends_leaves_what_its_last_step_leaves() -> None:
    early, last = EarlyEnds(), Scope(previous=STRING)
    early.follow("one")
    assert early.joined(last) is last


def test_steps_and_fields_after_an_early_end_may_be_missing() -> None:
    early = EarlyEnds()
    early.follow("before")
    early.add(Scope(previous=INTEGER, context={**CONTEXT, "required": ["a"]}))
    early.follow("stop")
    early.follow("after")
    steps = Growing({name: closed({"output": STRING}) for name in ("before", "stop", "after")})
    last = Scope(previous=STRING, steps=steps, context={**CONTEXT, "required": ["a", "b"]})
    end = early.joined(last)
    assert end.context == {**CONTEXT, "required": ["a"]}
    assert end.steps["before"] == closed({"output": STRING})
    assert end.steps["after"] == perhaps_skipped(closed({"output": STRING}))
    assert end.previous == union((INTEGER, STRING))


def test_a_body_that_always_ends_early_has_only_that_output() -> None:
    early = EarlyEnds()
    early.add(Scope(previous=INTEGER))
    end = early.joined(Scope(previous=STRING, is_over=True))
    assert (end.previous, end.is_over) == (INTEGER, False)


def test_a_skipped_step_has_no_output_and_may_lack_its_facts() -> None:
    known = perhaps_skipped(closed({"output": STRING, "cached": BOOLEAN}))
    assert known is not None
    assert known["properties"]["output"] == {"anyOf": [STRING, NULL]}
    assert known["required"] == ["output"]
    assert perhaps_skipped(None) is None
