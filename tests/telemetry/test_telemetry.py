"""Runs of every kind, as a collector sees them over OTLP."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import warm
from agents.provider_server import Provider, provider_server
from engine.talking import RUN, calls, talk
from flujo import Flujo, Pipeline
from flujo.domain.agents import AgentSpec
from flujo.domain.current_step import ON_REMOTE_WORK
from flujo.domain.executor import Unit
from flujo.domain.journal import RunId
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.queues import task_id
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    AwaitStep,
    CallableRef,
    GranularStep,
    HumanInTheLoopStep,
    Step,
    StepConfig,
    Text,
)
from flujo.domain.trace_ids import shown_trace_id, span_id, trace_id
from flujo.governance.sink import GATE
from flujo.services.executors.wire import output_of
from flujo.services.telemetry import telemetry_of
from flujo.settings import Settings
from flujo.settings_tables import TelemetryTable
from flujo.state.memory_store import MemoryStateStore
from flujo.telemetry.run_spans import spans_of
from flujo.testing import ScriptedAgent
from services.executors.suite import PACKAGE, project_of
from support import World, call, everything, pipeline, resume, start
from telemetry.collector import Collector, collecting
from telemetry.conftest import ending, flush

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from flujo.domain.ports import StateStore

SECRET = "sk-2b7d1c90a4e64f58"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
async def memory() -> AsyncIterator[StateStore]:
    """A store in memory: what is sent does not depend on the database."""
    async with aclosing(MemoryStateStore()) as opened:
        yield opened


def hexadecimal(path: str, *parts: str | int, run_id: str = RUN) -> str:
    return f"{span_id(RunId(run_id), StepPath(path), *parts):016x}"


async def test_a_conversation_has_the_spans_of_the_genai_conventions(
    collector: Collector, memory: StateStore
) -> None:
    await start(talk([calls(("add", {"a": 1, "b": 2})), "three"]), memory, "go")
    flush()
    assert {each.trace_id for each in collector.spans} == {shown_trace_id(RUN)}
    run, agent = collector.named("invoke_workflow test"), collector.named("invoke_agent research")
    assert (run.parent_id, agent.parent_id) == ("", run.span_id)
    inside = [each for each in collector.spans if each.parent_id == agent.span_id]
    assert [each.name for each in inside] == ["chat scripted", "execute_tool add", "chat scripted"]
    assert [each.kind for each in inside] == [3, 1, 3]
    assert [each.attributes["gen_ai.operation.name"] for each in inside] == ["chat", "execute_tool", "chat"]
    assert inside[1].attributes["gen_ai.tool.name"] == "add"
    assert run.attributes["flujo.run.status"] == "completed"
    assert agent.attributes["flujo.step.path"] == "research"
    assert collector.resources[0]["service.name"] == "flujo"


async def test_no_content_is_sent_unless_it_is_wanted(collector: Collector, memory: StateStore) -> None:
    def fail(_: Any) -> None:
        raise ValueError("order 4711 of Ada")

    ask = GranularStep("ask", ScriptedAgent(["four"]))
    await start(pipeline(ask, call("fail", CallableRef("t:fail", fail))), memory, "order 4711 of Ada")
    flush()
    seen = repr(collector.spans)
    assert "4711" not in seen
    assert "four" not in seen
    assert collector.named("fail").error == "FLJ401 ValueError"
    assert collector.named("invoke_workflow test").error == "FLJ401 ValueError"


async def test_wanted_content_has_no_secrets(
    collector: Collector, memory: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    GATE.suspect([SECRET])  # masked where it is shown; a value may contain it
    wanting = Settings(telemetry=TelemetryTable(content=True))
    monkeypatch.setattr("flujo.services.workspace.telemetry_of", lambda _: telemetry_of(wanting))
    await start(talk([calls(("add", {"a": 1, "b": 2})), f"three {SECRET}"]), memory, f"go {SECRET}")
    sending = telemetry_of(wanting)
    assert sending is not None
    assert sending.exporter.flush(20)
    sending.exporter.close()
    first, last = [each for each in collector.spans if each.name == "chat scripted"]
    assert json.loads(first.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "go ***"}]}
    ]
    [said] = json.loads(last.attributes["gen_ai.output.messages"])
    assert said["parts"] == [{"type": "text", "content": "three ***"}]
    tool = collector.named("execute_tool add").attributes
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert tool["gen_ai.tool.call.result"] == "3"
    assert SECRET not in repr(collector.spans)


async def test_each_request_of_a_step_has_a_span(
    collector: Collector, memory: StateStore, provider: Provider
) -> None:
    provider.will_answer("not JSON", '{"label": "bug"}')
    agent = AgentSpec(
        "sort", "openai-chat:gpt-4o-mini", output_schema={"type": "object", "required": ["label"]}
    )
    result = await start(pipeline(Step("sort_it", agent=agent)), memory, "It crashes.")
    assert result.output == {"label": "bug"}
    flush()
    step = collector.named("invoke_agent sort")
    requests = [each for each in collector.spans if each.parent_id == step.span_id]
    assert [each.name for each in requests] == ["chat gpt-4o-mini"] * 2
    for each in requests:
        assert each.attributes["gen_ai.provider.name"] == "openai"
        assert each.attributes["gen_ai.usage.input_tokens"] == 1000
        assert each.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert step.attributes["gen_ai.usage.input_tokens"] == 2000
    [(sent_for, tokens)] = collector.metrics["gen_ai.client.inference.usage.input_tokens"]
    assert tokens == 2000
    assert sent_for["gen_ai.request.model"] == "gpt-4o-mini"
    assert collector.metrics["flujo.cost"][0][1] == pytest.approx(step.attributes["flujo.usage.cost"])


async def test_a_unit_of_a_worker_is_a_span_inside_its_step(collector: Collector, memory: StateStore) -> None:
    answers = [
        b'{"error":{"frame":null,"is_own":false,"original":"b.E","text":"no","traceback":"","type":"E","verdict":1},'
        b'"lines":[],"ran":["node-7",4711,0.5]}',
        b'{"lines":[],"output":4,"ran":["node-8",4712,0.25]}',
    ]

    traceparents: list[str] = []

    async def remote(_: Any) -> Any:
        listener = ON_REMOTE_WORK.get()
        assert listener is not None
        number, traceparent = listener.sent()
        traceparents.append(str(traceparent))
        return output_of(answers.pop(0), Unit(target="t:remote", data=b"null", number=number), "cores")

    patient = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    await start(pipeline(call("sum", CallableRef("t:remote", remote), config=patient)), memory)
    flush()
    step = collector.named("sum")
    failed, done = [each for each in collector.spans if each.name == "sum on cores"]
    assert {failed.parent_id, done.parent_id} == {step.span_id}
    assert (failed.error, done.error) == ("E", None)
    assert traceparents == [f"00-{each.trace_id}-{each.span_id}-01" for each in (failed, done)]
    assert done.attributes["flujo.executor.name"] == "cores"
    assert (done.attributes["host.name"], done.attributes["process.pid"]) == ("node-8", 4712)
    assert "gen_ai.client.inference.duration" not in collector.metrics


async def test_a_failed_attempt_is_a_span_inside_its_step(collector: Collector, memory: StateStore) -> None:
    outcomes = [ValueError("boo"), 7]

    def flaky(_: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    patient = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    await start(pipeline(call("flaky", CallableRef("t:flaky", flaky), config=patient)), memory)
    flush()
    step, attempt = collector.named("flaky"), collector.named("flaky attempt")
    assert (attempt.parent_id, attempt.error) == (step.span_id, "FLJ401 ValueError")
    assert (step.error, step.attributes["flujo.step.attempt"]) == (None, 2)
    assert step.seconds >= attempt.seconds


async def test_a_resumed_run_continues_its_trace(collector: Collector, store: StateStore) -> None:
    tree = pipeline(call("before", World().add("before")), HumanInTheLoopStep("ask", "Go on?"))
    paused = await start(tree, store, 1)
    flush()
    assert paused.status is RunStatus.PAUSED
    assert [each.name for each in collector.spans] == ["before"]
    await resume(tree, store, answer="yes")
    flush()
    assert [each.name for each in collector.spans] == ["before", "pause ask", "invoke_workflow test"]
    assert {each.trace_id for each in collector.spans} == {shown_trace_id(RUN)}
    assert collector.metrics["flujo.runs"] == [
        ({"flujo.pipeline": "test", "flujo.run.status": "paused"}, 1),
        ({"flujo.pipeline": "test", "flujo.run.status": "completed"}, 1),
    ]


async def test_a_run_and_its_background_task_are_linked(collector: Collector, memory: StateStore) -> None:
    tree = pipeline(
        call("send", World().add("send"), config=StepConfig(execution_mode="background")),
        AwaitStep("wait", tasks=[Text("{{ steps.send.output.task_id }}")]),
    )
    await start(tree, memory, 1)
    flush()
    task = task_id(RUN, StepPath("send"), 1)
    launching = next(each for each in collector.spans if each.span_id == hexadecimal("send"))
    of_task = next(each for each in collector.spans if each.span_id == hexadecimal("", run_id=task))
    assert launching.links == ((shown_trace_id(task), of_task.span_id),)
    assert of_task.links == ((shown_trace_id(RUN), launching.span_id),)
    assert of_task.trace_id == shown_trace_id(task)


async def test_every_kind_of_step_has_the_spans_that_its_journal_has(
    collector: Collector, store: StateStore
) -> None:
    await start(everything(World()), store, 1)
    flush()
    record = await store.run(RUN)
    recorded = spans_of(record, await store.entries(RUN))
    assert {(f"{each.span_id:016x}", each.name) for each in recorded} == {
        (each.span_id, each.name) for each in collector.spans
    }
    known = {each.span_id for each in collector.spans}
    assert {each.parent_id for each in collector.spans} <= {"", *known}
    assert len(known) == len(collector.spans)


async def test_code_of_a_step_creates_spans_inside_that_of_the_step(
    collector: Collector, memory: StateStore
) -> None:
    seen: list[trace.SpanContext] = []

    def look(_: Any) -> None:
        seen.append(trace.get_current_span().get_span_context())

    await start(pipeline(call("look", CallableRef("t:look", look))), memory)
    assert [(each.trace_id, each.span_id) for each in seen] == [
        (trace_id(RUN), span_id(RUN, StepPath("look")))
    ]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_spans_of_code_on_a_worker_are_inside_that_of_its_unit(
    collector: Collector, tmp_path: Path
) -> None:
    async with project_of(tmp_path, 'kind = "processes"\nsize = 1') as workspace:
        call = importlib.import_module(PACKAGE).spans
        tree = Pipeline([Step("own", call, config=StepConfig(executor="there"))], name="test")
        async with Flujo(tree, binding=workspace.bind(tree), persist_state=False) as runner:
            result = await runner.run_result_async(None)
    flush()
    unit = collector.named("own on there")
    assert result.output == [unit.trace_id, unit.span_id]
    assert unit.trace_id == shown_trace_id(result.run_id)


async def test_a_program_with_its_own_provider_gets_the_spans_there(
    memory: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with ending():
        with provider.get_tracer("app").start_as_current_span("request") as request:
            await start(pipeline(), memory)
        flush()
    by_name = {each.name: each for each in kept.get_finished_spans()}
    run = by_name["invoke_workflow test"]
    assert run.context is not None
    assert run.context.trace_id == trace_id(RUN)
    [link] = run.links
    assert link.context.span_id == request.get_span_context().span_id
    own = by_name["request"].context
    assert own is not None
    assert own.trace_id != trace_id(RUN), "the spans of the program keep their ids"


async def test_a_sampler_decides_by_the_run(
    collector: Collector, memory: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with ending():
        await start(pipeline(), memory)
        flush()
    assert collector.spans == []
    assert "flujo.runs" in collector.metrics


async def test_runs_are_the_same_while_the_collector_does_not_answer(
    collector: Collector, memory: StateStore
) -> None:
    collector.hold = threading.Event()
    result = await start(talk([calls(("add", {"a": 1, "b": 2})), "three"]), memory, "go")
    assert (result.status, result.output) == (RunStatus.COMPLETED, "three")
    assert not collector.hold.is_set(), "the run has not waited for it"


@pytest.mark.parametrize("status", [400, 503])
async def test_runs_are_the_same_when_the_collector_refuses(
    memory: StateStore, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with collecting(status) as broken:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", broken.url)
        with ending():
            result = await start(pipeline(), memory, "go")
    assert (result.status, result.output) == (RunStatus.COMPLETED, "go")


async def test_runs_are_the_same_without_a_collector(
    memory: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as gone:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.url)
    with ending():
        result = await start(pipeline(), memory, "go")
    assert (result.status, result.output) == (RunStatus.COMPLETED, "go")


SHORT = """
from flujo import Flujo, Pipeline, Step
from flujo.testing import MemoryStateStore

def greet(data: str) -> str:
    return "hello " + data

print(Flujo(Pipeline((Step("greet", greet),), name="short"), store=MemoryStateStore()).run("you").output)
"""


def test_a_short_process_sends_everything_at_its_end(tmp_path: Path) -> None:
    with collecting() as found:
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": found.url}
        done = warm.run([sys.executable, "-c", SHORT], cwd=tmp_path, env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello you\n", "")
    assert [each.name for each in found.spans] == ["greet", "invoke_workflow short"]
    assert "flujo.runs" in found.metrics


def test_the_ids_of_a_run_are_the_same_in_every_version() -> None:
    assert shown_trace_id(RunId("run")) == "acba25512100f80b56fc3ccd14c65be5"
    assert hexadecimal(ROOT) == "46693f9ace9fb368"
    assert hexadecimal("a/b[2]") == "b6d5676725b1e391"
