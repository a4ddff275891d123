"""A worker reports its queues, its commits and its connections to a collector."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from flujo.domain.journal import RunId
from flujo.domain.process_counts import COUNTS
from flujo.domain.queues import Queued
from flujo.domain.run import NewRun
from flujo.services.project.project import find_project
from flujo.services.runs.queue_metrics import QueueMetrics
from flujo.services.workspace import Workspace
from telemetry.collector import Collector, collecting
from telemetry.conftest import ending, flush

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


@contextmanager
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        with ending():
            yield running


def new(run_id: str, queue: str) -> NewRun:
    queued = Queued(queue=queue)
    return NewRun(
        run_id=RunId(run_id), pipeline="p", closure="c", input=b"null", context=b"{}", queued=queued
    )


async def test_queues_commits_and_connections_are_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    before = COUNTS.requests
    with collector(monkeypatch) as found:
        async with Workspace(find_project(tmp_path)) as workspace:
            store = await workspace.store()
            for run_id, queue in (("a", "default"), ("b", "default"), ("c", "bulk")):
                await store.accept(new(run_id, queue), {}, claim=False)
            assert await QueueMetrics(workspace).look() == 0
            flush()
            seen = dict(found.metrics)
    depths = {given["flujo.queue.name"]: value for given, value in seen["flujo.queue.depth"]}
    assert depths == {"default": 2, "bulk": 1}
    assert seen["flujo.queue.age"][0][1] >= 0
    [(_, requests)] = seen["flujo.writer.requests"]
    [(_, commits)] = seen["flujo.writer.commits"]
    assert requests - before >= 3
    assert 1 <= commits <= requests
    assert seen["flujo.pool.used"][0][1] >= 1, "the writer has a connection"
    assert "flujo.lease.renewals" in seen


async def test_nothing_is_read_without_telemetry(tmp_path: Path) -> None:
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    async with Workspace(find_project(tmp_path)) as workspace:
        assert await QueueMetrics(workspace).look() == 0
    assert not (tmp_path / "state.db").exists()


def test_a_queue_that_is_gone_has_nothing_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from flujo.domain.queues import QueueState
    from flujo.services.telemetry import telemetry_of
    from flujo.settings import Settings

    with collector(monkeypatch) as found:
        sending = telemetry_of(Settings())
        assert sending is not None
        sending.report_queues([QueueState(queue="bulk", depth=3, oldest_s=9.0)])
        sending.report_queues([QueueState(queue="default", depth=1, oldest_s=1.0)])
        flush()
    depths = {given["flujo.queue.name"]: value for given, value in found.metrics["flujo.queue.depth"]}
    assert depths == {"bulk": 0, "default": 1}
