"""The connection to a Ray cluster, which places units itself.

The package `ray` lives in a process beside that of the run; see `ray_driver`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from base64 import b64encode
from functools import partial
from importlib.util import find_spec
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from flujo.agents.thread_pool import ThreadPool
from flujo.domain.executor import Needs
from flujo.domain.forks import NO_FORK
from flujo.exceptions import ExecutorUnavailable
from flujo.services.executors.batches import Place
from flujo.services.executors.cluster import ClusterConnection
from flujo.services.executors.process_worker import read_frame, write_frame
from flujo.services.executors.wire import other_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flujo.exceptions import FlujoError
    from flujo.services.executors.batches import Batch
    from flujo.services.executors.wire import ProjectOnWorker
    from flujo.settings_executors import ExecutorTable

if find_spec("ray") is None:
    raise ModuleNotFoundError("there is no package `ray`", name="ray")

_CONNECT_S = 30.0
"""How long the process with the library may take to connect. A head that is not there refuses at once."""


class RayConnection(ClusterConnection):
    """A connection through the process that has the library.

    Its places are the nodes, for what fits and how much is sent at once. Ray chooses the node of a batch.
    """

    place = "node"

    def __init__(
        self, name: str, table: ExecutorTable, project: ProjectOnWorker, *, before: ClusterConnection | None
    ) -> None:
        super().__init__(name, table, project, before=before)
        self._at = f"at {table.address}" if table.address else "on this host"
        self._ids = count(1)
        self._sent: dict[int, tuple[Needs, asyncio.Future[list[bytes]]]] = {}
        """Batches without an answer."""
        self._asked: list[asyncio.Future[dict[str, Any]]] = []
        """Questions what the workers have, without an answer."""
        self._requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._has_nodes: asyncio.Future[None] = self.loop.create_future()
        """Done when the nodes are known; its exception is why they cannot be."""

    async def _open(self) -> None:
        code = await self._packed()
        process = self._process = _started(self._name)
        threading.Thread(target=self._write, args=(process,), daemon=True).start()
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        self._requests.put(
            {
                "address": self._table.address,
                "project": self._project.encoded().decode(),
                "code": None if code is None else b64encode(code.data).decode(),
            }
        )
        late = self.loop.call_later(_CONNECT_S, process.kill)
        try:
            await self._has_nodes
        finally:
            late.cancel()

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        """Write requests, in a thread, until the process is gone or the connection is closed."""
        pipe = process.stdin
        if pipe is not None:
            with contextlib.suppress(OSError), pipe:
                while (asked := self._requests.get()) is not None:
                    write_frame(pipe, json.dumps(asked).encode())

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Read what the process tells, in a thread, until it has ended."""
        pipe = process.stdout
        if pipe is not None:
            with pipe:
                while (frame := read_frame(pipe)) is not None:
                    self._call(partial(self._take, json.loads(frame)))
        process.wait()
        self._requests.put(None)
        self._call(self._ended)

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, and nothing waits
            self.loop.call_soon_threadsafe(function)

    def _take(self, told: dict[str, Any]) -> None:
        """Take what the process tells."""
        if "batch" in told:
            _, answer = self._sent.pop(told["batch"], (None, None))
            if answer is not None and not answer.done():
                self._settle(answer, told)
        elif "about" in told:
            for asked in self._asked:
                if not asked.done():
                    asked.set_result(told)
            self._asked.clear()
        elif "nodes" in told:
            self._place(told["nodes"])
        elif "differs" in told:
            self._fail(self._differs(f"{told['differs']} (executor {self._name!r})"))
        elif "gone" in told:
            self._fail(self._unavailable(f"cannot be reached: {told['gone']}"))
        else:
            self._fail(self._unavailable(f"cannot be used: {told['unavailable']}"))

    def _settle(self, answer: asyncio.Future[list[bytes]], told: Mapping[str, Any]) -> None:
        if "answers" in told:
            answer.set_result([each.encode() for each in told["answers"]])
        elif "differs" in told:
            worker = f"a worker of executor {self._name!r}{told['place']}"
            answer.set_exception(self._differs(f"{worker} cannot execute units: {told['differs']}"))
        else:
            what = f"a worker of the Ray cluster {self._at} is gone: {told['lost']}"
            answer.set_exception(self._lost(f"{what} (executor {self._name!r})"))

    def _place(self, nodes: Mapping[str, tuple[float, float, float]]) -> None:
        """Take the nodes that there are.

        Ray tells of a batch whose node is gone, but not of one that waits for a node which will not come.
        """
        places = self.batches.places
        for gone in places.keys() - nodes.keys():
            del places[gone]
        for key, (cpu, gpu, memory) in nodes.items():
            has = Needs(cpu=cpu, gpu=gpu, memory=int(memory))
            places.setdefault(key, Place(key=key, name=f"Ray node {key[:12]}", has=has))
        for number, (needs, answer) in self._sent.items():
            if not answer.done() and (error := self.problem(needs)) is not None:
                self._requests.put({"cancel": number})
                answer.set_exception(self._lost(error.message))
        self.batches.refuse(self.problem)
        self.batches.move()
        if not self._has_nodes.done():
            self._has_nodes.set_result(None)

    def _without_places(self) -> FlujoError:
        return self._unavailable("has no node with cores")

    async def _send(self, place: Place, batch: Batch) -> list[bytes]:
        """Return the answers of a worker to a batch. When no caller waits for them, it is killed."""
        del place  # Ray chooses
        number, needs = next(self._ids), batch.needs
        answer: asyncio.Future[list[bytes]] = self.loop.create_future()
        self._sent[number] = needs, answer
        self._requests.put(
            {
                "batch": number,
                "needs": [needs.cpu, needs.gpu, needs.memory],
                "units": [unit.decode() for unit in batch.units],
            }
        )
        try:
            return await answer
        except asyncio.CancelledError:
            self._requests.put({"cancel": number})
            raise

    async def _abouts(self) -> Iterable[Mapping[str, str]]:
        """Let a worker of each node say what it has."""
        asked = self.loop.create_future()
        self._asked.append(asked)
        self._requests.put({"about": True})
        told = await asked
        if "problem" in told:
            worker = f"a worker of executor {self._name!r}{told['place']}"
            raise self._differs(f"{worker} cannot load Flujo: {told['problem']}")
        abouts: list[dict[str, str]] = told["about"]
        if not abouts:
            raise self._unavailable("has no worker that answers")
        for about in abouts:
            if differs := other_versions(self._project, about):
                raise self._differs(f"a worker of executor {self._name!r} on {about['host']} {differs}")
        return abouts

    def _ended(self) -> None:
        """Take the end of the process: the cluster is gone, or the library could not connect in time."""
        self._fail(self._unavailable("is gone" if self._has_nodes.done() else "did not answer"))

    def _fail(self, error: FlujoError) -> None:
        """Let everything fail that waits for this connection."""
        if self.end is not None:
            return
        self.end = error
        self._requests.put(None)
        if not self._has_nodes.done():
            self._has_nodes.set_exception(error)
            self._has_nodes.exception()  # the opening gets it; it may have been cancelled
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(error)
        for _, answer in self._sent.values():
            if not answer.done():
                answer.set_exception(self._lost(error.message))
        self._sent.clear()
        self.batches.places.clear()
        self.batches.refuse(self.problem)

    def _unavailable(self, what: str) -> ExecutorUnavailable:
        return ExecutorUnavailable(
            f"the Ray cluster {self._at} (executor {self._name!r}) {what}",
            hint="this host must be a node of the cluster: `ray start --head`, or "
            "`ray start --address=HEAD:6379` (with `--num-cpus=0` it executes nothing)",
            executor=self._name,
        )

    def _closed(self) -> ExecutorUnavailable:
        return self._unavailable("was closed")

    async def _leave(self) -> None:
        self._fail(self._closed())
        if self._process is not None:
            await ThreadPool(1).submit(partial(_wait, self._process))


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has left the cluster; kill it after a few seconds."""
    try:
        process.wait(timeout=6)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _started(name: str) -> subprocess.Popen[bytes]:
    """Start the process that has the library. Ctrl-C and the terminal are for the process of the run."""
    with NO_FORK:
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "flujo.services.executors.ray_driver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ExecutorUnavailable(
                f"executor {name!r} cannot start a process: {error.strerror}", executor=name
            ) from error
