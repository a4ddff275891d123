"""Callables on a Ray cluster: a real one, of two nodes on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from flujo.domain.executor import Needs
from flujo.exceptions import CodeDiffers, ExecutorUnavailable, ResourcesUnavailable, WorkerLost
from services.executors.ray_cluster import RayCluster
from services.executors.suite import (
    PACKAGE,
    ExecutorSuite,
    appears,
    is_running,
    project_of,
    unit,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from flujo.domain.executor import Executor
    from flujo.services.workspace import Workspace

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("ray") is None, reason="no package `ray`: pip install 'flujo[ray]'"),
    pytest.mark.timeout(600),
]


in_soak = pytest.mark.skipif(
    os.environ.get("FLUJO_CLUSTERS") != "all", reason="in `make soak`: it takes long"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    yield cluster
    cluster.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_ray(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workspace]:
    """A project on the cluster."""
    table = f'kind = "ray"\naddress = "{cluster.address}"'
    async with project_of(tmp_path_factory.mktemp("ray"), table) as workspace:
        yield workspace


@pytest.mark.asyncio(loop_scope="module")
class TestRay(ExecutorSuite):
    """The promises, on one connection for all tests."""

    @pytest.fixture
    def workspace(self, on_ray: Workspace) -> Workspace:
        return on_ray

    async def test_other_code_than_that_of_the_run_is_refused(  # type: ignore[override]
        self, cluster: RayCluster, tmp_path: Path
    ) -> None:
        """The workers of the other tests have loaded their code, and are not asked."""
        async with project_of(tmp_path, f'kind = "ray"\naddress = "{cluster.address}"') as workspace:
            other = workspace.executors.named("there")
            assert other is not None
            await super().test_other_code_than_that_of_the_run_is_refused(other, workspace)

    async def test_ray_repeats_nothing(self, there: Executor, tmp_path: Path) -> None:
        begun = tmp_path / "pid"
        under_way = asyncio.ensure_future(there.submit(unit("hangs", str(begun))))
        os.kill(await appears(begun), signal.SIGKILL)
        begun.unlink()
        await until(lambda: under_way.done() or begun.exists())
        assert not begun.exists()
        with pytest.raises(WorkerLost):
            await under_way
        many = await asyncio.gather(*(there.submit(unit("double", number)) for number in range(300)))
        assert many == [2 * number for number in range(300)]
        assert not begun.exists()

    async def test_cancelling_kills_the_worker_also_a_stopped_one(
        self, there: Executor, tmp_path: Path
    ) -> None:
        under_way = [
            asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / each)))) for each in "ab"
        ]
        first, second = [await appears(tmp_path / each) for each in "ab"]
        os.kill(second, signal.SIGSTOP)
        for each in under_way:
            each.cancel()
        await asyncio.wait(under_way, timeout=60)
        assert all(each.cancelled() for each in under_way)
        await until(lambda: not is_running(first))
        assert await there.submit(unit("double", 1)) == 2
        with contextlib.suppress(ProcessLookupError):  # Ray has killed it as well, sooner or later
            os.kill(second, signal.SIGKILL)

    async def test_needs_decide_where_a_unit_is_executed(self, there: Executor) -> None:
        assert await there.submit(unit("double", 1, needs=Needs(gpu=1))) == 2
        for needs, says in (
            (Needs(gpu=9), "9 gpu"),
            (Needs(cpu=3), "3 cpu"),
            (Needs(memory=2**45), "32768 GiB"),
        ):
            with pytest.raises(ResourcesUnavailable, match=says):
                await there.submit(unit("double", 1, needs=needs))

    @in_soak
    async def test_a_node_that_is_gone(self, cluster: RayCluster, there: Executor, tmp_path: Path) -> None:
        node = await asyncio.to_thread(cluster.with_node, 2)
        await until_has(there, Needs(gpu=2))
        under_way = asyncio.ensure_future(
            there.submit(unit("hangs", str(tmp_path / "pid"), needs=Needs(gpu=2)))
        )
        worker = await appears(tmp_path / "pid")
        os.kill(node, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await under_way
        await until(lambda: not is_running(worker))
        with pytest.raises((WorkerLost, ResourcesUnavailable)):  # the loss may be known a second later
            await there.submit(unit("double", 1, needs=Needs(gpu=2)))
        with pytest.raises(ResourcesUnavailable):
            await there.submit(unit("double", 1, needs=Needs(gpu=2)))
        assert await there.submit(unit("double", 1)) == 2

    @pytest.mark.parametrize("version", [None, pytest.param("9.9", marks=in_soak)])
    async def test_a_worker_without_flujo_or_with_another_version_is_named(
        self, cluster: RayCluster, there: Executor, tmp_path: Path, version: str | None
    ) -> None:
        """A file on the path of the workers hides the package that is installed, or its version."""
        if version is None:
            (tmp_path / "flujo.py").write_text(
                "raise ModuleNotFoundError(\"No module named 'flujo'\")", "utf-8"
            )
        else:
            (tmp_path / "flujo-9.9.dist-info").mkdir()
            (tmp_path / "flujo-9.9.dist-info" / "METADATA").write_text("Name: flujo\nVersion: 9.9\n", "utf-8")
        says = (
            "No module named 'flujo'" if version is None else "has Flujo 9.9, and the process of the run has"
        )
        node = await asyncio.to_thread(cluster.with_node, 3, PYTHONPATH=str(tmp_path))
        try:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(ResourcesUnavailable):  # until the node is known
                        with pytest.raises(CodeDiffers, match=says) as refused:
                            await there.submit(unit("double", 1, needs=Needs(gpu=3)))
                        break
                    await asyncio.sleep(0.1)
            with pytest.raises(CodeDiffers, match=says) as checked:
                await there.check()
        finally:
            os.kill(node, signal.SIGKILL)
        await until_lacks(there, Needs(gpu=3))
        for each in (refused.value, checked.value):
            assert re.search(r" on [\w.-]+ ", each.message), each.message
            assert "pip install flujo==" in str(each.hint)

    async def test_modules_are_sent(self, cluster: RayCluster, tmp_path: Path) -> None:
        (tmp_path / "data.txt").touch()
        table = f'kind = "ray"\naddress = "{cluster.address}"\ncode = "ship"\nbatch_size = 20'
        async with project_of(tmp_path, table) as workspace:
            there = workspace.executors.named("there")
            assert there is not None
            many = await asyncio.gather(*(there.submit(unit("double", number)) for number in range(50)))
            assert many == [2 * number for number in range(50)]
            root, names = await there.submit(unit("folder"))
        assert (root != str(tmp_path), names) == (True, [f"{PACKAGE}.py"])


async def until_has(executor: Executor, needs: Needs) -> None:
    """Wait until a node has that much."""
    async with asyncio.timeout(60):
        while (await executor.check()).has.gpu < needs.gpu:  # noqa: ASYNC110 - it changes in another process
            await asyncio.sleep(0.1)


async def until_lacks(executor: Executor, needs: Needs) -> None:
    """Wait until no node has that much."""
    async with asyncio.timeout(60):
        with contextlib.suppress(ResourcesUnavailable):
            while True:
                with contextlib.suppress(CodeDiffers, WorkerLost):
                    await executor.submit(unit("double", 1, needs=needs))
                await asyncio.sleep(0.1)


async def test_no_cluster(tmp_path: Path) -> None:
    async with project_of(tmp_path, 'kind = "ray"\naddress = "127.0.0.9:1"') as workspace:
        there = workspace.executors.named("there")
        assert there is not None
        with pytest.raises(ExecutorUnavailable, match=r"127\.0\.0\.9:1 .*: Connection refused$") as refused:
            await there.submit(unit("double", 1))
    assert "ray start" in (refused.value.hint or "")


NODES = """
import json, sys
from flujo.services.executors.process_worker import read_frame, write_frame

def tell(**event):
    write_frame(sys.stdout.buffer, json.dumps(event).encode())

read_frame(sys.stdin.buffer)
tell(nodes={"a": [1, 1, 0], "b": [1, 0, 0]})
batch = json.loads(read_frame(sys.stdin.buffer))
tell(nodes={"b": [1, 0, 0]})
cancel = json.loads(read_frame(sys.stdin.buffer))
tell(**({"unavailable": "is a test"} if cancel == {"cancel": batch["batch"]} else {}))
read_frame(sys.stdin.buffer)
"""
"""Speaks as the process with the library: two nodes, of which the one with a GPU is gone as soon as there is a batch."""


async def test_a_unit_that_waits_for_a_node_which_is_gone_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(name: str) -> subprocess.Popen[bytes]:
        del name
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", NODES], stdin=pipe, stdout=pipe)

    monkeypatch.setattr("flujo.services.executors.ray_connection._started", started)
    async with project_of(tmp_path, 'kind = "ray"') as workspace:
        there = workspace.executors.named("there")
        assert there is not None
        async with asyncio.timeout(60):
            with pytest.raises(WorkerLost, match="no node of executor 'there' has 1 cpu, 1 gpu"):
                await there.submit(unit("double", 1, needs=Needs(gpu=1)))


@in_soak
async def test_the_head_is_gone(tmp_path: Path) -> None:
    """So is first the node through which this host is connected, which another one of this host replaces."""
    own = RayCluster()
    try:
        async with project_of(tmp_path, f'kind = "ray"\naddress = "{own.address}"') as workspace:
            there = workspace.executors.named("there")
            assert there is not None
            for process in (own.node, own.head):
                await _answers(there)
                under_way = asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / f"{process}"))))
                await appears(tmp_path / f"{process}")
                os.kill(process, signal.SIGKILL)
                with pytest.raises(WorkerLost, match="is gone"):
                    await under_way
            with pytest.raises(ExecutorUnavailable, match=own.address):
                await there.submit(unit("double", 1))
    finally:
        own.close()


@in_soak
async def test_a_head_that_is_silent(tmp_path: Path) -> None:
    """It is frozen, so it accepts connections, and answers nothing: so does a network that is cut behind a proxy."""
    own = RayCluster()
    try:
        async with project_of(tmp_path, f'kind = "ray"\naddress = "{own.address}"') as workspace:
            there = workspace.executors.named("there")
            assert there is not None
            await _answers(there)
            under_way = asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / "pid"))))
            await appears(tmp_path / "pid")
            os.kill(own.head, signal.SIGSTOP)
            async with asyncio.timeout(60):
                with pytest.raises(WorkerLost, match=f"{own.address}.* has not answered for 30 s"):
                    await under_way
            async with asyncio.timeout(60):
                with pytest.raises(ExecutorUnavailable, match=f"{own.address}.* did not answer"):
                    await there.submit(unit("double", 1))
    finally:
        os.kill(own.head, signal.SIGCONT)
        own.close()


async def _answers(executor: Executor) -> None:
    """Wait until a unit has an answer; the loss of a node may be known some seconds later."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(WorkerLost):
                await executor.submit(unit("double", 1))
                return
            await asyncio.sleep(0.2)


HELD = """
import os, time
from pathlib import Path


def first(data: str) -> str:
    with Path(data, "calls").open("a") as file:
        file.write("first\\n")
    return data


def second(data: str) -> str:
    with Path(data, "calls").open("a") as file:
        file.write("second\\n")
    if not Path(data, "go").exists():
        Path(data, "part").write_text(str(os.getpid()))
        Path(data, "part").rename(Path(data, "pid"))
        time.sleep(600)
    return "done"
"""


@in_soak
def test_a_run_continues_after_the_end_of_its_process(cluster: RayCluster, tmp_path: Path) -> None:
    """Its units end with the process, by kill -9 and by Ctrl-C; `flujo resume` submits them again."""
    (tmp_path / "held.py").write_text(HELD, "utf-8")
    (tmp_path / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["held"]\n'
        f'[executors.there]\nkind = "ray"\naddress = "{cluster.address}"\n',
        "utf-8",
    )
    (tmp_path / "held.yaml").write_text(
        'version: "1"\nname: held\nsteps:\n'
        "  - {name: first, call: held:first, config: {executor: there}}\n"
        "  - {name: second, call: held:second, config: {executor: there}}\n",
        "utf-8",
    )
    begun = tmp_path / "pid"
    for command, number, code in (
        (["run", "held.yaml", "--run-id", "r1", "--input", str(tmp_path)], signal.SIGKILL, -signal.SIGKILL),
        (["resume", "r1"], signal.SIGINT, 130),
    ):
        with _flujo(tmp_path, *command) as process:
            worker = asyncio.run(appears(begun))
            begun.unlink()
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in errors
        asyncio.run(until(partial(_has_ended, worker)))
    (tmp_path / "go").touch()
    with _flujo(tmp_path, "resume", "r1") as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (0, "done"), errors
    assert (tmp_path / "calls").read_text("utf-8").split() == ["first", "second", "second", "second"]


def _has_ended(process: int) -> bool:
    return not is_running(process)


def _flujo(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flujo", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
