"""Section 8: each deployment profile as one program on both databases.

Profile A needs granular steps and background work, which are not available yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

from flujo import (
    CacheStep,
    HumanInTheLoopStep,
    MapStep,
    Pipeline,
    PipelineContext,
    StateMachineStep,
    Step,
    StepConfig,
    TaskClient,
)
from flujo.domain.run import RunStatus
from flujo.domain.steps import Expr, State, Text, Transition
from manual.blocks import lifecycle
from manual.supplied import Flujo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager


@pytest.fixture(autouse=True)
def production(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state backend from the environment, the pool from flujo.toml."""
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    monkeypatch.chdir(tmp_path)
    Path("flujo.toml").write_text("[settings]\npostgres_pool_min = 1\npostgres_pool_max = 20\n", "utf-8")
    yield
    Flujo.left_out = {}


DOCUMENTS = [f"document {n % 20}" for n in range(60)]


@pytest.mark.parametrize("persist", [True, False], ids=["audited", "not persisted"])
async def test_profile_b_maps_over_a_cache(persist: bool) -> None:
    embedded: list[str] = []

    class Embedder:
        cache_key = "sums"  # decides the answers; the list of calls does not

        async def __call__(self, data: str) -> list[int]:
            embedded.append(data)
            return [len(data), sum(data.encode())]

    one = Step("embed", Embedder(), config=StepConfig(timeout_s=30))
    tree = Pipeline(
        (MapStep("each", over=Expr("input"), body=Pipeline((CacheStep("kept", one),)), max_concurrency=20),),
        name="embeddings",
    )
    async with Flujo[list[str], list[Any], Any](pipeline=tree, persist_state=persist) as runner:
        first = await runner.run_result_async(DOCUMENTS)
        asked = len(embedded)
        second = await runner.run_result_async(DOCUMENTS)
    assert first.output == second.output == [[len(text), sum(text.encode())] for text in DOCUMENTS]
    assert set(embedded) == set(DOCUMENTS)
    assert len(embedded) == asked  # the second run took everything from the cache

    async with TaskClient() as client:
        kept = await client.list_tasks()
        assert len(kept) == (2 if persist else 0)
        if persist:  # for the audit: each item with the source of its answer
            trace = (await client.get_task(second.run_id)).trace
            hits = [trace.at(f"each[{n}]/kept").detail["cached"] for n in range(len(DOCUMENTS))]
            assert hits == [True] * len(DOCUMENTS)


class Conversation(PipelineContext):
    """The memory of an assistant."""

    user_id: str
    said: list[str] = []  # noqa: RUF012 - pydantic copies it


def reply(data: str, context: Conversation) -> str:
    """Answer, and store the message."""
    answer = f"you said {data!r}"
    context.said += [data, answer]
    return answer


ASSISTANT = Pipeline(
    (
        StateMachineStep(
            "talk",
            initial="listen",
            states={
                "listen": State(
                    Pipeline((HumanInTheLoopStep("hear", message=Text("{{ previous }}")),)),
                    (Transition("closed", Expr("steps.hear.output == 'bye'")), Transition("answer")),
                ),
                "answer": State(Pipeline((Step("reply", reply),)), (Transition("listen"),)),
                "closed": State(Pipeline()),
            },
            final=("closed",),
        ),
    ),
    name="assistant",
)


def serve() -> AbstractAsyncContextManager[None]:
    """Serve the assistant with the lifespan of section 7."""
    Flujo.left_out = {"pipeline": ASSISTANT, "context_model": Conversation}
    lifecycle.adapter = lifecycle.FlujoAdapter()
    return lifecycle.lifespan(FastAPI())


async def test_profile_c_continues_its_conversation_across_server_restarts() -> None:
    async with serve():
        runner = lifecycle.adapter.runner
        begun = await runner.run_result_async("How can I help?", initial_context_data={"user_id": "u1"})
        assert [pause.message for pause in begun.pauses] == ["How can I help?"]
        async with TaskClient(runners=[runner]) as client:
            waiting = await client.resume_task(begun.run_id, "my printer burns")
        assert [pause.message for pause in waiting.pauses] == ["you said 'my printer burns'"]

    async with TaskClient() as dashboard:
        (task,) = await dashboard.list_tasks(status="paused", user_id="u1")
        shown = await dashboard.get_task(task.run_id)
    assert shown.states == {"talk": "listen"}
    assert shown.context["said"] == ["my printer burns", "you said 'my printer burns'"]

    async with serve(), TaskClient(runners=[lifecycle.adapter.runner]) as client:
        await client.resume_task(task.run_id, "still")
        ended = await client.resume_task(task.run_id, "bye")
        shown = await client.get_task(task.run_id)
    assert ended.status is RunStatus.COMPLETED
    assert shown.states == {"talk": "closed"}
    assert shown.context["said"][2:] == ["still", "you said 'still'"]
