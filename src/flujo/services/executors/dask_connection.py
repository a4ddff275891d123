"""The connection to a Dask cluster. The only home of the package `distributed`.

Dask repeats a task whose worker is gone, and computes a result again that was lost with its worker. A unit
must be executed at most once, so each task is bound to one worker, and the function on the worker refuses a
task for another process: a worker that was restarted under the same address is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import socket
import sys
import warnings
from concurrent.futures import CancelledError as ConnectionCancelled
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask.config

from flujo.agents.thread_pool import THREADS
from flujo.domain.executor import Needs
from flujo.domain.wording import reason
from flujo.exceptions import ExecutorUnavailable, FlujoError, WorkerLost
from flujo.services.executors.batches import Place
from flujo.services.executors.cluster import ClusterConnection
from flujo.services.executors.dask_worker import abandon, about_worker, execute_batch
from flujo.services.executors.shipped_code import Packed, moved, unpacked
from flujo.services.executors.wire import other_versions

if "distributed" not in sys.modules:  # its log goes to the terminal; what matters becomes an error of a step
    dask.config.set({"logging": {"distributed": "critical", "distributed.client": "critical"}})

from distributed import Client, Future, Security
from distributed.comm.addressing import get_address_host_port
from distributed.versions import VersionMismatchWarning

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from flujo.services.executors.batches import Batch
    from flujo.services.executors.wire import ProjectOnWorker
    from flujo.settings_executors import ExecutorTable

# Of all packages; those that matter are compared by `other_versions`.
warnings.simplefilter("ignore", VersionMismatchWarning)

_CONNECT_S = 4.0
"""How long a scheduler may take to accept a connection."""

_ANSWERS_S = 5.0
"""How long a worker may take to say what it is, the scheduler to answer, and a connection to close."""

_OPENS_S = 15.0
"""How long a connection may take to open. Dask waits forever for a scheduler that accepts and is silent."""

_ASKS_S = 5.0
"""How long to wait between two questions to the scheduler."""

_SILENCES = 3
"""How many questions in a row the scheduler may leave unanswered before it is gone, after 30 s."""

_CONTINUE = (
    "`flujo doctor` says when it can be reached again; then `flujo resume RUN --retry-failed` continues"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """A worker that can be used."""

    about: Mapping[str, str]
    """See `about_worker`."""
    declared: Mapping[str, float]
    """Resources that Dask counts itself."""
    project: bytes
    """What it needs to know of the project."""

    def __str__(self) -> str:
        return f"on {self.about['host']} (pid {self.about['pid']})"


class DaskConnection(ClusterConnection):
    """A connection to a scheduler; its places are the workers."""

    place = "worker"
    hint_for_places = '; GPUs are declared with `dask worker --resources "GPU=1"`'

    def __init__(
        self, name: str, table: ExecutorTable, project: ProjectOnWorker, *, before: ClusterConnection | None
    ) -> None:
        super().__init__(name, table, project, before=before)
        self._address = str(table.address)
        self._client: Client | None = None
        self._workers: dict[str, _Worker] = {}
        """By their addresses, as the next one."""
        self._unusable: dict[str, FlujoError] = {}
        """Why a worker cannot be used."""
        self._code: Packed | None = None
        """What a worker is sent."""
        self._looks = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _open(self) -> None:
        self._code = await self._packed()
        try:
            client = self._client = Client(
                self._address,
                asynchronous=True,
                set_as_default=False,
                timeout=_CONNECT_S,
                security=self._security(),
            )
            async with asyncio.timeout(_OPENS_S):
                await client
                client.subscribe_topic("all", self._on_event)
                self._background(self._watch(Future(f"flujo-connection-{uuid4().hex}", client=client)))
                await self._look()
            self._background(self._listen(client))
        except (OSError, ValueError, ImportError) as error:
            refusal = await THREADS.submit(self._refusal)
            at = f"{self._address} (executor {self._name!r})"
            raise ExecutorUnavailable(
                f"no Dask scheduler can be used at {at}: {reason(error if refusal is None else refusal)}",
                hint="start one with `dask scheduler`, or correct `address` in flujo.toml",
                executor=self._name,
            ) from error

    def _refusal(self) -> OSError | None:
        """Return why no connection to the address can be made; None if one can, or nothing answers.

        Dask reports only its last attempt, which the end of its time may have interrupted.
        """
        try:
            socket.create_connection(get_address_host_port(self._address), timeout=_ANSWERS_S).close()
        except (ValueError, TimeoutError):
            return None
        except OSError as error:
            return error
        return None

    def _security(self) -> Security | None:
        if self._table.tls_ca is None:
            return None
        return Security(
            require_encryption=True,
            tls_ca_file=self._file("tls_ca"),
            tls_client_cert=self._file("tls_cert"),
            tls_client_key=self._file("tls_key"),
        )

    def _file(self, key: str) -> str:
        """Return the file that a key of the table names; an error of the library does not name it."""
        path = Path(self._project.root, getattr(self._table, key))
        try:
            path.open("rb").close()
        except OSError as error:
            raise ExecutorUnavailable(
                f"`{key}` of executor {self._name!r} cannot be read: {reason(error)}",
                hint=f"correct `{key}` in flujo.toml; a path begins at the project's folder",
                executor=self._name,
            ) from error
        return str(path)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, connection: Future[Any]) -> None:
        """Wait until the connection is lost: Dask then cancels every future, also one without a task."""
        try:
            await connection.result()
        except ConnectionCancelled:
            self._drop(f"the Dask scheduler at {self._address} is gone")

    async def _listen(self, client: Client) -> None:
        """Ask the scheduler whether it is there: of a network that is cut, Dask may learn nothing.

        A worker that did not say what it is gets another chance.
        """
        unanswered = 0
        while client.scheduler is not None and self.end is None:
            try:
                async with asyncio.timeout(_ANSWERS_S):
                    await client.scheduler.identity(n_workers=0)
                unanswered = 0
            except OSError:
                unanswered += 1
            if unanswered == _SILENCES:
                self._drop(f"the Dask scheduler at {self._address} does not answer")
            elif any(isinstance(error, ExecutorUnavailable) for error in self._unusable.values()):
                await self._look_again()
            await asyncio.sleep(_ASKS_S)

    async def _look(self) -> None:
        """Take the workers that have come; those that have gone are reported by events."""
        client = self._client
        if client is None or client.scheduler is None:
            return
        async with self._looks:
            identity: Any = await client.scheduler.identity(n_workers=-1)
            known = identity["workers"]
            new = [address for address in known if address not in self._workers]
            await asyncio.gather(*(self._ask(client, address, known[address]) for address in new))
        self.batches.move()

    async def _ask(self, client: Client, address: str, known: Mapping[str, Any]) -> None:
        """Let a worker say what it is, and take it if it can be used."""
        self._unusable.pop(address, None)
        try:
            async with asyncio.timeout(_ANSWERS_S):
                about = (await client.run(about_worker, workers=[address]))[address]
                project = await self._shipped(client, address)
        except TimeoutError:
            text = f"{self._of(address)} does not answer"
            hint = "look whether it is frozen, and whether the scheduler can reach it"
            self._unusable[address] = ExecutorUnavailable(text, hint=hint, executor=self._name)
        except OSError:
            pass  # it is gone again
        except FlujoError as error:
            self._unusable[address] = error
        except Exception as error:  # noqa: BLE001 - whatever the worker raises when it imports Flujo
            self._unusable[address] = self._differs(f"{self._of(address)} cannot load Flujo: {reason(error)}")
        else:
            if differs := other_versions(self._project, about):
                self._unusable[address] = self._differs(f"{self._of(address)} {differs}")
                return
            self._workers[address] = _Worker(
                about=about, declared=known["resources"], project=project.encoded()
            )
            self.batches.places[address] = Place(
                key=address, name=f"Dask worker {address} {self._workers[address]}", has=_has(known)
            )

    async def _shipped(self, client: Client, address: str) -> ProjectOnWorker:
        """Return the project for a worker, after its modules were sent there if they are to be shipped."""
        if self._code is None:
            return self._project
        folder = (await client.run(unpacked, self._code.data, self._code.digest, workers=[address]))[address]
        return moved(self._project, folder)

    def _on_event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take an event of the scheduler: a worker has come or gone."""
        reported = event[1]
        if reported.get("action") == "add-worker":
            self._background(self._look_again())
        elif reported.get("action") == "remove-worker":
            address = str(reported["worker"])
            self._unusable.pop(address, None)
            worker = self._workers.pop(address, None)
            self.batches.lose(address, self._unanswered(f"Dask worker {address} {worker} is gone"))
            self.batches.refuse(self.problem)

    async def _look_again(self) -> None:
        with contextlib.suppress(OSError):  # the scheduler is gone, which `_watch` finds
            await self._look()

    def _unanswered(self, what: str, hint: str | None = None) -> WorkerLost:
        return self._lost(f"{what}, before the result arrived (executor {self._name!r})", hint)

    def _of(self, address: str) -> str:
        return f"Dask worker {address} (executor {self._name!r})"

    def _without_places(self) -> FlujoError:
        if self._unusable:
            return copy.copy(next(iter(self._unusable.values())))
        return ExecutorUnavailable(
            f"the Dask cluster at {self._address} (executor {self._name!r}) has no workers",
            hint="start one with `dask worker ADDRESS`",
            executor=self._name,
        )

    async def _send(self, place: Place, batch: Batch) -> list[bytes]:
        """Return the answers of a worker to a batch.

        Raises:
            WorkerLost: the task was not executed by this process of the worker, or its answer is lost.
        """
        client, worker, name = self._client, self._workers[place.key], f"flujo-{uuid4().hex}"
        if client is None:
            raise self._closed()
        future = client.submit(
            execute_batch,
            worker.about["process"],
            name,
            batch.units,
            worker.project,
            key=name,
            workers=[place.key],
            allow_other_workers=False,
            retries=0,
            pure=False,
            resources=_declared(batch.needs, worker.declared),
        )
        try:
            answers: list[bytes] | None = await future.result()
        except ConnectionCancelled as error:
            raise self._unanswered(f"the Dask scheduler at {self._address} is gone", _CONTINUE) from error
        except asyncio.CancelledError:
            if self.end is None:
                place.stopping += 1
                self._background(self._abandon(client, place, name))
            raise
        finally:
            future.release()  # if nothing has begun, nothing will
        if answers is None:
            raise self._unanswered(f"{place.name} was restarted")
        return answers

    async def _abandon(self, client: Client, place: Place, name: str) -> None:
        """Let a worker stop a batch. One that does not confirm this, because it is frozen, gets no more."""
        with contextlib.suppress(OSError):  # it is gone
            await client.run(abandon, name, workers=[place.key], on_error="ignore")
        place.stopping -= 1
        self.batches.move()

    async def _abouts(self) -> Iterable[Mapping[str, str]]:
        return [worker.about for worker in self._workers.values()]

    def _closed(self) -> ExecutorUnavailable:
        text = f"the connection to the Dask scheduler at {self._address} (executor {self._name!r}) is closed"
        return ExecutorUnavailable(text, executor=self._name)

    def _drop(self, why: str) -> None:
        """Let every unit fail: those that were sent are lost, those that wait were not sent."""
        self.end = ExecutorUnavailable(f"{why} (executor {self._name!r})", executor=self._name)
        for address in list(self.batches.places):
            self.batches.lose(address, self._unanswered(why, _CONTINUE))
        self.batches.refuse(self.problem)

    async def _leave(self) -> None:
        if self.end is None:
            self._drop("the connection was closed")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            if client.status == "running":  # otherwise the scheduler logs an event that it cannot send
                with contextlib.suppress(ValueError):  # the opening was cancelled before it subscribed
                    client.unsubscribe_topic("all")
            closing: Any = client.close(timeout=_ANSWERS_S)
            with contextlib.suppress(OSError, TimeoutError):
                await closing


def _has(worker: Mapping[str, Any]) -> Needs:
    """Return what a worker has: its threads, the GPUs that it declares, and its limit of memory."""
    declared = worker["resources"]
    return Needs(
        cpu=float(declared.get("CPU") or worker["nthreads"]),
        gpu=float(declared.get("GPU", 0)),
        memory=int(declared.get("MEMORY") or worker["memory_limit"] or 0),
    )


def _declared(needs: Needs, declared: Mapping[str, float]) -> dict[str, float]:
    """Return the needs that Dask counts itself: those of resources that the worker declares."""
    asked = {"CPU": needs.cpu, "GPU": needs.gpu, "MEMORY": needs.memory}
    return {name: amount for name, amount in asked.items() if amount and name in declared}
