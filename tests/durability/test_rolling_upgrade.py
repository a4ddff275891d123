"""Two versions of a project on one queue: workers of the old one beside workers of the new one, as in a rolling upgrade."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import warm
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """\
state_uri = "{uri}"
[blueprints]
allow_callables = ["skills.*"]
"""
ORDER = """\
version: "1"
name: order
steps:
  - {{name: first, call: "skills.shop:{first}"}}
  - {{name: send, call: skills.shop:send}}
output: "{{{{ steps.first.output }}}}, {{{{ steps.send.output }}}}"
"""
SHOP = """\
def {first}() -> str:
    return "{first}"


def send() -> str:
    return "sent by {version}"
"""
OLD_WAY, NEW_WAY = "check_stock", "reserve"
"""The first step of each version. Its function is gone in the new one, and not there in the old one."""


def version(folder: Path, name: str, first: str, uri: str) -> Path:
    """Write a version of the project, and return its folder."""
    for inner in ("blueprints", "skills"):
        (folder / name / inner).mkdir(parents=True)
    (folder / name / "flujo.toml").write_text(SETTINGS.format(uri=uri))
    (folder / name / "blueprints/order.yaml").write_text(ORDER.format(first=first))
    (folder / name / "skills/shop.py").write_text(SHOP.format(first=first, version=name))
    return folder / name


def flujo(project: Path, *words: str) -> warm.Popen:
    command, null = [sys.executable, "-m", "flujo", *words], subprocess.DEVNULL
    return warm.Popen(command, cwd=project, stdin=null, stdout=null, stderr=null)


async def outputs(project: Path, *names: str) -> dict[str, str]:
    """Return the outputs of runs, when all have completed."""
    async with Workspace(find_project(project)) as workspace:
        store = await workspace.store()
        end = time.monotonic() + 60
        while True:
            records = [await store.run(RunId(name)) for name in names]
            if all(each.status is RunStatus.COMPLETED for each in records):
                return {each.run_id: (each.output or b"").decode().strip('"') for each in records}
            assert time.monotonic() < end, [(each.run_id, each.status) for each in records]
            await asyncio.sleep(0.05)


async def test_each_run_is_executed_with_the_blueprint_that_it_began_with_by_a_worker_that_has_its_code(
    tmp_path: Path, store_uri: str
) -> None:
    old = version(tmp_path, "old", OLD_WAY, store_uri)
    new = version(tmp_path, "new", NEW_WAY, store_uri)
    for project, run_id in ((new, "new-run"), (old, "old-run")):
        with flujo(project, "run", "order", "--run-id", run_id, "--detach") as submitting:
            assert submitting.wait(60) == 0
    with ExitStack() as stack:
        for project in (old, new):
            worker = stack.enter_context(flujo(project, "worker", "--concurrency", "1"))
            stack.callback(worker.terminate)
        assert await outputs(new, "old-run", "new-run") == {
            "old-run": f"{OLD_WAY}, sent by old",
            "new-run": f"{NEW_WAY}, sent by new",
        }
