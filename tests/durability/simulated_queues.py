"""One simulation of workers that claim runs from a queue with limits and fire a schedule, while they crash and freeze."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

from durability.simulated import LEASE_S, Numbered, Seeded, Worker, current_worker, look_at
from durability.slow_store import Crashed, SlowStore
from flujo.domain import canonical
from flujo.domain.cron import newest_times
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import ClaimOrder, Queued, QueueLimits, Rate
from flujo.domain.run import NewRun, RunStatus
from flujo.domain.schedule_records import ScheduleChange
from flujo.domain.schedules import Schedule, run_id_of
from flujo.domain.steps import CallableRef, Step, StepConfig
from flujo.engine.answer_cache import AnswerCache
from flujo.exceptions import FlujoError
from flujo.services.checks.pipeline_checks import check_pipeline
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.queue_consumer import QueueConsumer
from flujo.services.runs.recovery import Recovery
from flujo.services.runs.run_services import RunServices
from flujo.services.runs.schedule_definitions import Defined
from flujo.services.runs.schedules import Scheduler
from flujo.services.workspace import Workspace
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.simulation import SimulatedClock, SimulatedLoop, simulate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from flujo.domain.run import RunRecord
    from flujo.domain.schedules import Overlap
    from flujo.services.runs.execution import Stop

QUEUE = "jobs"
LIMITS = QueueLimits(concurrency=3, rate=Rate(8, 60.0), one_per_key=True)
AT_ONCE = 2
PATIENCE_S = 2 * 3600.0
JOBS = 12
KEYS = 4
FIRST = 1_800_000_000.0
"""The first time of the schedule, a whole minute: the simulated database's clock starts a moment before it."""


class _Store(MemoryStateStore):
    """A store that reports each claim from a queue."""

    def __init__(self, database: MemoryDatabase, *, now: Callable[[], float], claimed: Any) -> None:
        super().__init__(database, lease_s=LEASE_S, now=now)
        self._report = claimed

    async def claim_next(self, order: ClaimOrder) -> list[RunRecord]:
        found = await super().claim_next(order)
        self._report(found)
        return found


class _Home(Workspace):
    """A project without files, in front of the simulated database."""

    def __init__(self, folder: Path, store: Any) -> None:
        super().__init__(find_project(folder))
        self._slow = store

    async def store(self) -> Any:
        return self._slow


class QueueSimulation:
    """Jobs in a queue and a schedule that fires every minute, executed by workers that crash.

    Args:
        seed: decides everything.
        folder: an empty folder.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.loop = SimulatedLoop(seed)
        self.chance = self.loop.chance
        self.database = MemoryDatabase()
        self.effects: Counter[str] = Counter()
        self.faults = 0
        self.wrong: list[str] = []
        self.starts: list[float] = []
        """When runs were claimed from the queue."""
        self._folder = folder
        self._workers: list[Worker] = []
        self._numbers = count()
        self._failures = self.chance.choice([0.0, 0.0, 0.01, 0.05])
        self._overlap: Overlap = self.chance.choice(["allow", "queue", "skip"])
        self._clocks: list[SimulatedClock] = []
        queue = self.chance.choice([QUEUE, None])
        schedule = Schedule(
            cron="* * * * *",
            name="minutely",
            catch_up="last" if self._overlap == "skip" else "all",
            overlap=self._overlap,
            input=0,
            queue=queue,
        )
        self._job = self._pipeline("job")
        self._scheduled = self._pipeline("minutely", schedules=(schedule,))
        self._defined = Defined(
            schedule=schedule,
            place="here",
            pipeline=self._scheduled,
            blueprint=None,
            registered=None,
            project="",
        )
        self.loop.set_task_factory(self._task)  # type: ignore[arg-type]  # a method with fewer options

    def run(self) -> list[str]:
        """Return the violations; empty when every promise was kept."""
        return simulate(0, self._all(), loop=self.loop)

    def _now(self) -> float:
        return FIRST - 30 + self.loop.time()

    def _pipeline(self, name: str, **more: Any) -> Pipeline:
        async def work(data: int) -> int:
            worker = current_worker.get()
            assert worker is not None
            await asyncio.sleep(min(self.chance.expovariate(1 / 4), LEASE_S / 2))
            await worker.store.thawed()
            if worker.store.dead:
                raise Crashed
            self.effects[name] += 1
            return data + 1

        steps = tuple(
            Step(each, CallableRef(f"simulated:{name}.{each}", work), config=StepConfig(timeout_s=600))
            for each in ("one", "two")
        )
        return Pipeline(steps, name=name, **more)

    # Events -----------------------------------------------------------------------------------------------

    async def _all(self) -> list[str]:
        schedule = self._defined
        first = replace(schedule.record(), next_at=FIRST)
        clean = MemoryStateStore(self.database, lease_s=LEASE_S, now=self._now)
        await clean.change_schedule(ScheduleChange(before=None, after=first))
        others = [asyncio.create_task(each) for each in (self._submit(clean), self._trouble())]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*others)
                decided = await self._caught_up(clean)
                while open_ := self._open(decided):  # noqa: ASYNC110 - it observes from outside, like a user
                    await asyncio.sleep(5)
        except TimeoutError:
            self.wrong.append(f"stuck: {self._open(FIRST + PATIENCE_S)}")
            return self.wrong
        finally:
            for worker in self._workers:
                worker.kill()
        del open_
        return [*self.wrong, *await self._judged(clean, decided)]

    async def _submit(self, store: MemoryStateStore) -> None:
        """Put jobs into the queue, as a client with a database of its own."""
        services = self._services(_Home(self._folder, store), store)
        made = services.of_pipeline(self._job, output=check_pipeline(self._job))
        for number in range(JOBS):
            await asyncio.sleep(self.chance.expovariate(1 / 8))
            place = Queued(
                queue=QUEUE,
                key=f"k{self.chance.randrange(KEYS)}",
                priority=self.chance.randrange(3),
                delay_s=self.chance.choice([0.0, 0.0, 20.0]),
            )
            run = NewRun(
                run_id=RunId(f"job-{number}"),
                pipeline=self._job.name,
                closure=made.closure,
                input=canonical.encode(number),
                context=b"{}",
                queued=place,
            )
            await store.accept(run, made.blobs, claim=False)

    async def _caught_up(self, store: MemoryStateStore) -> float:
        """Return the first time that is not decided, once the schedule is not late any more."""
        while True:
            found = await store.schedules()
            next_at = found.records[0].next_at
            assert next_at is not None
            if next_at > found.now:
                return next_at
            await asyncio.sleep(5)

    def _open(self, decided: float) -> list[str]:
        """Return the jobs, and the runs of times before `decided`, that have not completed."""
        last = run_id_of("minutely", decided)
        return [
            f"{run_id} is {each.record.status}, fence {each.record.fence}"
            for run_id, each in self.database.runs.items()
            if each.record.status is not RunStatus.COMPLETED and (run_id.startswith("job") or run_id < last)
        ]

    def _services(self, home: Workspace, store: Any) -> RunServices:
        clock = SimulatedClock(self.loop, skew_s=self.chance.uniform(-86400, 86400))
        self._clocks.append(clock)
        return RunServices(
            workspace=home,
            store=store,
            clock=clock,
            random=Seeded(self.chance),
            resources=None,
            cache=AnswerCache(MemoryCache()),
            providers={},
            limits=None,
        )

    def _start(self) -> None:
        store = _Store(self.database, now=self._now, claimed=self._claimed)
        store.owner = f"simulated-{len(self._clocks)}-{self.loop.time()}"  # not the id of a real process
        worker = Worker(SlowStore(store, self.chance, self._failures))
        self._workers.append(worker)
        token = current_worker.set(worker)
        asyncio.get_running_loop().create_task(self._work(worker.store))
        current_worker.reset(token)

    async def _work(self, store: Any) -> None:
        """Act as `flujo worker` until the process dies."""
        home = _Home(self._folder, store)
        services = self._services(home, store)
        for pipeline in (self._job, self._scheduled):
            services.of_pipeline(pipeline, output=check_pipeline(pipeline))

        async def opened() -> Any:
            return store

        async def here() -> RunServices:
            return services

        async def prepare(record: RunRecord) -> Callable[[Stop], Awaitable[None]]:
            service = await services.of_run(record)

            async def execute(stop: Stop) -> None:
                await service.execute(record, max_recoveries=1000, sink=None, stop=stop)

            return execute

        async def take_over(run_id: RunId, stop: Stop) -> None:
            service = await services.of_run(await store.run(run_id))
            await service.recover(run_id, max_recoveries=1000, sink=None, stop=stop)

        scheduler = Scheduler(home, here, lambda *_: None, every_s=5.0)
        scheduler._defined = {self._defined.name: self._defined}  # its files are read, and this has none
        consumer = QueueConsumer(
            opened,
            ClaimOrder(queues=((QUEUE, LIMITS),), limit=1),
            at_once=AT_ONCE,
            retries={},
            prepare=prepare,
            tell=lambda *_: None,
        )
        policy = RecoveryPolicy(every_s=5.0, max_recoveries=1000)
        recovery = Recovery(opened, policy, take_over, duties=[scheduler], tell=lambda *_: None)
        try:
            await asyncio.gather(recovery.watch(), consumer.consume())
        except (Crashed, FlujoError):
            pass

    async def _trouble(self) -> None:
        """Start workers, and kill, freeze and disconnect them for some minutes; then leave three in peace."""
        until = self.loop.time() + self.chance.uniform(120, 600)
        while self.loop.time() < until:
            if len(self._workers) < 3:
                self._start()
            await asyncio.sleep(self.chance.expovariate(1 / 20))
            worker = self.chance.choice(self._workers)
            match self.chance.choices(("kill", "freeze", "part", "jump", "nobody"), (6, 2, 2, 2, 1))[0]:
                case "kill":
                    self._kill(worker)
                case "freeze":
                    worker.store.frozen_until = self.loop.time() + self.chance.uniform(1, 4 * LEASE_S)
                case "part":
                    worker.store.away = True
                    self.loop.call_later(self.chance.uniform(1, 4 * LEASE_S), self._connect, worker.store)
                case "jump":
                    self.chance.choice(self._clocks)._skew_s += self.chance.uniform(-7200, 7200)
                case _:
                    for each in list(self._workers):
                        self._kill(each)
                    await asyncio.sleep(self.chance.uniform(60, 300))
            self.faults += 1
        self._failures = 0.0
        for worker in self._workers:
            worker.store.failures = 0.0
        while len(self._workers) < 3:
            self._start()

    def _kill(self, worker: Worker) -> None:
        worker.kill()
        self._workers.remove(worker)

    @staticmethod
    def _connect(store: SlowStore) -> None:
        store.away = False

    # Promises ---------------------------------------------------------------------------------------------

    def _claimed(self, found: list[RunRecord]) -> None:
        """Check the limits of the queue after a claim."""
        if not found:
            return
        now = self._now()
        held = [
            each.record
            for each in self.database.runs.values()
            if each.record.status is RunStatus.RUNNING
            and each.record.queued is not None
            and each.record.owner is not None
            and (each.lease_until or 0.0) > now
        ]
        if len(held) > (LIMITS.concurrency or 0):
            self.wrong.append(f"{len(held)} runs are executed at once: {[each.run_id for each in held]}")
        keys = Counter(each.queued.key for each in held if each.queued is not None and each.queued.key)
        self.wrong += [f"{times} runs of key {key} at once" for key, times in keys.items() if times > 1]
        self.starts += [now] * len(found)
        rate = LIMITS.rate
        assert rate is not None
        recent = sum(at > now - rate.per_s for at in self.starts)
        if recent > rate.count:
            self.wrong.append(f"{recent} runs were started within {rate.per_s:g} s")
        early = [each.run_id for each in found if each.queued and (each.queued.available_at or 0.0) > now]
        if early:
            self.wrong.append(f"{early} were claimed before their time")

    async def _judged(self, store: MemoryStateStore, decided: float) -> list[str]:
        wrong = []
        runs = {run_id: each.record for run_id, each in self.database.runs.items()}
        for run_id, record in runs.items():
            if record.status is not RunStatus.COMPLETED:
                continue  # of a time after `decided`
            entries = await store.entries(run_id)
            done = Counter(entry.path for entry in entries if entry.kind is EntryKind.WORK)
            if done != {"one": 1, "two": 1}:
                wrong.append(f"{run_id} has recorded {dict(done)}")
        if missing := [f"job-{number}" for number in range(JOBS) if f"job-{number}" not in runs]:
            wrong.append(f"{missing} are lost")
        times = newest_times("* * * * *", "UTC", FIRST, decided - 1, 10_000)
        expected = {run_id_of("minutely", time) for time in times}
        last = run_id_of("minutely", decided)
        fired = Counter(
            run_id[: len(last)]
            for run_id in runs
            if run_id.startswith("minutely") and run_id[: len(last)] < last
        )
        wrong += [f"{run_id} was fired {times} times" for run_id, times in fired.items() if times > 1]
        if fired.keys() - expected:
            wrong.append(f"{sorted(fired.keys() - expected)} are of no time of the schedule")
        if self._overlap != "skip" and expected - fired.keys():
            wrong.append(f"{sorted(expected - fired.keys())} were never fired")
        if not fired:
            wrong.append("no time was fired")
        if self._overlap != "allow":
            of_schedule = [runs[run_id] for run_id in sorted(runs) if run_id[: len(last)] in fired]
            wrong += [
                f"{after.run_id} was accepted before {before.run_id} had ended"
                for before, after in pairwise(of_schedule)
                if after.created_at < before.updated_at
            ]
        return wrong

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
