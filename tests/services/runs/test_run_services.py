"""A run of a blueprint is the same run, whether `flujo run` or a program started it."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import warm
from flujo import Flujo, Pipeline, Step, TaskClient, UsageLimits, read_blueprint
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.domain.run import Move, NewRun, RunStatus, Write
from flujo.exceptions import LockMismatch, RunConflict
from flujo.services.checks import locking
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request, pinned_by_name
from flujo.services.workspace import Workspace, blueprint_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.run import RunRecord

ORDER = """\
version: "1"
name: order
context: "skills.desk:Order"
input_schema: {type: string}
steps:
  - {name: price, call: "skills.desk:price", with: {text: "{{ input }}"}, save: {total: output}}
  - {kind: hitl, name: approve, message: "Pay {{ context.total }}?"}
  - {name: pay, call: "skills.desk:pay", with: {said: "{{ steps.approve.output }}"}}
output: "version one: {{ steps.pay.output }}"
"""

SECOND = ORDER.replace("version one", "version two")

DESK = """\
import os
from contextlib import asynccontextmanager
from pathlib import Path

from flujo import AppResources, PipelineContext

HERE = Path(__file__).parent.parent


class Order(PipelineContext):
    total: int = 0


class Bank(AppResources):
    name: str


@asynccontextmanager
async def make_resources():
    yield Bank(name="the project's bank")


def price(text: str) -> int:
    if (HERE / "kill").exists():
        (HERE / "kill").unlink()
        os._exit(9)
    if not (HERE / "open").exists():
        raise ValueError("the shop is closed")
    return len(text)


def pay(said: str, resources: Bank) -> str:
    return f"{said} to {resources.name}"
"""

SERVICE = """\
import asyncio, json, logging, sys
from flujo import Flujo, read_blueprint

logging.basicConfig()

async def main(verb, run, *more):
    async with Flujo(read_blueprint("order"), recovery=False) as runner:
        if verb == "start":
            result = await runner.run_result_async("lamp", run_id=run)
        elif verb == "answer":
            result = await runner.resume_async(run, *more)
        else:
            result = await runner.resume_async(run, retry_failed=True)
    print(json.dumps([str(result.status), result.output]))

asyncio.run(main(*sys.argv[1:]))
"""

ADA = Actor("ada", Via.CLI)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    for folder in ("blueprints", "skills"):
        (root / folder).mkdir(parents=True)
    (root / "skills/__init__.py").touch()
    (root / "skills/desk.py").write_text(DESK, "utf-8")
    (root / "open").touch()
    (root / "service.py").write_text(SERVICE, "utf-8")
    (root / "blueprints/order.yaml").write_text(ORDER, "utf-8")
    settings = (
        '[project]\nresources = "skills.desk:make_resources"\n[blueprints]\nallow_callables = ["skills.*"]\n'
    )
    (root / "flujo.toml").write_text(settings, "utf-8")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def database(project: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    return project


def called(*words: str, status: int = 0) -> tuple[str, str]:
    done = warm.run([sys.executable, *words], capture_output=True)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def flujo(*words: str, status: int = 0) -> tuple[str, str]:
    """Call the command line in a process of its own."""
    return called("-m", "flujo", *words, status=status)


def service(*words: str) -> Any:
    """Run the program in a process of its own, and return the run's status and output."""
    return json.loads(called("service.py", *words)[0])


# Two processes, on both databases ------------------------------------------------------------------------


def test_the_command_line_retries_and_resumes_the_run_of_a_service(database: Path) -> None:
    (database / "open").unlink()
    assert service("start", "run") == ["failed", None]
    (database / "open").touch()
    (database / "blueprints/order.yaml").write_text(SECOND, "utf-8")
    flujo("tasks", "retry", "run", status=5)
    out, said = flujo("tasks", "resume", "run", "--input", "yes")
    assert out == "version one: yes to the project's bank\n"
    assert "on disk `blueprints/order.yaml` differs" in said


def test_a_service_resumes_the_run_of_the_command_line_with_the_files_it_pinned(database: Path) -> None:
    flujo("run", "order", "--input", "lamp", "--run-id", "run", status=5)
    (database / "blueprints/order.yaml").write_text(SECOND, "utf-8")
    out, said = called("service.py", "answer", "run", "yes")
    assert json.loads(out) == ["completed", "version one: yes to the project's bank"]
    assert "on disk `blueprints/order.yaml` differs" in said


def test_a_worker_takes_over_the_run_of_a_killed_service(database: Path) -> None:
    (database / "kill").touch()
    called("service.py", "start", "run", status=9)
    assert "executed 1 run" in flujo("worker", "--once")[1]


# One process ---------------------------------------------------------------------------------------------


async def paused(runner: Any, run: str = "run") -> None:
    assert (await runner.run_result_async("lamp", run_id=run)).status is RunStatus.PAUSED


async def command(verb: Any, *words: Any, **options: Any) -> Any:
    """Do what a command does in the project of this folder."""
    async with Workspace(find_project(Path.cwd())) as ws:
        return await verb(ws, *words, actor=ADA, **options)


async def recorded(run: str = "run") -> RunRecord:
    async with Workspace(find_project(Path.cwd())) as ws:
        return await (await ws.store()).run(RunId(run))


async def recorded_when(is_there: Callable[[RunRecord], bool]) -> RunRecord:
    for _ in range(400):
        if is_there(record := await recorded()):
            return record
        await asyncio.sleep(0.05)
    pytest.fail("it takes too long")


@pytest.mark.guarantee("G2")
async def test_a_service_and_the_command_line_pin_the_same_closure(project: Path) -> None:
    async with Flujo(read_blueprint("order")) as runner:
        await paused(runner)
    async with Workspace(find_project(project)) as ws:
        blueprint = ws.load("blueprints/order.yaml")
        await blueprint_runs.start(ws, blueprint, Request("lamp", None, "other"))
    assert (await recorded()).closure == (await recorded("other")).closure == blueprint.closure.digest


@pytest.mark.parametrize("name", ["order", "blueprints/order.yaml"])
async def test_a_blueprint_belongs_to_the_project_it_was_read_in(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pipeline = read_blueprint(name)
    monkeypatch.chdir(tmp_path)
    async with Flujo(pipeline) as runner:
        await paused(runner)
    monkeypatch.chdir(project)
    result = await command(blueprint_runs.answer, "run", None, "yes")
    assert result.output == "version one: yes to the project's bank"


async def test_a_pipeline_changed_in_python_is_written_in_python(project: Path) -> None:
    read = read_blueprint("order")
    nothing = Step("more", lambda: None)
    for changed in (replace(read, description="mine"), read >> nothing, Pipeline(read.steps, read.name)):
        assert blueprint_of(changed) is None
    assert blueprint_of(read) == blueprint_of(read_blueprint("blueprints/order.yaml"))
    async with Flujo(replace(read, description="mine")) as runner:
        await paused(runner)
    assert (await recorded()).closure == pinned_by_name("order")[0]
    async with Flujo(read) as runner:
        assert (await runner.resume_async("run", "yes", by="ada")).success


@pytest.mark.guarantee("G2")
async def test_a_pipeline_in_python_does_not_execute_the_run_of_a_blueprint(project: Path) -> None:
    async with Flujo(read_blueprint("order")) as runner:
        await paused(runner)
    async with Flujo(replace(read_blueprint("order"), description="mine")) as runner:
        with pytest.raises(RunConflict, match="written in Python"):
            await runner.resume_async("run", "yes")
        async with TaskClient(runners=[runner]) as client:
            assert (await client.get_task("run")).pauses[0].is_open
            result = await client.resume_task("run", "yes")
    assert result.output == "version one: yes to the project's bank"


@pytest.mark.guarantee("G2")
async def test_a_run_resumes_with_changes_that_were_accepted(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Flujo(read_blueprint("order")) as runner:
        await paused(runner)
        (project / "blueprints/order.yaml").write_text(SECOND, "utf-8")
        assert (await command(blueprint_runs.resume, "run", accept_changes=True)).status is RunStatus.PAUSED
        caplog.clear()
        result = await runner.resume_async("run", "yes")
    assert result.output == "version two: yes to the project's bank"
    assert "differ" not in caplog.text


@pytest.mark.guarantee("G12")
async def test_a_new_version_of_a_service_recovers_the_runs_of_the_old_one(project: Path) -> None:
    async with Flujo(read_blueprint("order"), recovery=False) as old:
        await paused(old)
    async with TaskClient() as client:
        await client.resume_task("run", "yes", detach=True)
    (project / "blueprints/order.yaml").write_text(SECOND, "utf-8")
    async with Flujo(read_blueprint("order"), recovery=RecoveryPolicy(every_s=0.02)) as new:
        await paused(new, "other")
        record = await recorded_when(lambda record: record.status is RunStatus.COMPLETED)
    assert record.output == b'"version one: yes to the project\'s bank"'


async def test_a_runner_in_python_leaves_the_runs_of_a_blueprint_to_others(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Flujo(read_blueprint("order"), recovery=False) as runner:
        await paused(runner)
    async with TaskClient() as client:
        await client.resume_task("run", "yes", detach=True)
    mine = replace(read_blueprint("order"), description="mine")
    async with Flujo(mine, recovery=RecoveryPolicy(every_s=0.02)) as runner:
        await paused(runner, "other")
        record = await recorded_when(lambda _: "run run is left to other processes" in caplog.text)
        await asyncio.sleep(0.2)
    assert record == await recorded()
    assert caplog.text.count("left to other processes") == 1


async def test_a_service_under_a_lock_refuses_the_run_that_no_lock_held(project: Path) -> None:
    async with Flujo(read_blueprint("order")) as runner:
        await paused(runner)
    with (project / "flujo.toml").open("a") as file:
        file.write("[lockfile]\nenabled = true\n")
    (project / "blueprints/order.yaml").write_text(SECOND, "utf-8")
    locking.write(find_project(project))
    async with Flujo(read_blueprint("order")) as runner:
        with pytest.raises(LockMismatch, match="started with files that do not match the lock"):
            await runner.resume_async("run", "yes")
        await paused(runner, "other")
    assert (await recorded("other")).lock_digest is not None


async def test_the_budget_of_the_project_limits_the_runs_of_a_service(project: Path) -> None:
    with (project / "flujo.toml").open("a") as file:
        file.write("[budgets]\nwall_time_s_limit = 0.000001\n")
    async with Flujo(read_blueprint("order"), usage_limits=UsageLimits(requests_limit=5)) as runner:
        result = await runner.run_result_async("lamp")
    assert result.error is not None
    assert result.error.code == "FLJ421"


async def test_a_run_of_an_older_flujo_that_pinned_no_files_is_resumed(project: Path) -> None:
    closure, blobs = pinned_by_name("order")
    async with Flujo(read_blueprint("order"), recovery=False) as runner:
        await paused(runner, "new")
        async with Workspace(find_project(project)) as ws:
            store = await ws.store()
            new = NewRun(
                run_id=RunId("old"),
                pipeline="order",
                closure=closure,
                input=b'"lamp"',
                context=b'{"total":0}',
            )
            claimed = await store.accept(new, blobs)
            await store.write(
                Write(run_id=new.run_id, fence=claimed.fence, move=Move(status=RunStatus.INTERRUPTED))
            )
        assert (await runner.resume_async("old")).status is RunStatus.PAUSED
        assert (await runner.run_result_async("lamp", run_id="old")).status is RunStatus.PAUSED
        assert (await runner.resume_async("old", "yes")).success
