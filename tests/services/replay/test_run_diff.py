"""Where two journals begin to differ, and what differs there."""

from __future__ import annotations

from typing import Any

from flujo.domain import canonical
from flujo.domain.journal import CACHE_MISS, Entry, EntryKind, EntryStatus
from flujo.domain.paths import StepPath
from flujo.services.replay.run_diff import Difference, differences


def entry(path: str, output: Any = None, given: Any = None, **more: Any) -> Entry:
    made: dict[str, Any] = {"kind": EntryKind.WORK, "output": canonical.encode(output), **more}
    return Entry(path=StepPath(path), input=None if given is None else canonical.encode(given), **made)


def found(one: list[Entry], other: list[Entry]) -> list[tuple[str, str, Any, Any]]:
    return [(each.path, each.what, each.one, each.other) for each in differences(one, other)]


def test_equal_journals_do_not_differ_whatever_the_order_of_concurrent_entries() -> None:
    one = [entry("a", 1), entry("m[0]", 2), entry("m[1]", 3)]
    assert found(one, [one[0], one[2], one[1]]) == []


def test_the_first_difference_is_that_of_the_run_and_not_of_the_alphabet() -> None:
    one = [entry("z", 1), entry("a", 2)]
    other = [entry("z", 5), entry("a", 6)]
    assert found(one, other) == [("z", "output", 1, 5), ("a", "output", 2, 6)]


def test_an_input_differs_before_the_output_does() -> None:
    assert found([entry("a", 1, "x")], [entry("a", 2, "y")]) == [("a", "input", "x", "y")]


def test_a_decision_a_status_and_a_missing_step_differ() -> None:
    decided = {"kind": EntryKind.DECISION}
    one = [entry("if", True, **decided), entry("a", 1), entry("b", 1)]
    other = [entry("if", False, **decided), entry("a", status=EntryStatus.FAILED), entry("c", 2)]
    assert found(one, other) == [
        ("if", "decision", True, False),
        ("a", "status", "completed", "failed"),
        ("b", "missing", 1, None),
        ("c", "missing", None, 2),
    ]


def test_only_the_last_attempt_counts_and_records_beside_a_step_do_not() -> None:
    retried = [entry("a", status=EntryStatus.FAILED), entry("a", 1, attempt=2)]
    missed = entry("a:cache", "key", kind=EntryKind.DECISION, fingerprint=CACHE_MISS)
    assert found([missed, *retried], [entry("a", 1)]) == []
    assert list(differences([], [])) == []
    assert Difference(StepPath("a"), "output", 1, 2).what == "output"
