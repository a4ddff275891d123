"""Canonical JSON: JSON values are decoded unchanged, others are refused with their place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flujo.domain import canonical
from flujo.exceptions import NotJournalable

text = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_json_data_is_decoded_unchanged(value: Any) -> None:
    assert canonical.normalise(value) == value


@given(st.dictionaries(text, scalars, max_size=6))
def test_the_order_of_keys_never_changes_the_bytes(value: dict[str, Any]) -> None:
    assert canonical.encode(dict(reversed(value.items()))) == canonical.encode(value)


@given(json_values)
def test_encoding_decoded_data_gives_the_same_bytes(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data)) == data


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Box:
    at: Point
    made: datetime


class Model(BaseModel):
    colour: Colour
    box: Box


def test_models_dataclasses_and_enums_become_plain_data() -> None:
    box = Box(Point(1, 2), datetime(2026, 1, 2, tzinfo=UTC))
    value = {"model": Model(colour=Colour.RED, box=box), "level": Level.HIGH, "id": UUID(int=7)}
    assert canonical.normalise(value) == {
        "model": {"colour": "red", "box": {"at": [1, 2], "made": "2026-01-02T00:00:00+00:00"}},
        "level": 3,
        "id": "00000000-0000-0000-0000-000000000007",
    }


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({"a": [1, {"b": math.nan}]}, "a[1].b", "nan is not a finite number"),
        ([math.inf], "[0]", "inf is not a finite number"),
        ({"a": 2**64}, "a", "64 bits"),
        ({"a": "x\x00y"}, "a", "NUL"),
        ({"a": "\ud800"}, "a", "surrogate"),
        ({"a": {1: "x"}}, "a", "key 1 is not text"),
        ({"a": b"bytes"}, "a", "bytes is not JSON data"),
        ({"a": {"b": {1, 2}}}, "a.b", "set is not JSON data"),
    ],
)
def test_a_value_that_json_cannot_hold_is_refused_with_its_place(value: Any, place: str, reason: str) -> None:
    with pytest.raises(NotJournalable) as refusal:
        canonical.encode(value, what="output of step 'x'")
    assert refusal.value.facts["path"] == place
    assert reason in str(refusal.value)
    assert str(refusal.value).startswith("output of step 'x' cannot be written to the journal")


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotJournalable, match="contains itself"):
        canonical.encode(value)
