"""The declaration of an approval, and the schema of its answer."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain import canonical
from flujo.domain.approvals import (
    Approval,
    answer_schema,
    arguments_in,
    arguments_shown,
    digest,
    digest_in,
)
from flujo.domain.tools import CallableTool
from flujo.exceptions import PipelineError


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"when": "skills.rules:over"}, "`approve`: `when` is 'skills.rules:over'; expected an expression"),
        ({"on_deadline": "ignore"}, "`approve`: `on_deadline` is 'ignore'; expected one of 'fail', 'deny'"),
        ({"wen": "true"}, "has no argument `wen`"),
    ],
)
def test_a_wrong_rule_is_named(given: Any, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        Approval(**given)


@pytest.mark.parametrize("given", [False, "args.n > 1", {}])
def test_what_is_not_an_approval_is_named(given: Any) -> None:
    with pytest.raises(PipelineError, match=r"tool: `approve` is .*; expected True or an `Approval`"):
        CallableTool("s:f", approve=given)


def test_true_is_an_approval_of_every_call() -> None:
    assert CallableTool("s:f", approve=True).approve == Approval()


def test_references_in_the_schema_of_the_arguments_stay_valid() -> None:
    parameters = {"$defs": {"Money": {"type": "number"}}, "properties": {"sum": {"$ref": "#/$defs/Money"}}}
    schema = answer_schema("d1", {"sum": 5}, parameters, editable=True)
    assert canonical.decode(schema)["$defs"] == parameters["$defs"]
    assert (digest_in(schema), arguments_in(schema)) == ("d1", {"sum": 5})
    assert arguments_in(answer_schema("d1", {"sum": 5}, parameters, editable=False)) is None


def test_a_digest_is_never_read_as_a_number() -> None:
    assert all(digest(number=number).startswith("d") for number in range(50))
    assert len({digest(number=number) for number in range(50)}) == 50


def test_the_arguments_are_read_from_the_last_two_lines_of_a_question() -> None:
    said = 'wants to call\narguments: {"a":0}\ndigest:    d0\narguments: {"a":1}\ndigest:    d1'
    assert arguments_shown(said) == (said[: said.rindex("\narguments")], {"a": 1})
    for other in ("no arguments", "x\narguments: {}", "x\narguments: {}\ndigest:    d1\nmore"):
        with pytest.raises(ValueError, match="no arguments"):
            arguments_shown(other)
