"""Shadow evaluation: outputs of live traffic are scored after the answer, once, and never at its cost."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Fault, Provider, provider_server
from flujo import Flujo, Pipeline, Step, TaskClient
from flujo.domain.evaluations import EvaluationQuery, evaluation_id, is_sampled
from flujo.domain.journal import RunId
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.queues import RunKind
from flujo.domain.run import UNENDED, RunQuery, RunStatus
from flujo.exceptions import EvaluatorUnknown
from flujo.services.scoring.shadow import PinnedEvaluator
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flujo.domain.evaluations import Evaluation

    Settings = Callable[[str], None]

ON = "[evaluation]\nenabled = true\n"
POLITE = f'[evaluation.evaluators.polite]\ncall = "{__name__}:polite"\n'
NEVER = threading.Event()


def polite(output: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"score": 0.25, "reason": f"said {output} to {metadata.get('tenant')}"}


def hangs(output: Any) -> float:
    NEVER.wait(60)
    return 1.0


def raises(output: Any) -> float:
    raise ValueError("the judge is broken")


def nonsense(output: Any) -> str:
    return "splendid"


def greet(data: str) -> str:
    return f"hello {data}"


def shout(data: str) -> str:
    return data.upper()


def fails(data: str) -> str:
    raise ValueError("no")


@pytest.fixture
def settings(tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return what writes the settings of a project, in which the test works."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        head = f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["{__name__}"]\n'
        (tmp_path / "flujo.toml").write_text(head + text)

    return write


def tree(*steps: Any, **more: Any) -> Pipeline:
    return Pipeline(steps or (Step("greet", greet), Step("shout", shout)), name="greeter", **more)


async def ran(pipeline: Pipeline, run_id: str = "r", **options: Any) -> Any:
    """Run a pipeline, wait for the evaluations of its run, and close the runner."""
    async with Flujo[Any, Any, Any](pipeline, recovery=False) as runner:
        result = await runner.run_result_async("ana", run_id=run_id, **options)
        # The runner waits a few seconds when it closes, which is too short on a busy machine.
        async with TaskClient(runners=[runner]) as client, asyncio.timeout(60):
            while await client.list_tasks([*map(str, UNENDED)], kind="eval", parent=run_id):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return result


async def scores(uri: str, **conditions: Any) -> list[Evaluation]:
    store = await SqlStateStore.open(uri)
    try:
        return (await store.evaluations(EvaluationQuery(**conditions)))[::-1]
    finally:
        await store.aclose()


async def test_a_completed_run_is_scored_by_each_evaluator_of_its_project(
    settings: Settings, store_uri: str
) -> None:
    settings(ON + POLITE + '[evaluation.evaluators.short]\nexpr = "size(output) < 5"\n')
    result = await ran(tree(), metadata={"tenant": "acme"})
    assert result.output == "HELLO ANA"
    found = {each.evaluator: each for each in await scores(store_uri, run_id=RunId("r"))}
    assert found.keys() == {"polite", "short"}
    one = found["polite"]
    assert (one.score, one.reason, one.error) == (0.25, "said HELLO ANA to acme", None)
    assert (one.path, one.pipeline, one.by) == (ROOT, "greeter", f"{__name__}:polite")
    assert one.key == evaluation_id(RunId("r"), ROOT, "polite")
    assert one.cost_micro_usd == 0
    assert len(one.version) == 64
    assert (found["short"].score, found["short"].reason) == (0.0, None)


async def test_an_evaluation_is_a_run_of_its_own_beside_those_of_callers(
    settings: Settings, store_uri: str
) -> None:
    settings(ON + POLITE)
    await ran(tree())
    store = await SqlStateStore.open(store_uri)
    try:
        assert [each.run_id for each in await store.runs(RunQuery())] == ["r"]
        [evaluating] = await store.runs(RunQuery(kinds=(RunKind.EVAL,)))
        assert evaluating.status is RunStatus.COMPLETED
        assert evaluating.parent is not None
        assert (evaluating.parent.run_id, evaluating.parent.path) == ("r", ROOT)
        assert json.loads(evaluating.input) == {
            "input": "ana",
            "output": "HELLO ANA",
            "expected": None,
            "metadata": {},
        }
        [entry] = await store.entries(evaluating.run_id)
        assert entry.path == "score"
        manifest = (await store.blobs([evaluating.closure]))[evaluating.closure]
        assert PinnedEvaluator.load(manifest).evaluator.name == "polite"
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("judge", "error"),
    [
        ("hangs", "0.2 s"),
        ("raises", "the judge is broken"),
        ("nonsense", "not a score"),
        ("absent", "does not exist"),
    ],
)
async def test_a_judge_that_hangs_raises_or_answers_nonsense_changes_no_output(
    settings: Settings, store_uri: str, judge: str, error: str
) -> None:
    settings(f'{ON}timeout_s = 0.2\n[evaluation.evaluators.judge]\ncall = "{__name__}:{judge}"\n')
    result = await ran(tree())
    assert (result.status, result.output) == (RunStatus.COMPLETED, "HELLO ANA")
    [one] = await scores(store_uri)
    assert one.score is None
    assert error in str(one.error)


async def test_the_answer_does_not_wait_for_a_judge(settings: Settings) -> None:
    settings(f'{ON}[evaluation.evaluators.judge]\ncall = "{__name__}:hangs"\n')
    runner = Flujo[Any, Any, Any](tree(), recovery=False)
    result = await asyncio.wait_for(runner.run_result_async("ana", run_id="r"), 30)
    assert result.output == "HELLO ANA"
    tasks = runner._services.tasks  # type: ignore[union-attr]
    assert tasks.executing(RunId("r")) == []  # no step of the run may wait for it either
    await tasks.release()
    await runner.aclose()


async def test_what_a_closing_process_leaves_is_scored_by_recovery_once(
    settings: Settings, store_uri: str
) -> None:
    settings(f'{ON}[evaluation.evaluators.judge]\ncall = "{__name__}:waits_for_go"\n')
    GO.clear()
    runner = Flujo[Any, Any, Any](tree(), recovery=False)
    await runner.run_result_async("ana", run_id="r")
    await runner._services.tasks.release()  # type: ignore[union-attr]  # as at the end of the grace period
    await runner.aclose()
    assert await scores(store_uri) == []
    GO.set()
    async with Flujo[Any, Any, Any](tree(), recovery=False) as other:
        run_id = evaluation_id(RunId("r"), ROOT, "judge")
        result = await other.recover_async(run_id, max_recoveries=3)
        assert result.status is RunStatus.COMPLETED
    assert [(each.key, each.score) for each in await scores(store_uri)] == [(run_id, 1.0)]


GO = threading.Event()


def waits_for_go(output: Any) -> bool:
    return GO.wait(60)


async def test_a_failed_evaluation_that_is_retried_replaces_its_error(
    settings: Settings, store_uri: str
) -> None:
    settings(f'{ON}[evaluation.evaluators.judge]\ncall = "{__name__}:moody"\n')
    MOOD.clear()
    async with Flujo[Any, Any, Any](tree(), recovery=False) as runner:
        await runner.run_result_async("ana", run_id="r")
    assert [each.score for each in await scores(store_uri)] == [None]
    MOOD.append("good")
    async with Flujo[Any, Any, Any](tree(), recovery=False) as runner:
        run_id = evaluation_id(RunId("r"), ROOT, "judge")
        await runner.resume_async(run_id, retry_failed=True)
    assert [(each.score, each.error) for each in await scores(store_uri)] == [(1.0, None)]


MOOD: list[str] = []


def moody(output: Any) -> bool:
    if not MOOD:
        raise ValueError("not today")
    return True


async def test_runs_that_fail_and_projects_without_shadow_evaluation_are_not_scored(
    settings: Settings, store_uri: str
) -> None:
    settings(ON + POLITE)
    await ran(tree(Step("no", fails)), "failed")
    settings(POLITE)
    await ran(tree(), "off")
    settings(ON + POLITE + 'blueprints = ["other*"]\n')
    await ran(tree(), "other")
    assert await scores(store_uri) == []


async def test_the_id_of_a_run_decides_whether_it_is_sampled(settings: Settings, store_uri: str) -> None:
    settings(f"{ON}sample_rate = 0.5\n{POLITE}")
    runs = [f"run-{number}" for number in range(12)]
    async with Flujo[Any, Any, Any](tree(), recovery=False) as runner:
        for run_id in runs:
            await runner.run_result_async("ana", run_id=run_id)
    chosen = {run_id for run_id in runs if is_sampled(RunId(run_id), 0.5)}
    assert 0 < len(chosen) < len(runs)
    assert {each.run_id for each in await scores(store_uri)} == chosen


async def test_evaluate_of_a_pipeline_and_of_a_step_names_what_scores_them(
    settings: Settings, store_uri: str
) -> None:
    settings(
        ON
        + POLITE
        + 'blueprints = []\n[evaluation.evaluators.short]\nexpr = "size(output) < size(input) + 7"\nblueprints = []\n'
    )
    steps = (Step("greet", greet, evaluate=["short"]), Step("shout", shout))
    await ran(tree(*steps, evaluate=["polite"]))
    found = {(each.evaluator, each.path): each.score for each in await scores(store_uri)}
    assert found == {("polite", ROOT): 0.25, ("short", StepPath("greet")): 1.0}


async def test_an_evaluator_that_the_project_does_not_have_is_refused_before_a_run(
    settings: Settings,
) -> None:
    settings(ON + POLITE)
    for pipeline in (tree(evaluate=["polit"]), tree(Step("greet", greet, evaluate=["polit"]))):
        with pytest.raises(EvaluatorUnknown, match="polit") as error:
            await ran(pipeline)
        assert "polite" in str(error.value.hint)


async def test_scores_go_to_the_log_when_that_is_the_sink(
    settings: Settings, store_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings(POLITE)
    monkeypatch.setenv("FLUJO_SHADOW_EVAL_ENABLED", "1")
    monkeypatch.setenv("FLUJO_SHADOW_EVAL_SINK", "log")
    with caplog.at_level(logging.INFO, logger="flujo.evaluation"):
        await ran(tree())
    assert "run r: polite 0.25: said HELLO ANA to None" in caplog.text
    assert await scores(store_uri) == []


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


JUDGE = """[evaluation.evaluators.judge]
judge = "Is the greeting warm?"
model = "openai-chat:gpt-4o-mini"
"""


RULE = """
[[budgets.rule]]
name = "team"
match = {{metadata.team = "support"}}
window = "none"
total_cost_usd_limit = {dollars}
on_exhausted = "pause"
"""


async def test_a_model_judges_what_it_is_given_and_its_cost_is_recorded(
    settings: Settings, store_uri: str, provider: Provider
) -> None:
    """It counts in the shared budgets of the run whose output it scores."""
    settings(ON + RULE.format(dollars=5) + JUDGE)
    provider.will_answer('{"reason": "warm enough", "score": 0.75}')
    await ran(tree(), metadata={"team": "support"})
    [one] = await scores(store_uri)
    assert (one.score, one.reason, one.by) == (0.75, "warm enough", "openai-chat:gpt-4o-mini")
    store = await SqlStateStore.open(store_uri)
    try:
        counted = [each.used for each in await store.budget_counters() if each.name == "budget:team"]
    finally:
        await store.aclose()
    assert counted == [one.cost_micro_usd]
    assert one.cost_micro_usd is not None
    assert one.cost_micro_usd > 0
    [request] = provider.requests
    said = json.dumps(request)
    assert "Is the greeting warm?" in said
    assert "HELLO ANA" in said
    assert request.get("max_completion_tokens") or request.get("max_tokens")


@pytest.mark.parametrize(
    ("answer", "budget", "error"),
    [
        ("no idea", "", "FLJ"),
        (Fault.SERVER_ERROR, "", "FLJ"),
        ('{"reason": "warm", "score": 0.75}', "budget = 0.0000001\n", "limit"),
        ('{"reason": "warm", "score": 0.75}', RULE.format(dollars=0.0000001), "budget `team`"),
    ],
)
async def test_a_judge_that_fails_or_is_too_expensive_leaves_its_error(
    settings: Settings, store_uri: str, provider: Provider, answer: Any, budget: str, error: str
) -> None:
    settings(f"{ON}{budget}{JUDGE}")
    provider.will_answer(answer)
    result = await ran(tree(), metadata={"team": "support"})
    assert result.output == "HELLO ANA"
    [one] = await scores(store_uri)
    assert one.score is None
    assert error in str(one.error)


async def test_a_judge_without_a_known_price_is_refused_under_a_budget(
    settings: Settings, store_uri: str, provider: Provider
) -> None:
    settings(f"{ON}budget = 1.0\n" + JUDGE.replace("gpt-4o-mini", "our-own-model"))
    provider.will_answer('{"reason": "warm", "score": 0.75}')
    await ran(tree())
    [one] = await scores(store_uri)
    assert "price" in str(one.error)
    assert provider.requests == []
