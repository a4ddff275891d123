"""The manual's code, as printed, on both databases; the tests supply the omitted parts."""

from __future__ import annotations

import logging
from importlib import reload
from typing import TYPE_CHECKING, Any

import pytest

from flujo import HumanInTheLoopStep, TaskClient
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Text
from flujo.domain.usage import Usage
from flujo.exceptions import InputRejected, PausedException
from flujo.testing import ScriptedAgent
from manual.blocks import (
    app_resources,
    context_reference,
    exception_pattern,
    reference_adapter,
    typed_context,
)
from manual.supplied import Flujo
from support import Expr, Save, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline


@pytest.fixture(autouse=True)
def production(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state backend of section 1.1, without the supplied parts of another block."""
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    monkeypatch.chdir(tmp_path)
    yield
    supply({})


def supply(left_out: Mapping[str, Any], value: Any = None) -> None:
    """Set the meaning of `...` for the next block."""
    Flujo.left_out, Flujo.input = left_out, value


def asking(**more: Any) -> Pipeline:
    return pipeline(HumanInTheLoopStep(name="ask", message=Text("Send this?")), **more)


async def test_2_1_and_2_3_a_typed_context_and_a_typed_runner() -> None:
    def search(data: str, context: typed_context.ResearchContext) -> Any:
        context.results.append({"for": context.user_id, "query": data})
        return typed_context.QueryOutput(hits=len(context.results))

    tree = pipeline(call("search", CallableRef("x:search", search)))
    supply({"pipeline": tree, "context_model": typed_context.ResearchContext})
    async with typed_context.build() as runner, TaskClient() as client:
        result = await runner.run_result_async("aspirin", initial_context_data={"user_id": "u1"})
        await runner.run_result_async("aspirin", initial_context_data={"user_id": "u2"})
        with pytest.raises(InputRejected, match="user_id"):
            await runner.run_result_async("aspirin")
        assert [task.run_id for task in await client.list_tasks(user_id="u1")] == [result.run_id]
        assert (await client.get_task(result.run_id)).context == {
            "user_id": "u1",
            "source_type": "unknown",
            "results": [{"for": "u1", "query": "aspirin"}],
        }
    assert result.context is not None
    assert (result.context.user_id, result.context.source_type) == ("u1", "unknown")
    assert result.output == {"hits": 1}  # type: ignore[comparison-overlap]  # one value, live or resumed


async def test_2_2_a_large_document_stays_out_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pipeline(call("read", CallableRef("x:length", context_reference.length)))
    monkeypatch.setattr(context_reference, "my_pipeline", read)
    pointer = {"provider_id": "s3", "key": "bucket/file.pdf"}
    async with context_reference.build() as runner, TaskClient() as client:
        for given in (pointer, b"%PDF-1.7"):
            result = await runner.run_result_async("x", initial_context_data={"raw_document": given})
            assert result.output == 8
            assert result.context is not None
            kept = (await client.get_task(result.run_id)).context["raw_document"]
            assert kept == result.context.raw_document.model_dump()
            assert pointer.items() <= kept.items() or kept["key"] == f"sha256/{kept['sha256']}"


async def test_4_resources_are_injected() -> None:
    block = reload(app_resources)
    async with block.runner as runner:
        runner.pipeline = pipeline(call("my_step", CallableRef("x:my_step", block.my_step)))
        result = await runner.run_result_async("x")
    assert result.success
    assert block.pool.executed == [...]


async def test_7_a_swallowed_pause_still_pauses_the_run(caplog: pytest.LogCaptureFixture) -> None:
    async with Flujo[Any, Any, Any](pipeline=asking(), raise_on_pause=True) as runner:
        assert await exception_pattern.bad(runner) == "Error"
        with pytest.raises(PausedException, match="Send this"):
            await exception_pattern.good(runner)
        async with TaskClient(runners=[runner]) as client:
            waiting = await client.list_tasks(status="paused")
            answered = [await client.resume_task(task.run_id, "yes") for task in waiting]
    assert [result.output for result in answered] == ["yes", "yes"]
    assert caplog.messages == []


async def test_7_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    supply({}, value=3)
    async with Flujo[Any, Any, Any](pipeline=pipeline(input_schema={"type": "string"})) as runner:
        with caplog.at_level(logging.ERROR, "manual"):
            await exception_pattern.good(runner)
    assert (
        "Execution Error: the input" in caplog.messages[0] or "Execution Error: input" in caplog.messages[0]
    )


async def test_9_the_adapter_returns_results_seeds_the_context_and_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shout = call("shout", CallableRef("x:shout", str.upper), save={"source": Save(Expr("'api'"))})
    monkeypatch.setattr(reference_adapter, "my_pipeline", pipeline(shout))
    adapter = reference_adapter.FlujoProductionAdapter()
    assert await adapter.process_request("hello", "u1") == "HELLO"
    async with TaskClient() as client:
        (task,) = await client.list_tasks(status="completed", user_id="u1")
        assert (await client.get_task(task.run_id)).context == {"user_id": "u1", "source": "api"}
    await adapter.close()
    await adapter.close()


@pytest.mark.parametrize("persist", [True, False])
async def test_9_failed_and_unpersisted_runs(monkeypatch: pytest.MonkeyPatch, persist: bool) -> None:
    def fail(data: str) -> str:
        raise ValueError(data)

    monkeypatch.setattr(reference_adapter, "my_pipeline", pipeline(call("fail", CallableRef("x:fail", fail))))
    adapter = reference_adapter.FlujoProductionAdapter(persist=persist)
    assert await adapter.process_request("no", "u1") == "Processing Failed"
    await adapter.close()
    async with TaskClient() as client:
        kept = await client.list_tasks(user_id="u1")
    assert [task.status for task in kept] == ([RunStatus.FAILED] if persist else [])


async def test_9_a_run_that_would_cost_more_than_the_adapter_allows_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent: Any = ScriptedAgent(["one", "two"], usage=Usage(requests=1, cost_micro_usd=600_000))
    monkeypatch.setattr(
        reference_adapter,
        "my_pipeline",
        pipeline(call("first", CallableRef("x:agent", agent)), call("second", CallableRef("x:agent", agent))),
    )
    adapter = reference_adapter.FlujoProductionAdapter()
    assert await adapter.process_request("hello", "u1") == "Processing Failed"
    await adapter.close()
    assert agent.count == 1, "the second answer had no cost"
    async with TaskClient() as client:
        (task,) = await client.list_tasks(user_id="u1")
        error = (await client.get_task(task.run_id)).error
    assert error is not None
    assert error.type == "UsageLimitExceeded"
    assert task.usage.cost_usd == 0.6


async def test_9_a_pause_is_answered_through_a_task_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_adapter, "my_pipeline", asking())
    adapter = reference_adapter.FlujoProductionAdapter()
    assert await adapter.process_request("hello", "u1") == "Processing Failed"
    async with TaskClient(runners=[adapter._runner]) as client:
        (task,) = await client.list_tasks(status="paused", user_id="u1")
        assert (await client.resume_task(task.run_id, "sent")).output == "sent"
    await adapter.close()
