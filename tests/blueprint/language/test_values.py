"""The types of single values: durations in all units become seconds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from flujo.blueprint.language.values import Duration, parse_duration

_DURATION: TypeAdapter[float] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0),
        (0.5, 0.5),
        ("30s", 30.0),
        ("250ms", 0.25),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("30d", 2_592_000.0),
    ],
)
def test_a_duration_becomes_seconds(written: Any, seconds: float) -> None:
    assert _DURATION.validate_python(written) == seconds


@given(
    st.integers(1, 10_000), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)])
)
def test_every_unit_counts_in_seconds(number: int, unit: tuple[str, float]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == number * unit[1]


@given(st.text(max_size=8))
def test_any_text_is_a_positive_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except PydanticCustomError:
        return
    assert isinstance(seconds, float)
    assert seconds > 0


@pytest.mark.parametrize(
    "written", ["5 m", "1h30m", "s", "", "-5s", "0s", 0, -1, "1e3s", "\uff15s", "1w", "5m\n"]
)
def test_anything_else_is_refused_as_a_duration(written: Any) -> None:
    with pytest.raises(ValidationError):
        _DURATION.validate_python(written)
