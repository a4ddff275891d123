"""Callables in processes of this host."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.executor import Needs
from flujo.exceptions import ExecutorUnavailable, ResourcesUnavailable
from services.executors.suite import ExecutorSuite, appears, is_running, unit, until

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.executor import Executor
    from flujo.services.executors.processes import Processes


class TestProcesses(ExecutorSuite):
    """The promises, and those of processes alone."""

    table = 'kind = "processes"\nsize = 2'

    async def test_cancelling_kills_the_process(self, there: Executor, tmp_path: Path) -> None:
        under_way = asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / "pid"))))
        process = await appears(tmp_path / "pid")
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await until(lambda: not is_running(process))

    async def test_a_unit_that_is_cancelled_before_it_begins_leaves_its_process_alive(
        self, there: Processes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, process = await there.submit(unit("made_by"))
        take, has_taken, may_begin = there._take, threading.Event(), threading.Event()

        def held() -> Any:
            worker = take()
            has_taken.set()
            may_begin.wait(60)
            return worker

        monkeypatch.setattr(there, "_take", held)
        waiting = asyncio.ensure_future(there.submit(unit("made_by")))
        await asyncio.to_thread(has_taken.wait, 60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        may_begin.set()
        await until(lambda: bool(there._idle))
        assert await there.submit(unit("made_by")) == [process, process]

    async def test_cancelling_a_unit_that_has_ended_leaves_its_process_alive(
        self, there: Processes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, process = await there.submit(unit("made_by"))
        give_back, loop = there._give_back, asyncio.get_running_loop()

        def cancelled(worker: Any) -> None:
            give_back(worker)
            asyncio.run_coroutine_threadsafe(cancel(), loop).result(60)

        async def cancel() -> None:
            waiting.cancel()

        monkeypatch.setattr(there, "_give_back", cancelled)
        waiting = asyncio.ensure_future(there.submit(unit("made_by")))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        monkeypatch.undo()
        assert await there.submit(unit("made_by")) == [process, process]

    @pytest.mark.parametrize(
        ("needs", "says"),
        [
            (Needs(gpu=1), "executor 'there' executes on this host, which has .*, and the step needs 1 gpu"),
            (Needs(cpu=10_000), "10000 cpu"),
            (Needs(memory=10**18), "needs .* of memory"),
        ],
    )
    async def test_more_than_the_host_has_is_refused(self, there: Executor, needs: Needs, says: str) -> None:
        with pytest.raises(ResourcesUnavailable, match=says):
            await there.submit(unit("double", 1, needs=needs))

    async def test_a_closed_executor_starts_nothing(self, there: Executor) -> None:
        assert await there.submit(unit("double", 1)) == 2
        await there.aclose()
        await there.aclose()
        with pytest.raises(ExecutorUnavailable, match="closed"):
            await there.submit(unit("double", 1))


def test_workers_end_with_the_process_of_the_run(tmp_path: Path) -> None:
    """A worker that executes a unit does not outlive the process that waits for it."""
    (tmp_path / "held.py").write_text(
        "import os, time\n"
        "def hangs(file: str) -> None:\n"
        "    open(file + '.part', 'w').write(str(os.getpid()))\n"
        "    os.rename(file + '.part', file)\n"
        "    time.sleep(600)\n",
        "utf-8",
    )
    (tmp_path / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["held"]\n[executors.there]\nkind = "processes"\n', "utf-8"
    )
    (tmp_path / "hang.yaml").write_text(
        'version: "1"\nname: hang\nsteps:\n'
        "  - {name: wait, call: held:hangs, input: '{{ input }}', config: {executor: there}}\n",
        "utf-8",
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "flujo", "run", "hang.yaml", "--input", str(tmp_path / "pid")], cwd=tmp_path
    )
    try:
        worker = asyncio.run(appears(tmp_path / "pid"))
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    asyncio.run(until(lambda: not is_running(worker)))
