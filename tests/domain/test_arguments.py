"""The one constructor of all parts of a tree: how it takes arguments, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from flujo import Carry, LoopStep, MapStep, Pipeline, Step
from flujo.domain.values import CallableRef, Expr, Text
from flujo.exceptions import PipelineError


def count(data: str) -> int:
    return len(data)


ONE = Step("one", count)


def test_a_field_holds_what_its_converter_returns() -> None:
    loop = LoopStep("again", ONE, until=True, carry={"n": Carry("{{ input }}", "loop.n + 1")})
    assert loop.body == Pipeline([ONE])
    assert loop.until == Expr("true")
    assert loop.carry["n"].initial == Text("{{ input }}")
    assert ONE.call == CallableRef.of(count)


def test_an_argument_has_one_name_at_a_time() -> None:
    with pytest.raises(PipelineError, match="step 'x' has `until` and `exit_condition_callable`"):
        LoopStep("x", ONE, until=True, exit_condition_callable=count)
    with pytest.raises(PipelineError, match="step 'x' has no `until` or `exit_condition_callable`"):
        LoopStep("x", ONE)
    assert MapStep("x", ONE).merge == "no_merge"


@pytest.mark.parametrize(
    ("given", "named", "words"),
    [
        (("x",), {}, "LoopStep needs the argument `body`"),
        (("x", ONE, True), {}, "LoopStep takes 2 positional arguments, not 3"),
        (("x", ONE), {"name": "y"}, "LoopStep got name by position and by name"),
    ],
)
def test_a_call_that_python_itself_refuses_is_a_type_error(
    given: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        LoopStep(*given, until=True, **named)


def test_an_error_in_a_part_without_a_name_says_which_part_it_is() -> None:
    with pytest.raises(PipelineError, match="`carry`: `next` is 3"):
        Carry(0, 3)  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match="`carry`: `Carry` has no argument `nxt`"):
        Carry(0, nxt="loop.n")  # type: ignore[call-arg]


def test_a_part_of_a_tree_is_frozen() -> None:
    step = Step("one", count)
    with pytest.raises(FrozenInstanceError):
        step.name = "two"
    with pytest.raises(FrozenInstanceError):
        del step.name


def test_a_part_of_a_tree_can_be_copied_and_replaced() -> None:
    loop = LoopStep("again", ONE, exit_condition_callable=count)
    assert copy.deepcopy(loop) == copy.copy(loop) == replace(loop, name="again") == loop
    assert replace(loop, until="input").until == Expr("input")
    assert "max_iterations=10" in repr(loop)
