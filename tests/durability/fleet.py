"""Worker processes that are killed and frozen, and the diagnostics for a stuck run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

import warm
from durability.program_worker import pipeline_of, program_of
from durability.random_programs import BEGUN, answered, in_doubt, known, looked_up, parts
from flujo.domain import canonical, chains
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import EntryKind, EntryStatus, RunId
from flujo.domain.paths import bounds
from flujo.domain.queues import RunKind
from flujo.domain.run import NewRun, RunQuery, RunStatus
from flujo.domain.run_forks import Forked
from flujo.domain.sent_events import NewEvent
from flujo.exceptions import ReplayDiverged
from flujo.services.replay.export import export_run
from flujo.services.replay.pull import pull
from flujo.services.replay.run_file import RunFile
from flujo.services.runs.chains import find_last
from flujo.services.runs.run_request import pinned
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from durability.world import World
    from flujo.domain.run import Pause, RunRecord
    from flujo.state.store import SqlStateStore

LEASE_S = 1.0
START = 5
"""The input of every program."""


@dataclass
class Fleet:
    """Real `flujo worker` processes on one database, some of them always killed or frozen."""

    folder: Path
    uri: str
    seeds: Sequence[int]
    chance: Random
    lease_s: float = LEASE_S
    faults: Counter[str] = field(default_factory=Counter)
    _workers: list[warm.Popen] = field(default_factory=list)
    _frozen: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    """The timer that wakes each frozen worker, by process. A frozen worker may hold a lock that the test waits for."""

    def __enter__(self) -> Fleet:
        (self.folder / "flujo.toml").write_text(
            f'state_uri = "{self.uri}"\n[settings]\nlease_s = {self.lease_s}\nrecovery_s = 0.2\nmax_recoveries = 1000\n'
            '[blueprints]\nallow_callables = ["random.*"]\n'
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.wake()
        for worker in self._workers:
            worker.kill()
            worker.wait()

    def start(self, count: int) -> None:
        """Start workers until there are `count`."""
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < count:
            self._workers.append(self._launched())

    def trouble(self) -> None:
        """Kill or freeze a worker, or close the connections of the database."""
        what = self.chance.choice(["kill", "freeze", "nothing", "disconnect"])
        if what == "disconnect" and self._is_postgres:
            self.disconnect()
            self.faults[what] += 1
        elif what in ("kill", "freeze"):
            self.strike(what)

    def strike(self, how: str) -> None:
        """Kill or freeze one of the workers that are awake, if there is one."""
        awake = [worker for worker in self._workers if worker.pid not in self._frozen]
        if awake:
            self._strike(self.chance.choice(awake), how)
            self.faults[how] += 1

    def disconnect(self) -> None:
        """Close all other connections of the database."""
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(others)

    def wake(self) -> None:
        """Wake all workers."""
        for pid in list(self._frozen):
            self._wake(pid)

    def _wake(self, pid: int) -> None:
        self._frozen.pop(pid).cancel()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def diagnostics(self) -> str:
        """Return the workers' output, their threads' stacks, and the sessions of the database."""
        self.wake()
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGUSR1)
        time.sleep(0.5)  # until the stacks are written
        files = [*sorted(self.folder.glob("worker-*.trace")), *sorted(self.folder.glob("worker-*.log"))]
        lines = [f"== {file.name}\n{file.read_text('utf-8')[-4000:]}" for file in files]
        return "\n".join([*lines, *self._sessions()])

    def _strike(self, worker: warm.Popen, how: str) -> None:
        if how == "kill":
            worker.kill()
            worker.wait()
            return
        worker.send_signal(signal.SIGSTOP)
        frozen_s = self.chance.uniform(0.2, 2 * self.lease_s)
        self._frozen[worker.pid] = asyncio.get_running_loop().call_later(frozen_s, self._wake, worker.pid)

    def _launched(self) -> warm.Popen:
        command = [sys.executable, "-m", "flujo", "worker", "--import", "durability.program_worker"]
        with (self.folder / f"worker-{time.monotonic_ns()}.log").open("wb") as log:
            return warm.Popen(
                command,
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    "PROGRAMS_WORLD": str(self.folder),
                    "PROGRAMS_SEEDS": ",".join(map(str, self.seeds)),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def _is_postgres(self) -> bool:
        return sa.make_url(self.uri).get_backend_name() == "postgresql"

    def _sessions(self) -> Iterator[str]:
        if self._is_postgres:
            query = "SELECT pid, state, wait_event, xact_start, query FROM pg_stat_activity"
            with psycopg.connect(self.uri, autocommit=True) as connection:
                yield from map(str, connection.execute(f"{query} WHERE datname = current_database()"))


class Programs:
    """Runs of random programs on a database, the human who answers them, and the promises they must keep."""

    def __init__(self, store: SqlStateStore, world: World, seeds: Sequence[int]) -> None:
        self._store = store
        self._world = world
        self._programs = {RunId(f"run-{seed}"): (seed, program_of(seed)) for seed in seeds}
        self.answers = 0
        self.repeated: set[str] = set()
        """Calls in doubt that had not happened when the human checked, and were repeated."""

    async def submit(self, folder: Path) -> None:
        """Accept a run of each program; no worker executes it yet."""
        self._folder = folder
        for run_id, (seed, _) in self._programs.items():
            tree = pipeline_of(seed, folder)
            closure, blobs = pinned(tree, None)
            new = NewRun(
                run_id=run_id,
                pipeline=tree.name,
                closure=closure,
                input=canonical.encode(START),
                context=canonical.encode(BEGUN),
            )
            await self._store.accept(new, blobs, claim=False)

    async def progress(self) -> tuple[int, int, int]:
        """Return counters that grow while work progresses: effects, answers, ended runs."""
        records = [await find_last(self._store, run_id) for run_id in self._programs]
        ended = sum(record.status in (RunStatus.COMPLETED, RunStatus.FAILED) for record in records)
        return len(self._world.effects()), self.answers, ended

    async def answer(self) -> None:
        """Answer open questions as a human who checks the world first."""
        for main in self._programs:
            for run_id in await self._family(main):
                for pause in await self._store.pauses(run_id):
                    if pause.is_open and pause.event_key is not None:
                        await self._tell(pause.event_key)
                    elif pause.needs_answer:
                        reply = canonical.encode(await self._reply(main, run_id, pause))
                        await self._store.answer(run_id, pause.pause_id, reply)
                        self.answers += 1

    async def _chain(self, first: RunId) -> list[RunRecord]:
        """Return the runs of a chain, in order."""
        last = chains.number_of((await find_last(self._store, first)).run_id)
        return [await self._store.run(chains.numbered(first, number)) for number in range(1, last + 1)]

    async def _family(self, first: RunId) -> list[RunId]:
        """Return the runs of a chain and their background tasks."""
        chain = [run.run_id for run in await self._chain(first)]
        return [*chain, *[task.run_id for each in chain for task in await self._tasks(each)]]

    async def _tasks(self, run_id: RunId) -> list[RunRecord]:
        """Return the background tasks and batches of a run, and those that these have launched."""
        query = RunQuery(parent=run_id, kinds=(RunKind.TASK, RunKind.ITEM), limit=1000)
        own = await self._store.runs(query)
        return [*own, *[inner for task in own for inner in await self._tasks(task.run_id)]]

    async def _tell(self, key: str) -> None:
        """Send the event for a key; any run that waits for it may take it."""
        self.answers += 1
        payload = canonical.encode(int(key) + 4)
        actor = Actor("ada", Via.API)
        event_id = f"{next(iter(self._programs))}-e{self.answers}"  # other programs had this database before
        sent = NewEvent(event_id=event_id, name="told", payload=payload, actor=actor, key=key)
        await self._store.send_event(sent)

    async def _reply(self, main: RunId, run_id: RunId, pause: Pause) -> Any:
        intent = in_doubt(pause, await self._store.intents(run_id))
        if intent is None:
            return answered(pause)
        seed, program = self._programs[main]
        path = intent.path.rpartition("/")[2]
        happened = f"{seed}:{path}:{intent.key}" in self._world.effects()
        if not happened:
            self.repeated.add(intent.key)
        return looked_up(intent, {part.name: part for part in parts(program)}, happened=happened)

    async def wrong(self) -> list[str]:
        """Return the broken promises of all ended runs."""
        return [line for run_id in self._programs for line in await self._violations(run_id)]

    async def _violations(self, run_id: RunId) -> list[str]:
        (seed, program), chain = self._programs[run_id], await self._chain(run_id)
        record = chain[-1]
        wanted, what = known(program, START), f"FLUJO_PROGRAM={seed}"
        if record.status is not RunStatus.COMPLETED:
            return [f"{what}: the run is {record.status}: {record.error!r}"]
        output = canonical.decode(record.output or b"null")
        wrong = [] if output == wanted.output else [f"{what}: gave {output}, and not {wanted.output}"]
        happened, keys = Counter[str](), Counter[str]()
        for effect in self._world.effects(f"{seed}:"):
            name, _, key = effect.partition(":")
            happened[name] += 1
            keys[key] += 1
        at_once = in_flight(program)
        tasks = [task for each in chain for task in await self._tasks(each.run_id)]
        launched = Counter(
            ((task.parent and task.parent.path) or "").rpartition("/")[2]
            for task in tasks
            if task.kind is RunKind.TASK
        )
        happened += launched
        fences = sum(each.fence - 1 for each in (*chain, *tasks))
        for name in happened.keys() | wanted.effects.keys():
            least = wanted.effects[name]
            most = least if name in launched else least + fences * at_once[name]
            if not least <= happened[name] <= most:
                wrong.append(f"{what}: {name} happened {happened[name]} times, allowed: {least} to {most}")
        wrong += [
            f"{what}: {key} was called {n} times"
            for key, n in keys.items()
            if key and n > 1 and key not in self.repeated
        ]
        wrong += [
            f"{what}: the task {task.run_id} is {task.status}: {task.error!r}"
            for task in tasks
            if task.status is not RunStatus.COMPLETED
        ]
        wrong += [line for each in chain for line in await self._differs(each.run_id, seed)]
        wrong += [f"{what}: {line}" for line in await self._moved(record.run_id, seed)]
        family = [each.run_id for each in (*chain, *tasks)]
        return wrong + await self._unrecorded(family, what, wanted.effects, {key for key in keys if key})

    async def _differs(self, run_id: RunId, seed: int) -> list[str]:
        """Return how a replay of an ended run differs from its record."""
        async with Flujo[Any, Any, Any](
            pipeline_of(seed, self._folder), store=self._store, recovery=False, range_length=2
        ) as runner:
            try:
                again = await runner.replay_from_trace(run_id)
            except ReplayDiverged as difference:
                return [f"FLUJO_PROGRAM={seed}: {difference}"]
        return [] if again.success else [f"FLUJO_PROGRAM={seed}: the replay is {again.status}"]

    async def _moved(self, run_id: RunId, seed: int) -> list[str]:
        """Return what differs when an ended run is exported, pulled into another store, replayed and forked there."""
        file = RunFile.read(await export_run(self._store, run_id), "the export")
        other = MemoryStateStore()
        await pull(file, run_id, other, actor=Actor("ada", Via.API), origin="the export")
        entries, before = await self._store.entries(run_id), self._world.effects(f"{seed}:")
        wrong = []
        for one in file.runs:
            if await other.entries(one) != await self._store.entries(one):
                wrong.append(f"the journal of {one} is another one where it was pulled")
        again = RunFile.read(await export_run(other, run_id), "the second export")
        for one, exported in file.runs.items():
            if difference := again.runs[one].difference(exported.pulled()):
                wrong.append(f"a second export of {one} differs: {difference}")
        reached = [
            each.path
            for each in entries
            if each.kind is not EntryKind.DECISION and "!" not in each.path and bounds(each.path) is None
        ]
        at = Random(seed).choice(reached)
        async with Flujo[Any, Any, Any](
            pipeline_of(seed, self._folder), store=other, recovery=False, range_length=2
        ) as runner:
            try:
                await runner.replay_from_trace(run_id)
                fork = await runner.fork_async(run_id, at=at)
                await runner.replay_from_trace(fork.run_id)
            except ReplayDiverged as difference:
                return [*wrong, f"with a fork at {at}: {difference}"]
        forked = Forked.of(await other.acts(RunId(fork.run_id)))
        copied = [] if forked is None else (await other.entries(RunId(fork.run_id)))[: forked.copied]
        own = [replace(each, seq=0) for each in entries]
        if any(replace(each, seq=0) not in own for each in copied):
            wrong.append(f"a fork at {at} has entries that its parent has not")
        if self._world.effects(f"{seed}:") != before:
            wrong.append(f"a fork at {at} has made calls")
        return wrong

    async def _unrecorded(
        self, family: Sequence[RunId], what: str, wanted: Counter[str], keys: set[str]
    ) -> list[str]:
        """Return the steps missing from the journals or recorded twice."""
        entries = [entry for run_id in family for entry in await self._store.entries(run_id)]
        done = Counter(
            entry.path.rpartition("/")[2]
            for entry in entries
            if entry.kind is EntryKind.WORK and entry.status is EntryStatus.COMPLETED
        )
        announced = {intent.key for run_id in family for intent in await self._store.intents(run_id)}
        wrong = [
            f"{what}: {name} is recorded {done[name]} times, and not {times}"
            for name, times in wanted.items()
            if done[name] != times
        ]
        return wrong + [f"{what}: {key} was called without an announcement" for key in keys - announced]

    async def diagnostics(self) -> str:
        """Return the status, owner, open questions and last entries of each run."""
        lines = []
        for run_id in self._programs:
            record = await find_last(self._store, run_id)
            run_id = record.run_id
            if record.status is RunStatus.COMPLETED:
                continue
            lines.append(
                f"== {run_id}: {record.status}, fence {record.fence}, owner {record.owner}, "
                f"lease {record.lease_left_s}, recoveries {record.recoveries}, error {record.error!r}"
            )
            lines += [
                f"   asks {pause.pause_id}: {pause}"
                for pause in await self._store.pauses(run_id)
                if pause.is_open
            ]
            lines += [
                f"   called {intent.path}: {intent.state}" for intent in await self._store.intents(run_id)
            ]
            tail = (await self._store.entries(run_id))[-8:]
            lines += [f"   {entry.path} {entry.kind} {entry.status} {entry.attempt}" for entry in tail]
        return "\n".join(lines)


_WIDTHS = {"map": 2, "spread": 4}
"""How many items of a map are executed at once; two batches of a spread one, of two items each."""


def in_flight(program: Sequence[Any], at_once: int = 1) -> Counter[str]:
    """Return how many calls of each step may be in flight at once: several items of a map at a time."""
    found: Counter[str] = Counter()
    for part in program:
        found[part.name] = at_once
        for body in part.bodies:
            found.update(in_flight(body, at_once * _WIDTHS.get(part.kind, 1)))
    return found
