"""Callables on the workers of a Dask cluster of this host."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, MapStep, Pipeline, Step, StepConfig
from flujo.domain.current_step import CurrentStep
from flujo.domain.executor import Needs, Unit
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.exceptions import CodeDiffers, ExecutorUnavailable, ResourcesUnavailable, WorkerLost
from flujo.services.admin.doctor import examine
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from services.executors.dask_cluster import Certificates, DaskCluster, connected, forget, wait
from services.executors.suite import (
    CODE,
    PACKAGE,
    SETTINGS,
    ExecutorSuite,
    appears,
    project_of,
    unit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flujo.domain.executor import Executor

distributed = pytest.importorskip("distributed", reason="needs `pip install 'flujo[dask]'`")
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("quick_refusal")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler; its workers are started by `three_workers`."""
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
async def three_workers(cluster: DaskCluster) -> None:
    """Three workers of one thread and one GPU, which have not loaded the code of the suite."""
    cluster.remove_dead()
    for _ in range(3 - len(cluster.workers)):
        cluster.add_worker("--resources", "GPU=1")
    async with connected(cluster.address) as client:
        await client.wait_for_workers(3)
        await client.run(forget, PACKAGE)


@pytest.fixture
def quick_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that is not there is not waited for as long as usual."""
    monkeypatch.setattr("flujo.services.executors.dask_connection._CONNECT_S", 0.5)


@pytest.mark.usefixtures("three_workers")
class TestDask(ExecutorSuite):
    """The promises, and those of Dask alone."""

    @pytest.fixture(autouse=True)
    def reached(self, cluster: DaskCluster) -> None:
        """Name the cluster in flujo.toml."""
        self.table = f'kind = "dask"\naddress = "{cluster.address}"\nbatch_size = 5'

    async def test_a_resource_is_counted_and_one_that_no_worker_has_is_refused(self, there: Executor) -> None:
        assert await there.submit(unit("double", 1, needs=Needs(gpu=1))) == 2
        with pytest.raises(ResourcesUnavailable, match=r"has 1 cpu, 9 gpu; the workers have 1 cpu"):
            await there.submit(unit("double", 1, needs=Needs(gpu=9)))

    async def test_a_frozen_worker_gets_nothing_after_a_time_limit(
        self, there: Executor, tmp_path: Path
    ) -> None:
        under_way = asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / "pid"))))
        worker = await appears(tmp_path / "pid")
        os.kill(worker, signal.SIGSTOP)
        try:
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            pids = [(await there.submit(unit("made_by")))[1] for _ in range(8)]
        finally:
            os.kill(worker, signal.SIGCONT)
        assert worker not in pids

    async def test_what_connects_fails_when_it_is_closed(self, there: Executor) -> None:
        connecting = [asyncio.ensure_future(there.submit(unit("double", 1))) for _ in range(2)]
        await asyncio.sleep(0)
        await there.aclose()
        errors = await asyncio.gather(*connecting, return_exceptions=True)
        assert [type(error) for error in errors] == [ExecutorUnavailable] * 2

    async def test_a_closed_executor_connects_again(self, there: Executor) -> None:
        assert await there.submit(unit("double", 1)) == 2
        await there.aclose()
        await there.aclose()
        assert await there.submit(unit("double", 1)) == 2

    def test_doctor_says_what_the_workers_have(self, workspace: Workspace) -> None:
        (found,) = [each for each in examine(workspace.project) if each.name == "executors"]
        assert found.state == "ok"
        assert found.detail.startswith("there: dask, 3 workers with 3 cpu, ")

    async def test_a_map_has_its_results_in_order_and_a_window(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More than twice the cores of the cluster are never in flight, although every item may be."""
        in_flight: list[Any] = []
        most = [0]
        submit = distributed.Client.submit

        def counted(client: Any, *args: Any, **options: Any) -> Any:
            in_flight[:] = [each for each in in_flight if not each.done() and each.status != "cancelled"]
            in_flight.append(submit(client, *args, **options))
            most[0] = max(most[0], len(in_flight))
            return in_flight[-1]

        monkeypatch.setattr(distributed.Client, "submit", counted)
        outputs = await _mapped(workspace, 300)
        assert outputs == [2 * number for number in range(300)]
        assert most[0] <= 6

    async def test_a_worker_that_dies_amid_a_map_costs_one_attempt(self, workspace: Workspace) -> None:
        outputs = await _mapped(workspace, 40, "kills_once", max_retries=1)
        assert outputs == [2 * number for number in range(40)]


async def _mapped(workspace: Workspace, count: int, name: str = "double", **config: Any) -> list[Any]:
    """Return the outputs of a map on the cluster."""
    call = getattr(importlib.import_module(PACKAGE), name)
    step = Step("one", call, config=StepConfig(executor="there", **config))
    pipeline = Pipeline([MapStep("all", [step], max_concurrency=100)], name="mapped")
    async with Flujo(pipeline, binding=workspace.bind(pipeline), persist_state=False) as runner:
        return list((await runner.run_result_async(list(range(count)))).output)


CALLS = """
import time
from pathlib import Path

HERE = Path(__file__).parent


def note(n: int, idempotency_key: str) -> int:
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(f"{n} {idempotency_key}\\n")
    while n == 3 and not (HERE / "go").exists():
        time.sleep(0.02)
    return n
"""

MAP = """version: "1"
name: noted
input_schema: {type: array, items: {type: integer}}
steps:
  - kind: map
    name: all
    over: "{{ input }}"
    max_concurrency: 1
    config: {executor: there}
    steps:
      - name: one
        call: noted_here:note
        effect: idempotent
        enforce_idempotency: true
        in_doubt: retry_same_key
"""


@pytest.mark.usefixtures("three_workers")
def test_a_run_whose_process_is_killed_submits_only_what_has_no_entry(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    (tmp_path / "noted_here.py").write_text(CALLS, "utf-8")
    (tmp_path / "noted.yaml").write_text(MAP, "utf-8")
    (tmp_path / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["noted_here"]\n'
        f'[executors.there]\nkind = "dask"\naddress = "{cluster.address}"\n',
        "utf-8",
    )
    calls = tmp_path / "calls.txt"
    environment = {name: value for name, value in os.environ.items() if name != "FLUJO_STATE_URI"}
    flujo = partial(subprocess.Popen, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True)
    command = [sys.executable, "-m", "flujo"]
    run = flujo([*command, "run", "noted.yaml", "--input", "[0, 1, 2, 3, 4]", "--run-id", "r1"])
    try:
        wait(lambda: (calls.exists() and len(calls.read_text("utf-8").splitlines()) == 4) or None)
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate()
    (tmp_path / "go").touch()
    resumed = flujo([*command, "resume", "r1"])
    output, errors = resumed.communicate()
    assert (resumed.returncode, output.strip()) == (0, "[0, 1, 2, 3, 4]"), errors
    assert "Traceback" not in errors
    keys = [line.split()[1] for line in calls.read_text("utf-8").splitlines()]
    assert sorted(Counter(keys).values()) == [1, 1, 1, 1, 2]


@pytest.mark.usefixtures("three_workers")
async def test_code_is_shipped_and_that_of_a_later_run_as_well(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "flujo.toml").write_text(
        f'[blueprints]\nallow_callables = ["shipped_here.*"]\n[state_providers]\ndocs = "file:documents"\n'
        f'[executors.there]\nkind = "dask"\naddress = "{cluster.address}"\ncode = "ship"\n',
        "utf-8",
    )
    (tmp_path / "shipped_here").mkdir()
    for text in ("first", "second"):
        (tmp_path / "shipped_here" / "words.py").write_text(
            f"def word() -> str:\n    return '{text}'\n", "utf-8"
        )
        (tmp_path / "shipped_here" / "tools.py").write_text(
            "from flujo import ContextReference\n"
            "from shipped_here.words import word\n"
            "async def said(data: str) -> list:\n"
            "    return [__file__, word(), await ContextReference.of(data)]\n",
            "utf-8",
        )
        importlib.invalidate_caches()
        async with Workspace(find_project(tmp_path)) as workspace:
            executor = workspace.executors.named("there")
            assert executor is not None
            target = Unit(
                target="shipped_here.tools:said",
                data=b'"x"',
                step=CurrentStep(RunId("r1"), StepPath("step"), 1),
            )
            file, said, _ = await executor.submit(target)
        assert said == text
        assert "flujo-code-" in file
        forget("shipped_here")
    assert [path.name for path in (tmp_path / "documents").iterdir()], "stored where the project is"


async def test_what_a_cluster_lacks_and_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One cluster, with encryption: first without workers, then with one that cannot be used, then with one."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / f"{PACKAGE}.py").write_text(CODE, "utf-8")
    certificates = Certificates.made(tmp_path)
    other = DaskCluster(tmp_path, *certificates.options)
    try:
        (tmp_path / "flujo.toml").write_text(
            f'{SETTINGS}[executors.there]\nkind = "dask"\naddress = "{other.address}"\n{certificates.table}\n',
            "utf-8",
        )
        async with Workspace(find_project(tmp_path)) as workspace:
            executor = workspace.executors.named("there")
            assert executor is not None
            with pytest.raises(ExecutorUnavailable, match="has no workers"):
                await executor.submit(unit("double", 1))
            async with connected(other.address, certificates.security()) as client:
                other.add_worker(before="import sys; sys.modules['flujo'] = None")
                await client.wait_for_workers(1)
                with pytest.raises(CodeDiffers, match="cannot load Flujo"):
                    await _eventually(executor, CodeDiffers)
                other.add_worker()
                await client.wait_for_workers(2)
            await _eventually(executor)
            under_way = [
                asyncio.ensure_future(executor.submit(unit("hangs", str(tmp_path / f"pid{number}"))))
                for number in range(4)
            ]
            await appears(tmp_path / "pid0")
            other.scheduler.kill()
            errors = await asyncio.gather(*under_way, return_exceptions=True)
            assert [type(error) for error in errors] == [WorkerLost] * 2 + [ExecutorUnavailable] * 2
            assert "scheduler" in str(errors[0])
            with pytest.raises(ExecutorUnavailable, match="no Dask scheduler can be used at tls://") as gone:
                await executor.submit(unit("double", 1))
            assert "dask scheduler" in str(gone.value.hint)
    finally:
        other.close()
        sys.modules.pop(PACKAGE, None)
    assert capfd.readouterr() == ("", "")


async def test_an_address_where_nothing_listens_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dask has no time for one attempt, as at the end of its usual time.
    monkeypatch.setattr("flujo.services.executors.dask_connection._CONNECT_S", 0.001)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        async with project_of(tmp_path, f'kind = "dask"\naddress = "{address}"') as workspace:
            executor = workspace.executors.named("there")
            assert executor is not None
            says = f"no Dask scheduler can be used at {address} .*: Connection refused$"
            with pytest.raises(ExecutorUnavailable, match=says):
                await executor.submit(unit("double", 1))


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    files = 'tls_ca = "ca.pem"\ntls_cert = "c.pem"\ntls_key = "k.pem"'
    table = f'kind = "dask"\naddress = "tls://127.0.0.1:1"\n{files}'
    async with project_of(tmp_path, table) as workspace:
        executor = workspace.executors.named("there")
        assert executor is not None
        says = "`tls_ca` of executor 'there' cannot be read: .*/ca.pem: No such file or directory$"
        with pytest.raises(ExecutorUnavailable, match=says):
            await executor.submit(unit("double", 1))


async def _eventually(executor: Executor, other: type[Exception] | None = None) -> None:
    """Let a unit be executed, or fail with another error than that there are no workers."""
    async with asyncio.timeout(30):
        while True:
            try:
                assert await executor.submit(unit("double", 1)) == 2
                return
            except (ExecutorUnavailable, CodeDiffers) as error:
                if other is not None and isinstance(error, other):
                    raise
            await asyncio.sleep(0.02)
