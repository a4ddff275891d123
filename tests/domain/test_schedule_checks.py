"""What is wrong with schedules, found the same way in YAML, Python and flujo.toml."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.pipeline import Pipeline
from flujo.domain.schedule_checks import schedule_findings
from flujo.domain.schedules import Schedule
from flujo.domain.steps import Step
from flujo.exceptions import PipelineError
from flujo.services.checks.pipeline_checks import check_pipeline


def _no_violations(_schema: Any, _value: Any) -> list[str]:
    return []


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "cron": ({"cron": "0 0 31 2 *"}, "FLJ296", "cron"),
    "zone": ({"timezone": "Berlin"}, "FLJ297", "timezone"),
    "queued and late": ({"overlap": "queue", "catch_up": "none"}, "FLJ299", "overlap"),
    "all and skipped": ({"catch_up": "all"}, "FLJ299", "catch_up"),
    "priority": ({"priority": 3}, "FLJ299", "priority"),
    "priority out of range": ({"queue": "slow", "priority": -1_000_001}, "FLJ299", "priority"),
    "metadata": ({"metadata": {"a-b": 1}}, "FLJ299", "metadata"),
    "name": ({"name": "_x"}, "FLJ299", "name"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_schedule_that_cannot_work_is_found(case: str) -> None:
    keys, code, key = CASES[case]
    schedule = Schedule(**{"cron": "0 2 * * *", **keys})
    found = [(one.code, one.index, one.key) for one in _found(schedule)]
    assert found == [(code, 0, key)]
    with pytest.raises(PipelineError) as caught:
        check_pipeline(Pipeline(Step("a", call="x:y"), "night", schedules=[schedule]))
    assert caught.value.code == code


def test_schedules_that_work_have_no_findings() -> None:
    good = [
        Schedule(cron="0 2 * * *", metadata={"a": 1}),
        Schedule(cron="0 3 * * *", name="other", overlap="queue", queue="slow", priority=2),
        Schedule(cron="0 4 * * *", name="third", overlap="allow", catch_up="all"),
    ]
    assert _found(*good) == []


def test_two_schedules_of_one_name_are_found() -> None:
    found = _found(Schedule(cron="0 2 * * *"), Schedule(cron="0 3 * * *", name="night"))
    assert [(one.code, one.index, one.key) for one in found] == [("FLJ299", 1, "name")]


def test_the_input_of_a_pipeline_in_python_is_checked() -> None:
    schema = {"type": "object", "required": ["folder"]}
    step = Step("a", call="x:y")
    with pytest.raises(PipelineError, match="has no `input`"):
        check_pipeline(Pipeline(step, "p", input_schema=schema, schedules=[Schedule(cron="0 2 * * *")]))
    with pytest.raises(PipelineError, match="does not fit `input_schema`"):
        check_pipeline(
            Pipeline(step, "p", input_schema=schema, schedules=[Schedule(cron="0 2 * * *", input=3)])
        )
    good = Schedule(cron="0 2 * * *", input={"folder": "inbox"})
    check_pipeline(Pipeline(step, "p", input_schema=schema, schedules=[good]))


def test_something_else_than_a_list_of_schedules_is_refused() -> None:
    with pytest.raises(PipelineError, match="expected a list of `Schedule`"):
        Pipeline(Step("a", call="x:y"), "p", schedules="0 2 * * *")  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match="expected an instance of `Schedule`"):
        Pipeline(Step("a", call="x:y"), "p", schedules=[{"cron": "x"}])  # type: ignore[list-item]


def _found(*schedules: Schedule) -> list[Any]:
    return list(schedule_findings(schedules, "night", violations=_no_violations))
