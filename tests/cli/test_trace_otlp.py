"""`flujo trace --format otlp` exports the spans that were sent live, from the database alone."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flujo.domain.journal import RunId
from flujo.domain.trace_ids import shown_trace_id
from telemetry.collector import Collector

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


def parsed(data: Any) -> Collector:
    """Return what a collector reads: in the JSON of OTLP ids are hexadecimal, in that of protobuf base64."""

    def converted(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: converted(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [converted(each) for each in value]
        is_id = key in ("traceId", "spanId", "parentSpanId")
        return base64.b64encode(bytes.fromhex(value)).decode() if is_id else value

    request = ParseDict(converted(data), ExportTraceServiceRequest())
    collector = Collector()
    collector.take("/v1/traces", request.SerializeToString())
    return collector


def test_a_run_is_exported_as_a_collector_reads_it(flujo: Flujo) -> None:
    run_id = json.loads(flujo("run", "hello", "--input", "Ada", "--json").stdout)["run_id"]
    exported = flujo("trace", run_id, "--format", "otlp")
    assert exported.exit_code == 0
    found = parsed(json.loads(exported.stdout))
    assert [each.name for each in found.spans] == ["greet", "count", "invoke_workflow hello"]
    run = found.named("invoke_workflow hello")
    assert {each.trace_id for each in found.spans} == {shown_trace_id(RunId(run_id))}
    assert {each.parent_id for each in found.spans} == {"", run.span_id}
    assert run.attributes["flujo.run.status"] == "completed"
    assert found.resources[0]["service.name"] == "flujo"
    assert "Ada" not in exported.stdout


def test_content_is_exported_when_the_settings_want_it(flujo: Flujo, project: Project) -> None:
    with (project.root / "flujo.toml").open("a") as file:
        file.write("\n[telemetry]\ncontent = true\nservice_name = 'greeter'\n")
    flujo("run", "hello", "--input", "Ada")
    found = parsed(json.loads(flujo("trace", "--format", "otlp").stdout))
    assert found.named("greet").attributes["flujo.step.output"] == '"Hello, Ada!"'
    assert found.resources[0]["service.name"] == "greeter"


def test_a_failed_run_has_its_error(flujo: Flujo) -> None:
    flujo("run", "flaky", "--input", "x")
    found = parsed(json.loads(flujo("trace", "--format", "otlp").stdout))
    failed = [each for each in found.spans if each.error]
    assert [each.name for each in failed] == ["second attempt", "second", "invoke_workflow flaky"]
    assert {each.error for each in failed} == {"FLJ401 FileNotFoundError"}


def test_a_step_and_an_unknown_run_are_refused(flujo: Flujo) -> None:
    flujo("run", "hello", "--input", "Ada")
    named = flujo("trace", "@last", "greet", "--format", "otlp")
    assert (named.exit_code, named.stdout) == (2, "")
    assert "has the whole run" in named.stderr
    unknown = flujo("trace", "nothing", "--format", "otlp")
    assert (unknown.exit_code, unknown.stdout) == (8, "")
