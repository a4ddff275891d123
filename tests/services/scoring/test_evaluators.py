"""An evaluator of flujo.toml scores an output as a pipeline of one step."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.evaluations import Evaluated, Evaluator, Score
from flujo.exceptions import EvaluatorUnknown, SettingsError
from flujo.services.runs.runner import Flujo
from flujo.services.scoring.evaluators import evaluators_of, named_evaluators, pipeline_of
from flujo.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.models import PipelineResult

OUTPUT = Evaluated(input={"text": "hi"}, output="hello", metadata={"tenant": "t"})


@dataclasses.dataclass
class Reason:
    """Like pydantic-evals' `EvaluationReason`."""

    value: Any
    reason: str | None = None


class Contains:
    """Like an evaluator of pydantic-evals."""

    def __init__(self, value: str) -> None:
        self.value = value

    def evaluate(self, ctx: Any) -> Reason:
        assert (ctx.inputs, ctx.expected_output) == ({"text": "hi"}, None)
        return Reason(self.value in ctx.output, f"looked for {self.value}")


def polite(output: str, metadata: dict[str, str]) -> float:
    return 0.75 if output == "hello" and metadata == {"tenant": "t"} else 0.0


async def later(output: str) -> dict[str, Any]:
    return {"score": bool(output), "reason": "there is one"}


def nonsense(output: str) -> str:
    return output


def raises(output: str) -> float:
    raise ValueError(f"cannot score {output}")


contains_hello = Contains("hello").evaluate
HERE = "tests.services.scoring.test_evaluators"


async def _run(evaluator: Evaluator, evaluated: Evaluated = OUTPUT) -> PipelineResult[Any, Any]:
    pipeline = pipeline_of(evaluator, name="triage", allow_callables=(HERE,), timeout_s=5.0)
    runner: Flujo[Any, Any, Any] = Flujo(pipeline, persist_state=False)
    try:
        return await runner.run_result_async(evaluated.to_json())
    finally:
        await runner.aclose()


@pytest.mark.parametrize(
    ("given", "score"),
    [
        ({"expr": "size(output) < 10"}, Score(1.0)),
        ({"expr": "expected == null ? 0.5 : 1.0"}, Score(0.5)),
        ({"expr": "input.text == output"}, Score(0.0)),
        ({"call": f"{HERE}:polite"}, Score(0.75)),
        ({"call": f"{HERE}:later"}, Score(1.0, "there is one")),
        ({"call": f"{HERE}:contains_hello"}, Score(1.0, "looked for hello")),
    ],
)
async def test_an_expression_and_a_callable_score_an_output(given: dict[str, str], score: Score) -> None:
    result = await _run(Evaluator(name="good", **given))  # type: ignore[arg-type]
    assert Score.read(result.output) == score


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"expr": "output.missing"}, "output"),
        ({"expr": "output"}, "which is not a score"),
        ({"call": f"{HERE}:nonsense"}, "which is not a score"),
        ({"call": f"{HERE}:raises"}, "cannot score hello"),
        ({"call": f"{HERE}:absent"}, "does not exist"),
        ({"call": "other.module:polite"}, "allow_callables"),
    ],
)
async def test_an_evaluator_that_gives_no_score_fails_with_the_reason(
    given: dict[str, str], says: str
) -> None:
    result = await _run(Evaluator(name="good", **given))  # type: ignore[arg-type]
    assert not result.success
    assert result.error is not None
    assert says in result.error.message


def _settings(tmp_path: Path, text: str) -> Any:
    (tmp_path / "flujo.toml").write_text(text)
    return load(tmp_path / "flujo.toml")


def test_the_evaluators_of_a_project_are_those_of_its_settings(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        """
        [evaluation]
        model = "openai:gpt-5-mini"
        [evaluation.evaluators.helpful]
        judge = "Does it answer the question?"
        [evaluation.evaluators.short]
        expr = "size(output) < 400"
        """,
    )
    found = evaluators_of(settings)
    assert found == {
        "helpful": Evaluator(name="helpful", judge="Does it answer the question?", model="openai:gpt-5-mini"),
        "short": Evaluator(name="short", expr="size(output) < 400"),
    }
    assert [each.name for each in named_evaluators(settings, ["short"])] == ["short"]


def test_an_unknown_evaluator_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    settings = _settings(tmp_path, '[evaluation.evaluators.helpful]\nexpr = "true"\n')
    with pytest.raises(EvaluatorUnknown, match="helpfull") as error:
        named_evaluators(settings, ["helpfull"])
    assert "helpful" in str(error.value.hint)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[evaluation]\ntimeout_s = 0\n", "timeout_s"),
        ("[evaluation.evaluators.x]\n", "one of `judge`, `call` and `expr`"),
        ('[evaluation.evaluators.x]\njudge = "good?"\n', "no model"),
        ('[evaluation.evaluators.x]\nexpr = "true"\nmodel = "openai:gpt-5"\n', "belong to a `judge`"),
        ('[evaluation.evaluators."x y"]\nexpr = "true"\n', "cannot name an evaluator"),
        ('[evaluation.evaluators.x]\nexpr = "size(output"\n', "expr"),
        ('[evaluation.evaluators.x]\nexpr = "size(ouput) < 3"\n', "ouput"),
        ("[evaluation.evaluators.x]\ncal = 1\n", "cal"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=r"flujo\.toml:[0-9]+") as error:
        evaluators_of(_settings(tmp_path, text))
    assert says in json.dumps(error.value.message)
