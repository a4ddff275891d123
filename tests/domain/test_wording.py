"""Words for messages: lists, counts, shortened values and suggestions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.wording import (
    did_you_mean,
    json_short,
    listed,
    nearest,
    plural,
    reason,
    repr_short,
    short,
    size,
    suggest,
)


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (12_000, "12,000 runs")]
)
def test_a_count_has_the_noun_in_singular_or_plural(count: int, words: str) -> None:
    assert plural(count, "run") == words


def test_an_irregular_plural_can_be_passed() -> None:
    assert (plural(1, "entry", "entries"), plural(2, "entry", "entries")) == ("1 entry", "2 entries")


@pytest.mark.parametrize(
    ("names", "plain", "with_or"),
    [
        ([], "", ""),
        (["a"], "`a`", "`a`"),
        (["a", "b"], "`a`, `b`", "`a` or `b`"),
        (["a", "b", "c"], "`a`, `b`, `c`", "`a`, `b` or `c`"),
    ],
)
def test_names_are_listed_in_backticks(names: list[str], plain: str, with_or: str) -> None:
    assert listed(names) == plain
    assert listed(names, "or") == with_or


def test_names_beyond_the_limit_are_counted() -> None:
    assert listed("abcdef", most=2) == "`a`, `b` and 4 more"
    assert listed("abcdef", "or", most=2) == "`a`, `b` or 4 more"


def test_a_long_name_is_shortened_in_a_list() -> None:
    assert listed(["n" * 1000]) == f"`{'n' * 59}…`"


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_a_shortened_text_is_never_longer_than_allowed(text: str, most: int) -> None:
    found = short(text, most)
    assert len(found) <= most
    assert found == text or (found.endswith("…") and text.startswith(found[:-1]))


def test_values_are_shortened_after_formatting() -> None:
    assert repr_short("x" * 100, 10) == "'xxxxxxxx…"
    assert json_short({"b": "é", "a": None}) == '{"a": null, "b": "é"}'


def test_a_reason_is_that_of_the_operating_system_if_there_is_one() -> None:
    given_up = OSError("timed out after 4 s")
    given_up.__cause__ = RuntimeError("closed")
    assert reason(given_up) == "timed out after 4 s"
    given_up.__cause__.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert reason(given_up) == "Connection refused"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError(2, "No such file or directory", "ca.pem"), "ca.pem: No such file or directory"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (ConnectionError("no cluster here\nnor there"), "no cluster here"),
        (TimeoutError(), "it does not answer"),
    ],
)
def test_a_reason_is_one_line_without_the_number_of_an_error(error: Exception, says: str) -> None:
    assert reason(error) == says


def test_a_misspelt_word_finds_the_known_word_in_its_own_case() -> None:
    assert nearest("timeuot_s", ["retry", "timeout_s"]) == "timeout_s"
    assert nearest("TIMEOUT", ["Timeout"]) == "Timeout"
    assert nearest("banana", ["timeout_s"]) is None
    assert nearest("x", []) is None


def test_a_stricter_cutoff_finds_fewer_words() -> None:
    assert nearest("FLUJO_CACHE", ["FLUJO_CONFIG"], cutoff=0.6) == "FLUJO_CONFIG"
    assert nearest("FLUJO_CACHE", ["FLUJO_CONFIG"], cutoff=0.8) is None


def test_many_known_words_are_compared_quickly() -> None:
    known = [f"name_{number:06}_{'x' * 40}" for number in range(100_000)]
    begun = time.process_time()
    assert nearest(f"name_000003_{'x' * 39}y", known) is not None
    assert time.process_time() - begun < 5


def test_a_suggestion_names_the_nearest_word_or_all_of_them() -> None:
    assert suggest("lopo", ["loop", "map"]) == "did you mean `loop`?"
    assert suggest("banana", ["loop", "map"]) == "known: `loop` and `map`"
    assert suggest("banana", ["loop"], what="fields") == "fields: `loop`"
    assert suggest("banana", []) == ""
    assert did_you_mean("banana", ["loop"]) is None


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (256 * 1024, "256 KiB"),
        (12_034, "11.8 KiB"),
        (1024**2 - 1, "1 MiB"),
        (92_871_040, "88.6 MiB"),
        (4 * 1024**3, "4 GiB"),
        (5000 * 1024**3, "5000 GiB"),
    ],
)
def test_a_size_has_the_largest_unit_of_which_there_is_one(count: int, shown: str) -> None:
    assert size(count) == shown
