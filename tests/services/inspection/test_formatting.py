"""How values are formatted: durations, costs, texts made short and safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.usage import Usage
from flujo.services.inspection import formatting


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (12.4, "12s"), (59.7, "1m00s"), (185, "3m05s"), (7800, "2h10m")],
)
def test_a_duration_is_readable(value: float, said: str) -> None:
    assert formatting.seconds(value) == said


@pytest.mark.parametrize(
    ("used", "said"),
    [
        (Usage(), ""),
        (Usage(1000, 234, 1, 0, 0), "1,234 tokens  $0.00"),
        (Usage(10, 2, 1, 0, 1234), "12 tokens  $0.0012"),
        (Usage(10, 2, 1, 0, 2_500_000), "12 tokens  $2.50"),
        (Usage(10, 2, 1, 0, 1), "12 tokens  <$0.0001"),
        (Usage(10, 2, 1, 0, 0, 1), "12 tokens  cost unknown"),
    ],
)
def test_an_unknown_cost_is_never_zero(used: Usage, said: str) -> None:
    assert formatting.usage(used) == said


def test_a_value_becomes_one_safe_line() -> None:
    assert formatting.brief("a\n\tb \x1b[31mred\x07") == "a b \\x1b[31mred\\x07"
    assert formatting.brief({"k": [1, None]}) == '{"k": [1, null]}'
    assert formatting.brief("x" * 100, 10) == "x" * 9 + "…"


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_no_text_gets_longer_or_steers_a_terminal(text: str, limit: int) -> None:
    line = formatting.brief(text, limit)
    assert len(line) <= limit
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)


def test_only_a_generated_run_id_is_shortened() -> None:
    assert formatting.short_id("0123456789abcdef0123456789abcdef") == "0123456789ab"
    assert (
        formatting.short_id("order-4711-of-a-customer-with-a-name") == "order-4711-of-a-customer-with-a-name"
    )
