"""Scores: what an evaluator may answer, and which runs are scored."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flujo.domain.evaluations import Evaluated, Evaluator, Score, evaluation_id, is_sampled
from flujo.domain.journal import RunId
from flujo.domain.paths import ROOT, StepPath
from flujo.exceptions import PipelineError, ScoreRejected


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (0, Score(0.0)),
        (1, Score(1.0)),
        (0.25, Score(0.25)),
        (True, Score(1.0)),
        (False, Score(0.0)),
        ({"score": 0.5}, Score(0.5)),
        ({"score": True, "reason": "polite"}, Score(1.0, "polite")),
    ],
)
def test_a_score_is_a_number_a_boolean_or_a_score_with_a_reason(answer: Any, score: Score) -> None:
    assert Score.read(answer) == score


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "0.5",
        "good",
        1.01,
        -0.1,
        math.nan,
        math.inf,
        [],
        {},
        {"reason": "no score"},
        {"score": "high"},
        {"score": 0.5, "reason": 7},
        {"score": 0.5, "rating": 1},
        {"score": 2},
    ],
)
def test_anything_else_is_not_a_score(answer: Any) -> None:
    with pytest.raises(ScoreRejected):
        Score.read(answer)


def test_the_input_of_an_evaluator_survives_its_way_through_the_journal() -> None:
    whole = Evaluated(input={"text": "a"}, output=[1], expected=[2], metadata={"tenant": "t"})
    assert Evaluated.from_json(whole.to_json()) == whole


def test_the_version_of_an_evaluator_changes_with_what_it_asks_and_not_with_its_name() -> None:
    judge = Evaluator(name="polite", judge="Is it polite?", model="openai:gpt-5-mini")
    same = Evaluator(name="kind", judge="Is it polite?", model="openai:gpt-5-mini")
    others = [
        Evaluator(name="polite", judge="Is it very polite?", model="openai:gpt-5-mini"),
        Evaluator(name="polite", judge="Is it polite?", model="openai:gpt-5"),
        Evaluator(name="polite", call="skills:polite"),
        Evaluator(name="polite", expr="true"),
    ]
    assert judge.version == same.version
    assert len({each.version for each in (judge, *others)}) == 5
    assert Evaluator.from_json(judge.to_json()) == judge


@pytest.mark.parametrize("given", [{}, {"judge": "good?"}, {"expr": "true", "call": "skills:polite"}])
def test_an_evaluator_is_of_one_kind_and_a_judge_has_a_model(given: dict[str, str]) -> None:
    with pytest.raises(PipelineError):
        Evaluator(name="polite", **given)  # type: ignore[arg-type]


def test_the_id_of_a_run_decides_whether_it_is_sampled() -> None:
    runs = [RunId(f"run-{number}") for number in range(2000)]
    chosen = [run for run in runs if is_sampled(run, 0.1)]
    assert 120 < len(chosen) < 280
    assert chosen == [run for run in runs if is_sampled(run, 0.1)]
    assert set(chosen) <= {run for run in runs if is_sampled(run, 0.5)}
    assert not any(is_sampled(run, 0.0) for run in runs)
    assert all(is_sampled(run, 1.0) for run in runs)


def test_each_output_and_evaluator_has_a_run_of_its_own() -> None:
    one = evaluation_id(RunId("r"), ROOT, "polite")
    assert one == evaluation_id(RunId("r"), ROOT, "polite")
    assert one.startswith("e-")
    assert len(one) == 28
    assert one != evaluation_id(RunId("r"), StepPath("draft"), "polite")
    assert one != evaluation_id(RunId("r"), ROOT, "short")
