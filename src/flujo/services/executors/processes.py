"""`kind = "processes"`: callables in processes of this host, one unit at a time in each.

Not `concurrent.futures.ProcessPoolExecutor`: it cannot stop a unit that is under way, and the loss of one
process loses the units of all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.agents.thread_pool import ThreadPool
from flujo.domain.executor import ExecutorFacts
from flujo.domain.forks import NO_FORK, renew_in_children
from flujo.exceptions import ExecutorUnavailable, WorkerLost
from flujo.services.executors.process_worker import read_frame, write_frame
from flujo.services.executors.this_host import require_here, this_host
from flujo.services.executors.wire import encoded_unit, output_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.executor import Unit
    from flujo.services.executors.wire import ProjectOnWorker


class Processes:
    """Executes units in at most `size` processes, which are started when they are needed and reused.

    Args:
        name: the executor's name in flujo.toml.
        size: how many units are executed at once; the others wait.
        project: what the workers need to know.
        code_of: returns the digest of a target's code in this process.
    """

    leaves_process = True

    def __init__(
        self, name: str, size: int, project: ProjectOnWorker, code_of: Callable[[str], str | None]
    ) -> None:
        self.name = name
        self._size = size
        self._project = project.encoded()
        self._code_of = code_of
        self._begin()
        renew_in_children(self, type(self)._begin)

    def _begin(self) -> None:
        """Begin without processes; a forked child does not use those of its parent."""
        self._threads = ThreadPool(self._size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._is_closed = False

    async def submit(self, unit: Unit) -> Any:
        """Execute a unit; see `Executor`. Cancelling the caller kills the process of the unit."""
        require_here(unit.needs, self.name)
        data = encoded_unit(unit, self._code_of(unit.target))
        under_way = _UnderWay()
        try:
            answer = await self._threads.submit(partial(self._answered, data, under_way, unit))
        except asyncio.CancelledError:
            under_way.cancel()
            raise
        return output_of(answer, unit, self.name)

    def _answered(self, unit: bytes, under_way: _UnderWay, asked: Unit) -> bytes:
        """Return the answer of a worker, waiting in this thread."""
        worker = self._take()
        if not under_way.begins(worker):
            self._give_back(worker)
            return b""  # the caller is cancelled
        answer = worker.ask(unit)
        if under_way.ends() and answer is not None:
            self._give_back(worker)
            return answer
        end = self._forget(worker)
        raise WorkerLost(
            f"the process of executor {self.name!r} that executed `{asked.place}` ended ({end}) before "
            "it answered",
            executor=self.name,
        )

    def _give_back(self, worker: _Worker) -> None:
        """Keep a process for the next unit."""
        with self._lock:
            if not self._is_closed:
                self._idle.append(worker)
                return
        self._forget(worker)

    def _take(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise ExecutorUnavailable(f"executor {self.name!r} is closed", executor=self.name)
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
                self._all.discard(worker)
        worker = _Worker(self.name, self._project)
        with self._lock:
            self._all.add(worker)
        return worker

    def _forget(self, worker: _Worker) -> str:
        """Kill a process, and return how it ended."""
        worker.kill()
        with self._lock:
            self._all.discard(worker)
        return worker.end()

    async def check(self) -> ExecutorFacts:
        """Start one process, and return what is there."""
        with self._lock:
            has_one = bool(self._idle)
        if not has_one:
            worker = await self._threads.submit(self._take)
            with self._lock:
                self._idle.append(worker)
        return ExecutorFacts(workers=self._size, has=this_host())

    async def aclose(self) -> None:
        """End the processes: those that are idle close their resources, the others are killed."""
        with self._lock:
            self._is_closed = True
            idle, busy = list(self._idle), self._all.difference(self._idle)
            self._idle.clear()
            self._all.clear()
        for worker in busy:
            worker.kill()  # the thread that waits for it closes its pipes
        if idle:
            await self._threads.submit(partial(_leave, idle))


def _leave(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.leave()


class _UnderWay:
    """The process of a unit while it is executed, so that the caller can kill it from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._is_cancelled = False

    def begins(self, worker: _Worker) -> bool:
        """Note the process; return False if the unit is cancelled, and must not begin."""
        with self._lock:
            if not self._is_cancelled:
                self._worker = worker
            return not self._is_cancelled

    def ends(self) -> bool:
        """Forget the process, which may get another unit now; return False if it was killed."""
        with self._lock:
            self._worker = None
            return not self._is_cancelled

    def cancel(self) -> None:
        """Kill the process, if the unit is under way; a unit that has not begun never begins."""
        with self._lock:
            self._is_cancelled = True
            if self._worker is not None:
                self._worker.kill()


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self, name: str, project: bytes) -> None:
        with NO_FORK:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "flujo.services.executors.process_worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the process of the run
                )
            except OSError as error:
                raise ExecutorUnavailable(
                    f"executor {name!r} cannot start a process: {error.strerror}", executor=name
                ) from error
        self._send(project)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, unit: bytes) -> bytes | None:
        """Return the answer of the process to a unit; None if the process is gone."""
        answers = self._process.stdout
        if answers is None or not self._send(unit):
            return None
        try:
            return read_frame(answers)
        except (OSError, ValueError):
            return None

    def _send(self, data: bytes) -> bool:
        units = self._process.stdin
        try:
            if units is not None:
                write_frame(units, data)
        except (OSError, ValueError):
            return False
        return units is not None

    def kill(self) -> None:
        """Kill the process. It gives no answer."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def end(self) -> str:
        """Wait until the process has ended, close its pipes, and return how it ended, in words."""
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def leave(self) -> None:
        """Let an idle process close its resources and end; kill it after a few seconds."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=6)
        except subprocess.TimeoutExpired:
            self.kill()
        self.end()
