"""A run that ends its process is parked, and neither its worker nor the runs beside it die with it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import warm
from flujo.client import TaskClient
from flujo.domain.journal import RunId
from flujo.domain.queues import DEFAULT_QUEUE, NO_LIMITS, ClaimOrder, Queued
from flujo.domain.run import NewRun, RunStatus
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite.examples import NEVER_S, SHORT_S

if TYPE_CHECKING:
    from pathlib import Path

SKILLS = """
import asyncio
import os
import signal


def leave(data: str) -> str:
    os._exit(3)


def crash(data: str) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)


async def hold(data: str) -> str:
    open("held", "w").close()
    await asyncio.sleep(3600)


def work(data: str) -> str:
    return f"{data} in {os.getpid()}"
"""


@pytest.fixture
def project(tmp_path: Path, store_uri: str) -> Path:
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["skills.*"]\n'
        "[settings]\nrecovery_s = 0.1\nmax_recoveries = 0\n"
    )
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "ways.py").write_text(dedent(SKILLS))
    (tmp_path / "blueprints").mkdir()
    for name in ("leave", "crash", "hold", "work"):
        text = f'version: "1"\nname: {name}\nsteps: [{{name: do, call: "skills.ways:{name}"}}]\n'
        (tmp_path / "blueprints" / f"{name}.yaml").write_text(text)
    return tmp_path


async def queued(workspace: Workspace, store: SqlStateStore, *names: str) -> None:
    """Put a run of each blueprint into the queue."""
    for name in names:
        found = workspace.load(f"blueprints/{name.partition('-')[0]}.yaml")
        new = NewRun(
            run_id=RunId(name),
            pipeline=found.pipeline.name,
            closure=found.closure.digest,
            input=b'"x"',
            context=b"{}",
            queued=Queued(queue=DEFAULT_QUEUE),
        )
        await store.accept(new, found.closure.blobs(), claim=False)


async def opened(uri: str) -> list[SqlStateStore]:
    """Return two stores that lose their runs soon."""
    return [await SqlStateStore.open(uri, lease_s=SHORT_S, renew_s=NEVER_S) for _ in range(2)]


async def cut_off_twice(workspace: Workspace, owners: list[SqlStateStore], *names: str) -> None:
    """Queue runs whose owner is lost twice, each time together with the others."""
    await queued(workspace, owners[0], *names)
    order = ClaimOrder(queues=((DEFAULT_QUEUE, NO_LIMITS),), limit=5)
    for owner in owners:
        assert len(await owner.claim_next(order)) == len(names)
        await asyncio.sleep(2 * SHORT_S)


def launched(project: Path) -> warm.Popen:
    """Start a worker."""
    return warm.Popen(
        [sys.executable, "-m", "flujo", "worker", "--concurrency", "4"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.guarantee("G6")
async def test_only_the_run_that_ends_its_process_is_parked_and_the_worker_continues(
    project: Path, store_uri: str
) -> None:
    owners = await opened(store_uri)
    async with Workspace(find_project(project)) as workspace:
        await cut_off_twice(workspace, owners, "leave", "crash", "work")
        worker = launched(project)
        try:
            client = TaskClient(store_uri)
            ended = [await client.wait(each, timeout=240) for each in ("leave", "crash", "work")]
            assert [each.status for each in ended] == [
                RunStatus.PARKED,
                RunStatus.PARKED,
                RunStatus.COMPLETED,
            ]
            assert str(worker.pid) not in str(ended[2].output), "it was executed in another process"
            await queued(workspace, owners[0], "work-later")
            later = await client.wait("work-later", timeout=240)
            assert str(worker.pid) in str(later.output)
            record = await owners[0].run(RunId("work"))
            assert record.recoveries == 0
            await client.aclose()
        finally:
            worker.send_signal(signal.SIGTERM)
            _, said = worker.communicate(timeout=240)
            for owner in owners:
                await owner.aclose()
    assert worker.returncode == 0, said
    assert f"{'failed':<9}leave leave  it ended its process, in which it was alone: exit code 3" in said
    assert f"{'failed':<9}crash crash  it ended its process, in which it was alone: SIGSEGV" in said


@pytest.mark.parametrize("store_uri", ["sqlite"], indirect=True)
async def test_a_run_that_is_executed_alone_is_released_when_its_worker_is_killed(
    project: Path, store_uri: str
) -> None:
    owners = await opened(store_uri)
    async with Workspace(find_project(project)) as workspace:
        await cut_off_twice(workspace, owners, "hold", "work")
    worker = launched(project)
    async with asyncio.timeout(240):
        while not (project / "held").exists():  # noqa: ASYNC110 - it observes from outside, like a user
            await asyncio.sleep(0.02)
        worker.kill()
        worker.communicate()
        while (await owners[0].run(RunId("hold"))).owner is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    assert (await owners[0].run(RunId("hold"))).status is RunStatus.RUNNING
    for owner in owners:
        await owner.aclose()
