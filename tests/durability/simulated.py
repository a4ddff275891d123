"""One simulation: workers that crash, freeze and lose their database, a human who answers late, one run."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from durability.losing_executor import LosingExecutor
from durability.random_programs import (
    AGENTS,
    AROUND,
    DEADLINE_S,
    HUMAN,
    INSIDE,
    SLEEP_S,
    SLOW,
    TIMEOUT_S,
    answered,
    in_doubt,
    known,
    looked_up,
    lost_reply,
    misbehaviour,
    parts,
    random_program,
    tree,
    unsent,
)
from durability.slow_store import Crashed, SlowStore
from flujo.agents.settings import AgentSettings
from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.events import StepEnded
from flujo.domain.journal import RunId
from flujo.domain.outcomes import Success
from flujo.domain.paths import StepPath
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.sent_events import NewEvent
from flujo.exceptions import FlujoError
from flujo.services.binding.binding import PipelineBinding
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.chains import find_last
from flujo.services.runs.runner import Flujo
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.simulation import SimulatedClock, SimulatedLoop, simulate

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from flujo.domain.run import Pause

RUN = RunId("run")
NO_MODELS = AgentSettings(environment={}, cache_dir=Path("none"))
LEASE_S = 30.0
PATIENCE_S = 24 * 3600.0
"""After how many simulated seconds a run counts as stuck."""

current_worker: ContextVar[Worker | None] = ContextVar("worker", default=None)


@dataclass(eq=False)
class Worker:
    """A process. Its tasks end with it; their outside effects may or may not have happened."""

    store: SlowStore
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    """In starting order, because the order of a set differs between runs of the same seed."""
    doing: Counter[str] = field(default_factory=Counter)
    """Steps that have run and are not acknowledged."""

    def kill(self) -> None:
        self.store.dead = True
        for task in list(self.tasks):
            task.cancel()


class Seeded:
    """The jitter and ids of the engine, derived from the seed."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def run_id(self) -> RunId:
        return RunId(f"{self._chance.getrandbits(128):032x}")

    def fraction(self) -> float:
        return self._chance.random()


class Numbered(asyncio.Task[Any]):
    """A task that hashes by its number instead of its address, because a task group cancels a set of tasks."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class Simulation:
    """One run of a random program by workers that start and crash."""

    def __init__(self, seed: int, *, also: Sequence[str] = (*HUMAN, *SLOW, *AROUND)) -> None:
        self.loop = SimulatedLoop(seed)
        self.chance = self.loop.chance
        self.program = random_program(self.chance, also=also)
        self.database = MemoryDatabase()
        self._parts = {part.name: part for part in parts(self.program)}
        self._behind = {
            inner.name
            for part in self._parts.values()
            if part.kind == "behind"
            for inner in parts(part.bodies[0])
        }
        """The parts that background tasks execute."""
        self.effects: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        """How often each non-idempotent call was made, by its key."""
        self.repeated: set[str] = set()
        """Calls that the human did not find and requested again."""
        self.allowed: Counter[str] = Counter()
        """How many extra executions of a step are allowed, because it was interrupted before it was recorded."""
        self.told = 0
        """How many events were sent."""
        self.faults = 0
        self.late: list[str] = []
        """Attempts that outlived their time limit, or began after their process had lost the run."""
        self._hung: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._tree = tree(self.program, self._act)
        far = LosingExecutor(Random(seed + 1), self._parts, self._losses, self._pass_here)
        self._binding = PipelineBinding(
            allow_callables=("*",), agent_settings=NO_MODELS, executors=lambda _: far
        )
        self._binding.bind(self._tree)
        self._failed: Counter[str] = Counter()
        self._clients = Random(seed)
        """Chance of its own, so that the errors of clients change no other event of a seed."""
        self._workers: list[Worker] = []
        self._stores: list[SlowStore] = []
        self._numbers = count()
        self._failures = self.chance.choice([0.0, 0.0, 0.01, 0.05])
        self.loop.set_task_factory(self._task)  # type: ignore[arg-type]  # a method with fewer options

    def run(self) -> list[str]:
        """Return the violations; empty when every promise was kept."""
        return simulate(0, self._all(), loop=self.loop)

    # Events -----------------------------------------------------------------------------------------------

    async def _all(self) -> list[str]:
        human = asyncio.create_task(self._answer())
        trouble = asyncio.create_task(self._trouble())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._submit()
                await self._ended()
        except TimeoutError:
            record = await self._record()
            return [f"stuck: the run is {record.status}, owned by {record.owner}, fence {record.fence}"]
        finally:
            for task in (human, trouble):
                task.cancel()
            for worker in self._workers:
                worker.kill()
        return list(await self._judged())

    async def _ended(self) -> None:
        while not ((record := await self._record()).status.is_settled or record.is_handled):  # noqa: ASYNC110 - as a user
            await asyncio.sleep(5)

    async def _submit(self) -> None:
        """Start the run like a client, and retry until it is accepted."""
        while RUN not in self.database.runs:
            worker = self._start()
            await asyncio.wait(worker.tasks, timeout=self.chance.uniform(0.1, 60))

    def _start(self) -> Worker:
        store = MemoryStateStore(self.database, lease_s=LEASE_S, now=self.loop.time)
        store.owner = f"simulated-{len(self._workers)}-{self.loop.time()}"  # not the id of a real process
        worker = Worker(SlowStore(store, self.chance, self._failures))
        self._workers.append(worker)
        self._stores.append(worker.store)
        token = current_worker.set(worker)
        asyncio.get_running_loop().create_task(self._work(worker))
        current_worker.reset(token)
        return worker

    async def _work(self, worker: Worker) -> None:
        """Act as a process: claim and execute the run until the process dies."""
        runner = Flujo[Any, Any, Any](
            self._tree,
            store=worker.store,
            binding=self._binding,
            clock=SimulatedClock(self.loop, skew_s=self.chance.uniform(-86400, 86400)),
            random=Seeded(self.chance),
            hooks=[self._told],
            recovery=RecoveryPolicy(every_s=5.0, max_recoveries=1000),
            range_length=2,
        )
        try:
            async with runner:
                try:
                    await runner.run_result_async(5, run_id=RUN)
                except FlujoError:
                    pass  # the database was unavailable, or another worker owns the run
                await asyncio.sleep(PATIENCE_S)
        except Crashed:
            pass

    async def _trouble(self) -> None:
        """Kill and freeze workers for a while, replacing each one; then stop."""
        for _ in range(self.chance.randint(0, 6)):
            await asyncio.sleep(self.chance.expovariate(1 / 20))
            if not self._workers:
                continue
            worker = self.chance.choice(self._workers)
            self._cut_off(worker)
            match self.chance.choices(("kill", "freeze", "part"), (6, 2, 2))[0]:
                case "kill":
                    worker.kill()
                    self._workers.remove(worker)
                case "freeze":
                    worker.store.frozen_until = self.loop.time() + self.chance.uniform(1, 4 * LEASE_S)
                case _:
                    self._part(worker, self.chance.uniform(1, 4 * LEASE_S))
            self.faults += 1
            if RUN in self.database.runs and self.chance.random() < 0.8:
                self._start()
        self._failures = 0.0
        for worker in self._workers:
            worker.store.failures = 0.0
        while True:
            await asyncio.sleep(LEASE_S)
            if RUN in self.database.runs and not self._workers:
                self._start()

    def _part(self, worker: Worker, seconds: float) -> None:
        """Disconnect a living worker from its database, for less or more than a lease."""

        def back() -> None:
            self._cut_off(worker)  # nothing that it did meanwhile was written
            worker.store.away = False

        worker.store.away = True
        self.loop.call_later(seconds, back)

    def _cut_off(self, worker: Worker) -> None:
        self.allowed += worker.doing
        worker.doing.clear()

    async def _answer(self) -> None:
        """Act as the human: read the open questions, sometimes late, and answer them."""
        store = MemoryStateStore(self.database, now=self.loop.time)
        while True:
            await asyncio.sleep(self.chance.uniform(1, 90))
            for run_id in list(self.database.runs):  # the run, and the background tasks that it has launched
                for pause in await store.pauses(run_id):
                    if pause.is_open and pause.event_key is not None:
                        await self._tell(store, pause.event_key)
                    elif pause.needs_answer and pause.deadline_at is None:
                        answer = canonical.encode(await self._reply(store, run_id, pause))
                        await store.answer(run_id, StepPath(pause.pause_id), answer)

    async def _tell(self, store: MemoryStateStore, key: str) -> None:
        """Send the event for a key: sometimes one too many, which a later wait takes; a repetition does nothing."""
        for _ in range(self.chance.choice((1, 1, 2))):
            self.told += 1
            payload = canonical.encode(int(key) + 4)
            sent = NewEvent(
                event_id=f"e{self.told}", name="told", payload=payload, actor=Actor("ada", Via.API), key=key
            )
            first, again = await store.send_event(sent), await store.send_event(sent)
            if again.taken != first.taken or not again.is_repeated:
                self.late.append(f"event {sent.event_id} was taken twice")

    async def _reply(self, store: MemoryStateStore, run_id: RunId, pause: Pause) -> Any:
        """Return the next number, or the resolution of a call without a recorded end."""
        intent = in_doubt(pause, await store.intents(run_id))
        if intent is None:
            return answered(pause)
        if not self.calls[intent.key]:
            self.repeated.add(intent.key)
        return looked_up(intent, self._parts, happened=bool(self.calls[intent.key]))

    # Effects of a step ------------------------------------------------------------------------------------

    async def _act(self, name: str, data: int, key: str) -> None:
        worker = current_worker.get()
        assert worker is not None
        if self._is_lost_by(worker, name):
            self.late.append(f"{name} began in a process that had lost the run, or its lease")
        if self._parts[name].kind == "hangs":
            await self._hang(f"{name}:{data}")
        elif self._parts[name].kind == "stubborn":
            await self._resist(f"{name}:{data}")
        else:
            await self._pass(worker)
        if worker.store.dead:
            raise Crashed
        if (
            self._parts[name].kind == "flaky"
            and self.chance.random() < 0.3
            and self._failed[f"{name}:{data}"] < 3
        ):
            self._failed[f"{name}:{data}"] += 1
            raise misbehaviour(self._failed.total())
        # Not by key: a call that was refused is made again with a new one.
        if key and self._clients.random() < 0.2 and self._failed[f"unsent {name}:{data}"] < 3:
            self._failed[f"unsent {name}:{data}"] += 1
            raise unsent(self._failed.total())
        self.effects[name] += 1
        if key:
            self.calls[key] += 1
            if self._clients.random() < 0.2:
                raise lost_reply(self.calls.total())
        worker.doing[name] += 1

    def _is_lost_by(self, worker: Worker, name: str) -> bool:
        """Return whether a worker has none of the runs that may execute this part: the run, or its tasks."""
        is_task = name in self._behind
        return not any(
            stored.record.owner == worker.store.owner
            and (stored.lease_until is None or stored.lease_until > self.loop.time())
            for stored in self.database.runs.values()
            if is_task is (stored.record.parent is not None)
        )

    async def _pass_here(self) -> None:
        worker = current_worker.get()
        assert worker is not None
        await self._pass(worker)

    async def _pass(self, worker: Worker) -> None:
        """Take some time, and wait while the process is frozen."""
        await asyncio.sleep(self.chance.expovariate(1))
        await worker.store.thawed()

    async def _hang(self, call: str) -> None:
        """Do not return the first time; the attempt times out exactly, unless its process dies first."""
        if call in self._hung:
            return
        self._hung.add(call)
        began = self.loop.time()
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            took = self.loop.time() - began
            if took > TIMEOUT_S + 1e-6:
                self.late.append(f"{call} timed out after {took} s, not {TIMEOUT_S} s")

    async def _resist(self, call: str) -> None:
        """Swallow the first cancellation, and fail only some time later."""
        if call in self._hung:
            return
        self._hung.add(call)
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            await asyncio.sleep(self.chance.uniform(0, 2 * TIMEOUT_S))
        raise ConnectionError("too late")

    async def _told(self, event: Any) -> None:
        worker = current_worker.get()
        if worker is None or not isinstance(event, StepEnded) or event.recorded:
            return
        above, _, name = event.path.rpartition("/")
        if name in INSIDE:
            around = (each.partition("[")[0] for each in reversed(above.split("/")))
            name = next(each for each in around if each in self._parts)
        elif name.startswith("tool["):
            name = above.split("/")[-2]
        elif name in self._parts and self._parts[name].kind in (*AROUND, *AGENTS):
            return  # its active parts have ended before
        skipped = isinstance(event.outcome, Success) and event.outcome.skipped
        if worker.doing[name] and not skipped:  # a skipped step acknowledges nothing
            worker.doing[name] -= 1
            if not isinstance(event.outcome, Success):
                self.allowed[name] += 1  # it ran, but could not be recorded

    # Promises ---------------------------------------------------------------------------------------------

    async def _record(self) -> Any:
        """Return the run, or the last one of its chain."""
        return await find_last(MemoryStateStore(self.database, now=self.loop.time), RUN)

    async def _judged(self) -> list[str]:
        wanted = known(self.program, 5)
        record = await self._record()
        wrong = []
        if record.status is not (RunStatus.FAILED if wanted.fails else RunStatus.COMPLETED):
            return [f"the run is {record.status}: {record.error}"]
        if wanted.fails and not record.is_handled:
            wrong.append("`on_failure` has not ended")
        output = None if record.output is None else canonical.decode(record.output)
        if output != (None if wanted.fails else wanted.output):
            wrong.append(f"the output is {output}, but must be {wanted.output}")
        for worker in self._workers:
            self._cut_off(worker)
        for stored in self.database.runs.values():
            if (task := stored.record).parent is not None:
                self.effects[task.parent.path.rpartition("/")[2]] += 1
                if task.status is not RunStatus.COMPLETED:
                    wrong.append(f"the task {task.parent.path} is {task.status}: {task.error!r}")
        for name in {*self.effects, *wanted.effects}:
            most = wanted.effects[name] + self.allowed[name]
            if not wanted.effects[name] <= self.effects[name] <= most:
                wrong.append(
                    f"{name} happened {self.effects[name]} times: {wanted.effects[name]} to {most} may be"
                )
        wrong += [*self.late, *await self._untimely()]
        wrong += [each for store in self._stores for each in store.zombies]
        wrong += [
            f"{key} was called {times} times, and never found missing"
            for key, times in self.calls.items()
            if times > 1 and key not in self.repeated
        ]
        return wrong

    async def _untimely(self) -> list[str]:
        """Return the questions whose deadline was changed, or applied too early."""
        store = MemoryStateStore(self.database, now=self.loop.time)
        pauses = [pause for run_id in self.database.runs for pause in await store.pauses(run_id)]
        lasts_s = {PauseKind.SLEEP: SLEEP_S}
        return [
            f"{pause.pause_id}: asked at {pause.asked_at}, until {pause.deadline_at}, settled at {pause.answered_at}"
            for pause in pauses
            if pause.deadline_at is not None
            and pause.asked_at is not None
            and pause.answered_at is not None
            and (
                pause.deadline_at != pause.asked_at + lasts_s.get(pause.kind, DEADLINE_S)
                or pause.answered_at < pause.deadline_at
            )
        ]

    def _task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> Any:
        task = Numbered(coroutine, number=next(self._numbers), loop=loop, **options)
        worker = current_worker.get()
        if worker is not None:
            worker.tasks[task] = None
            task.add_done_callback(lambda done: worker.tasks.pop(done, None))
            task.add_done_callback(look_at)
        return task


def look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
