"""The ids of runs that continue one another."""

from __future__ import annotations

import pytest

from flujo.domain import chains


@pytest.mark.parametrize(
    ("run_id", "before", "after"),
    [("order", None, "order~2"), ("order~2", "order", "order~3"), ("a-1.b~41", "a-1.b~40", "a-1.b~42")],
)
def test_a_run_has_one_id_before_and_one_after_it(run_id: str, before: str | None, after: str) -> None:
    assert chains.predecessor_of(run_id) == before
    assert chains.successor_of(run_id) == after
    assert chains.first_of(run_id) == run_id.partition("~")[0]
    assert chains.numbered(run_id, chains.number_of(run_id)) == run_id


@pytest.mark.parametrize(
    "output",
    [None, b"null", b'{"continued_as":"order~3"}', b'{"continued_as":"order~2","more":1}', b'"order~2"'],
)
def test_only_the_id_that_follows_is_a_link(output: bytes | None) -> None:
    assert chains.continued_as("order", output) is None
    following = chains.successor_of("order")
    assert chains.continued_as("order", chains.output_before(following)) == following
