"""People rate outputs through `TaskClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Pipeline, Step
from flujo.domain.acts import Via
from flujo.domain.evaluations import EvaluationQuery
from flujo.domain.paths import ROOT, StepPath
from flujo.exceptions import RatingRefused, RunNotFound
from flujo.governance.sink import GATE
from flujo.services.inspection.task_client import TaskClient

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


def greet(data: str) -> str:
    return f"hello {data}"


@pytest.fixture
async def client(store: StateStore) -> TaskClient:
    """Return a client of a store with the completed run `r`."""
    async with Flujo[Any, Any, Any](Pipeline(Step("greet", greet), name="p"), store=store) as runner:
        await runner.run_result_async("ana", run_id="r")
    return TaskClient(store, by="ana")


@pytest.fixture
def secret() -> str:
    GATE.know(["s3cret-of-a-test"], of="a test")
    return "s3cret-of-a-test"


async def test_a_rating_is_a_score_of_the_run_or_of_a_step(client: TaskClient, store: StateStore) -> None:
    whole = await client.rate("r", 0.5)
    step = await client.rate("@last", 1, path="greet", name="tone", reason="warm", by="bob")
    assert (whole.path, whole.evaluator, whole.score, whole.by) == (ROOT, "rating", 0.5, "ana")
    assert (step.path, step.evaluator, step.score, step.by) == (StepPath("greet"), "tone", 1.0, "bob")
    assert (step.pipeline, step.reason, step.cost_micro_usd) == ("p", "warm", None)
    found = await store.evaluations(EvaluationQuery())
    assert [each.key for each in found] == [step.key, whole.key]
    assert [(act.verb, act.actor.by, act.actor.via) for act in await store.acts(found[0].run_id)] == [
        ("rate", "ana", Via.API),
        ("rate", "bob", Via.API),
    ]


async def test_a_secret_in_a_reason_is_masked(client: TaskClient, store: StateStore, secret: str) -> None:
    rated = await client.rate("r", 0.5, reason=f"it said {secret}")
    [stored] = await store.evaluations(EvaluationQuery())
    assert secret not in f"{rated}{stored}{await store.acts(rated.run_id)}"


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), "0.5", None, True])
async def test_a_score_that_is_not_from_0_to_1_is_refused(
    client: TaskClient, store: StateStore, score: Any
) -> None:
    with pytest.raises(RatingRefused):
        await client.rate("r", score)
    assert await store.evaluations(EvaluationQuery()) == []


async def test_an_unknown_run_or_step_is_refused(client: TaskClient, store: StateStore) -> None:
    with pytest.raises(RunNotFound):
        await client.rate("none", 1)
    with pytest.raises(RatingRefused, match="nowhere") as error:
        await client.rate("r", 1, path="nowhere")
    assert "flujo trace r" in str(error.value.hint)
    assert await store.evaluations(EvaluationQuery()) == []
