"""The network between a run and its cluster is cut, for a short or a long time, in one direction or both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from flujo.cli.app import app
from flujo.services.admin.doctor import examine
from flujo.services.project.project import find_project
from services.executors.cable import Cable
from services.executors.dask_cluster import DaskCluster, wait
from services.executors.networks import HERE, THERE, Networks, address, why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typer.testing import Result

pytest.importorskip("distributed", reason="needs `pip install 'flujo[dask]'`")
pytestmark = [pytest.mark.cluster]

CALLS = """
import time
from pathlib import Path

HERE = Path(__file__).parent
HELD = ("3 read", "4 same", "5 once")


def note(n: int, kind: str, idempotency_key: str) -> int:
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(f"{n} {kind} {idempotency_key}\\n")
    while f"{n} {kind}" in HELD and not (HERE / "go").exists():
        time.sleep(0.02)
    return n


def look(n: int) -> int:
    return note(n, "read", "-")
"""

MAP = """version: "1"
name: noted
input_schema: {type: array, items: {type: integer}}
steps:
  - kind: map
    name: all
    over: "{{ input }}"
    max_concurrency: 100
    config: {executor: there}
    steps:
      - name: read
        call: MODULE:look
        with: {n: "{{ item }}"}
        effect: read
        config: {max_retries: RETRIES}
      - name: same
        call: MODULE:note
        with: {n: "{{ item }}", kind: same}
        effect: idempotent
        enforce_idempotency: true
        in_doubt: retry_same_key
        config: {max_retries: RETRIES}
      - name: once
        call: MODULE:note
        with: {n: "{{ item }}", kind: once}
        effect: unsafe
        enforce_idempotency: true
"""

HELD = {"3 read", "4 same", "5 once"}
"""The calls that have begun when the network is cut, one of each kind."""


class Project:
    """A map whose items 3, 4 and 5 are held in a call of each kind, on the executor with a table."""

    def __init__(self, root: Path, table: str, retries: int = 0) -> None:
        self._root = root
        self.module = root.name  # a worker keeps what it has imported
        (root / f"{self.module}.py").write_text(CALLS, "utf-8")
        (root / "blueprints").mkdir()
        (root / "blueprints" / "noted.yaml").write_text(
            MAP.replace("RETRIES", str(retries)).replace("MODULE", self.module), "utf-8"
        )
        (root / "flujo.toml").write_text(
            f'[blueprints]\nallow_callables = ["{self.module}"]\n[executors.there]\n{table}\n',
            "utf-8",
        )

    def flujo(self, *words: str) -> Result:
        """Call the command line in this process."""
        return CliRunner().invoke(app, ["-C", str(self._root), *words], prog_name="flujo")

    def run(self, amid: Callable[[], None], items: int = 7) -> Result:
        """Run the map, and call `amid` in another thread when a call of each kind is held."""

        ended = threading.Event()

        def held() -> None:
            wait(lambda: True if ended.is_set() or set(self.calls()) >= HELD else None)
            if not ended.is_set():
                amid()

        thread = threading.Thread(target=held)
        thread.start()
        given = json.dumps(list(range(items)))
        result = self.flujo("run", "noted", "--input", given, "--run-id", "r1", "--json")
        ended.set()
        thread.join()
        return result

    def process(self, enter: list[str], *words: str) -> subprocess.Popen[str]:
        """Start the command line in a process in another network; it prints JSON."""
        return subprocess.Popen(
            [*enter, sys.executable, "-m", "flujo", *words, "--json"],
            cwd=self._root,
            env={name: value for name, value in os.environ.items() if name != "FLUJO_STATE_URI"} | SHORT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let the held calls end."""
        (self._root / "go").touch()

    def executor_of_doctor(self) -> tuple[str, str]:
        """Return what `flujo doctor` says about the executor: its state, and why."""
        (found,) = [each for each in examine(find_project(self._root)) if each.name == "executors"]
        return found.state, found.detail

    def calls(self) -> Counter[str]:
        """Return how often each call was made."""
        return Counter(line.rpartition(" ")[0] for line in self._lines())

    def keys(self) -> Counter[str]:
        """Return with how many keys each call was made."""
        return Counter(call.rpartition(" ")[0] for call in set(self._lines()))

    def _lines(self) -> list[str]:
        file = self._root / "calls.txt"
        return file.read_text("utf-8").splitlines() if file.exists() else []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler, and a worker that executes three calls at once."""
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.add_worker("--nthreads", "3")
        cluster.wait_for_workers(1)
        yield cluster
    finally:
        cluster.close()


def cable_to(address: str) -> Cable:
    """Return a cable between this process and a scheduler."""
    host, port = address.removeprefix("tcp://").split(":")
    return Cable(host, int(port))


@contextmanager
def project_on(address: str, root: Path, retries: int = 0) -> Iterator[Project]:
    """A project whose modules this process can import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLUJO_STATE_URI", raising=False)
        patch.setattr(sys, "path", [str(root), *sys.path])
        project = Project(root, f'kind = "dask"\naddress = "{address}"', retries)
        yield project
        sys.modules.pop(project.module, None)


@pytest.fixture
def cable(cluster: DaskCluster) -> Iterator[Cable]:
    """The cable between this process and the scheduler."""
    with cable_to(cluster.address) as cable:
        yield cable


@pytest.fixture
def project(cable: Cable, tmp_path: Path) -> Iterator[Project]:
    """A project that reaches the scheduler by the cable."""
    with project_on(f"tcp://127.0.0.1:{cable.port}", tmp_path) as project:
        yield project


def wait_only(patch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Ask the scheduler often, and do not wait for its answers as long as usual."""
    for name, value in {"ASKS": 0.1, **seconds}.items():
        patch.setattr(f"flujo.services.executors.dask_connection._{name}_S", value)


IMPATIENT = {"ANSWERS": 0.3, "OPENS": 1.0, "CONNECT": 0.5}
"""For a scheduler that does not answer."""


@pytest.mark.guarantee("G3")
def test_a_short_cut_costs_nothing(project: Project, cable: Cable) -> None:
    """The calls end while nothing can be heard of them."""

    def amid() -> None:
        cable.cut()
        project.go()
        time.sleep(0.5)
        cable.repair()

    result = project.run(amid)
    assert result.exit_code == 0, result.output
    assert set(project.calls().values()) == {1}


@pytest.mark.guarantee("G3")
def test_a_long_cut_ends_the_run_and_resume_continues_it(project: Project, cable: Cable) -> None:
    with pytest.MonkeyPatch.context() as patch:
        wait_only(patch)

        def amid() -> None:
            wait_only(patch, **IMPATIENT)
            cable.cut()

        ended = project.run(amid)
        assert ended.exit_code == 1, ended.output
        error = json.loads(ended.stdout)["error"]
        assert (error["code"], error["retryable"]) == ("FLJ475", True)
        assert f"{cable.port} does not answer" in error["message"]
        assert "flujo resume r1 --retry-failed" in error["hint"]
        in_doubt = {each["path"] for each in json.loads(ended.stdout)["in_doubt"]}
        assert "all[5]/once" in in_doubt
        still_cut = project.flujo("resume", "r1", "--retry-failed", "--json")
        assert json.loads(still_cut.stdout)["error"]["code"] == "FLJ472"
        assert json.loads(still_cut.stdout)["error"]["message"].endswith("it does not answer")
        state, why = project.executor_of_doctor()
        assert (state, why.partition("can be used at ")[2]) == (
            "fail",
            f"tcp://127.0.0.1:{cable.port} (executor 'there'): it does not answer",
        )
    cable.repair()
    project.go()
    resumed = project.flujo("resume", "r1", "--retry-failed", "--json")
    assert resumed.exit_code == 5, resumed.output
    assert {each["path"] for each in json.loads(resumed.stdout)["in_doubt"]} == in_doubt
    repeated = {call: count for call, count in project.calls().items() if count > 1}
    assert repeated == {"3 read": 2, "4 same": 2}
    assert set(project.keys().values()) == {1}
    assert project.executor_of_doctor()[0] == "ok"


@pytest.mark.parametrize("direction", [0, 1])
def test_doctor_reports_a_network_that_passes_one_direction_only(
    project: Project, cable: Cable, monkeypatch: pytest.MonkeyPatch, direction: int
) -> None:
    wait_only(monkeypatch, **IMPATIENT)
    cable.cut(direction)
    state, why = project.executor_of_doctor()
    assert (state, why.endswith("it does not answer")) == ("fail", True), why


@pytest.mark.guarantee("G3")
def test_a_worker_that_the_scheduler_has_given_up(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls are repeated by another worker under the same keys, which was frozen before.

    The worker itself executes them to the end, cannot say so, and ends when it can be reached again.
    """
    (other,) = cluster.workers
    wait_only(monkeypatch)
    with project_on(cluster.address, tmp_path, retries=1) as project, cable_to(cluster.address) as cable:
        (tmp_path / "cable.json").write_text(
            json.dumps({"address": f"tcp://127.0.0.1:{cable.port}"}), "utf-8"
        )
        lost = cluster.add_worker("--nthreads", "3", "--scheduler-file", str(tmp_path / "cable.json"))
        cluster.wait_for_workers(2)
        other.send_signal(signal.SIGSTOP)

        def amid() -> None:
            begun = project.calls().total()
            other.send_signal(signal.SIGCONT)
            wait(lambda: True if project.calls().total() > begun else None)
            cable.cut()
            cable.give_up_there()
            wait(lambda: True if project.calls()["4 same"] == 2 and project.calls()["3 read"] == 2 else None)
            project.go()

        ended = project.run(amid, items=12)
        assert ended.exit_code == 5, ended.output
        assert lost.poll() is None
        cable.repair()
        lost.wait(timeout=60)
    in_doubt = {each["path"] for each in json.loads(ended.stdout)["in_doubt"]}
    assert "all[5]/once" in in_doubt
    assert {call: count for call, count in project.calls().items() if count > 1} == {"3 read": 2, "4 same": 2}
    assert set(project.keys().values()) == {1}


in_soak = pytest.mark.skipif(
    os.environ.get("FLUJO_CLUSTERS") != "all", reason="in `make soak`: it takes long"
)

SHORT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s"}
"""After how long TCP gives up a connection of Dask, which is 30 s otherwise."""


@pytest.fixture
def networks() -> Iterator[Networks]:
    """Two networks, which are cut in silence."""
    if (reason := why_not()) is not None:
        pytest.skip(f"needs namespaces of the network: {reason}")
    with Networks() as networks:
        yield networks


@in_soak
@pytest.mark.timeout(600)
class TestDaskInNamespaces:
    """The run, or a worker, is in another network than the scheduler, and Dask has its own limits."""

    @pytest.fixture
    def far(self, networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
        """A scheduler and a worker in the other network."""
        enter = networks.enter(THERE)
        folder = tmp_path_factory.mktemp("far")
        cluster = DaskCluster(folder, host=address(THERE), enter=enter, settings=SHORT)
        try:
            cluster.add_worker("--nthreads", "3", enter=enter)
            yield cluster
        finally:
            cluster.close()

    @pytest.mark.parametrize("towards", [(HERE, THERE), (HERE,)])
    def test_between_a_run_and_its_scheduler(
        self, networks: Networks, far: DaskCluster, tmp_path: Path, towards: tuple[int, ...]
    ) -> None:
        """Six seconds cost nothing; then it is cut until TCP gives up."""
        project = Project(tmp_path, f'kind = "dask"\naddress = "{far.address}"')
        enter = networks.enter(HERE)
        until_doctor_is_content(project, enter)
        with project.process(enter, "run", "noted", "--input", str([*range(7)]), "--run-id", "r1") as run:
            wait(lambda: True if set(project.calls()) >= HELD else None)
            networks.cut(*towards)
            time.sleep(6)
            networks.repair()
            time.sleep(6)
            assert run.poll() is None
            networks.cut(*towards)
            output, errors = run.communicate(timeout=90)
        assert (run.returncode, json.loads(output)["error"]["code"]) == (1, "FLJ475"), errors
        assert far.address in json.loads(output)["error"]["message"]
        began = time.monotonic()
        with project.process(enter, "doctor") as doctor:
            checked = json.loads(doctor.communicate(timeout=60)[0])
        assert [each["state"] for each in checked["checks"] if each["name"] == "executors"] == ["fail"]
        assert time.monotonic() - began < 40
        networks.repair()
        project.go()
        with project.process(enter, "resume", "r1", "--retry-failed") as resumed:
            output, errors = resumed.communicate(timeout=90)
        assert resumed.returncode == 5, errors
        assert "all[5]/once" in {each["path"] for each in json.loads(output)["in_doubt"]}
        repeated = {call: count for call, count in project.calls().items() if count > 1}
        assert repeated == {"3 read": 2, "4 same": 2}
        assert set(project.keys().values()) == {1}

    def test_between_a_worker_and_the_scheduler(
        self, networks: Networks, far: DaskCluster, tmp_path: Path
    ) -> None:
        """The run is in the network of the scheduler. The worker is given up by TCP, and ends by itself."""
        project = Project(tmp_path, f'kind = "dask"\naddress = "{far.address}"', retries=1)
        enter = networks.enter(THERE)
        (other,) = far.workers
        until_doctor_is_content(project, enter)
        other.send_signal(signal.SIGSTOP)
        lost = far.add_worker("--nthreads", "3", "--host", address(HERE), enter=networks.enter(HERE))
        until_doctor_is_content(project, enter)
        with project.process(enter, "run", "noted", "--input", str([*range(12)]), "--run-id", "r1") as run:
            wait(lambda: True if set(project.calls()) >= HELD else None)
            begun = project.calls().total()
            other.send_signal(signal.SIGCONT)
            wait(lambda: True if project.calls().total() > begun else None)
            networks.cut()
            wait(lambda: True if project.calls()["4 same"] == 2 and project.calls()["3 read"] == 2 else None)
            project.go()
            output, errors = run.communicate(timeout=90)
        assert run.returncode == 5, errors
        assert "all[5]/once" in {each["path"] for each in json.loads(output)["in_doubt"]}
        repeated = {call: count for call, count in project.calls().items() if count > 1}
        assert repeated == {"3 read": 2, "4 same": 2}
        assert set(project.keys().values()) == {1}
        lost.wait(timeout=60)


def until_doctor_is_content(project: Project, enter: list[str]) -> None:
    """Wait until the cluster has a worker that can be used."""

    def content() -> bool | None:
        with project.process(enter, "doctor") as doctor:
            checked = json.loads(doctor.communicate(timeout=60)[0])
        states = [each["state"] for each in checked["checks"] if each["name"] == "executors"]
        return True if states == ["ok"] else None

    wait(content)
