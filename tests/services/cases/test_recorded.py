"""Recorded scores are paired by their cases, and without a common case run by run."""

from __future__ import annotations

import pytest

from flujo.domain.gate import Verdict
from flujo.exceptions import SettingsError
from flujo.services.cases.recorded import Recorded, compare_recorded


def side(
    label: str, *, cases: dict[str, float] | None = None, runs: dict[str, float] | None = None
) -> Recorded:
    by_case = {("evals/a.yaml", name): {"polite": score} for name, score in (cases or {}).items()}
    return Recorded(label, by_case, {run: {"polite": score} for run, score in (runs or {}).items()})


def test_common_cases_are_paired_and_others_do_not_count() -> None:
    new = side("new", cases={f"c{n}": 0.0 for n in range(30)} | {"only": 1.0}, runs={"r": 1.0})
    old = side("old", cases={f"c{n}": 1.0 for n in range(30)})
    found, is_paired = compare_recorded(new, old, 0.05)
    assert (found.verdict, is_paired, found.against) == (Verdict.WORSE, True, "old")
    assert found.by_evaluator["polite"].mean == -1


def test_runs_of_live_traffic_are_compared_without_common_cases() -> None:
    new = side("new", runs={f"n{n}": 0.9 for n in range(40)})
    old = side("old", runs={f"o{n}": 0.4 for n in range(60)}, cases={"c": 1.0})
    found, is_paired = compare_recorded(new, old, 0.05)
    assert (found.verdict, is_paired) == (Verdict.BETTER_OR_EQUAL, False)


def test_sides_without_a_common_evaluator_are_refused() -> None:
    other = Recorded("other", {}, {"r": {"right": 1.0}})
    with pytest.raises(SettingsError, match="no evaluator in common"):
        compare_recorded(side("new", runs={"r": 1.0}), other, 0.05)
