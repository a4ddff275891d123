"""A case runs on one database by turns, and no test loses its last one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from by_turns import left_out


def case(name: str, *values: object, marks: tuple[str, ...] = ()) -> Any:
    """Return what `left_out` looks at of a test."""
    shown = "-".join(map(str, values))
    return SimpleNamespace(
        nodeid=f"{name}[{shown}]",
        callspec=SimpleNamespace(params=dict(enumerate(values))),
        get_closest_marker=lambda mark: mark if mark in marks else None,
    )


def left(*items: Any) -> list[str]:
    return [each.nodeid for each in left_out(items)]


def cases(name: str, *more: object, **options: Any) -> list[Any]:
    return [case(name, store, *more, **options) for store in ("memory", "sqlite", "postgres")]


def test_one_database_of_each_case_is_left_out_and_always_the_same_one() -> None:
    names = [f"tests/engine/test_a.py::test_{number}" for number in range(40)]
    found = left(*(item for name in names for item in cases(name)))
    assert [each.partition("[")[0] for each in found] == names
    assert {each.partition("[")[2] for each in found} == {"sqlite]", "postgres]"}
    assert found == left(*(item for name in names for item in cases(name)))


def test_the_order_of_tests_changes_nothing() -> None:
    items = [item for number in range(9) for item in cases("tests/cli/test_a.py::test_it", number)]
    assert set(left(*items)) == set(left(*reversed(items)))


def test_the_cases_of_a_test_take_turns() -> None:
    items = [item for number in range(4) for item in cases("tests/cli/test_a.py::test_it", number)]
    assert sorted("sqlite" in each for each in left(*items)) == [False, False, True, True]


def test_a_guarantee_meets_both_databases() -> None:
    only = cases("tests/durability/test_a.py::test_one", marks=("guarantee",))
    several = [
        item
        for number in range(2)
        for item in cases("tests/engine/test_a.py::test_two", number, marks=("guarantee",))
    ]
    assert left(*only) == []
    assert sorted("sqlite" in each for each in left(*several)) == [False, True]


def test_what_runs_on_one_database_or_is_about_them_is_never_left_out() -> None:
    assert (
        left(
            case("tests/engine/test_a.py::test_it", "sqlite"), case("tests/engine/test_a.py::test_it", 1, "x")
        )
        == []
    )
    assert (
        left(*cases("tests/state/test_a.py::test_it"), *cases("tests/conformance/test_a.py::test_it")) == []
    )
    assert left(case("tests/cli/test_a.py::test_it", "sqlite", "postgres")) == []
