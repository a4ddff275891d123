"""Structural patches hold exactly the changes of a step."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flujo.domain import canonical, merge

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=15,
)
trees = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)


def exactly(value: Any) -> bytes:
    return canonical.encode(value)  # `True == 1` and `1 == 1.0` in Python, and not in JSON


@given(trees, trees)
def test_applying_a_difference_gives_the_later_value(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert exactly(merge.apply(before, merge.diff(before, after))) == exactly(after)


@given(trees, trees)
def test_applying_a_patch_does_not_change_the_original_tree(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    untouched = exactly(before)
    merge.apply(before, merge.diff(before, after))
    assert exactly(before) == untouched


@given(trees)
def test_equal_trees_have_no_difference(tree: dict[str, Any]) -> None:
    assert merge.diff(tree, canonical.normalise(tree)) == []


@given(trees, trees)
def test_a_patch_survives_the_journal(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = canonical.normalise(merge.diff(before, after))
    assert exactly(merge.apply(before, patch)) == exactly(after)


def test_one_item_of_a_long_list_is_one_small_operation() -> None:
    before = {"items": [{"n": n} for n in range(1000)], "note": "x"}
    after = {"items": [*before["items"]], "note": "x"}
    after["items"][500] = {"n": -1}  # type: ignore[index]
    assert merge.diff(before, after) == [["set", ["items", 500, "n"], -1]]


def test_growing_a_list_writes_only_the_new_items() -> None:
    assert merge.diff({"log": [1, 2]}, {"log": [1, 2, 3]}) == [["append", ["log"], [3]]]


def test_appending_to_a_field_that_is_missing_starts_a_list() -> None:
    assert merge.apply({}, [["append", ["log"], ["a"]]]) == {"log": ["a"]}


def test_true_and_one_are_different_values() -> None:
    assert merge.diff({"a": True}, {"a": 1}) == [["set", ["a"], 1]]
