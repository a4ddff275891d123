"""A mapping that grows by one name after another, of which each earlier size stays usable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.analysis.growing import Growing

NAMES = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(NAMES, st.integers())), st.dictionaries(NAMES, st.integers()))
def test_each_size_equals_a_copied_dictionary(added: list[tuple[str, int]], first: dict[str, int]) -> None:
    sizes: list[tuple[Growing[int], dict[str, int]]] = [(Growing(first), first)]
    for name, value in added:
        growing, plain = sizes[-1]
        sizes.append((growing.plus(name, value), {**plain, name: value}))
    for growing, plain in sizes:
        assert growing == plain
        assert list(growing) == list(plain)
        assert (len(growing), bool(growing), repr(growing)) == (len(plain), bool(plain), repr(plain))
        assert {name for name in "abcdefgh" if name in growing} == set(plain)


def test_a_newer_layer_hides_an_older_one() -> None:
    assert dict(Growing({"a": 1}, {"a": 2, "b": 3})) == {"a": 1, "b": 3}
