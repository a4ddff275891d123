"""`executor: queue`: the items of a map are executed by workers of a queue, in batches.

Each batch of consecutive items is a run of its own, which executes the same map over its items only. The run
of the map launches the batches and waits for them; meanwhile it holds no process. The commit that ends a
batch settles the wait for it, and any process continues the run.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.journal import Entry, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.outcomes import Failure, Paused
from flujo.domain.paths import ROOT, StepPath, bounds, child, ranged
from flujo.domain.queues import DEFAULT_QUEUE, RunKind
from flujo.domain.run import ENDS_OF_TASKS, Pause, PauseKind, RunRecord, RunStatus
from flujo.engine import background
from flujo.engine.decisions import Stream, decision, items_of
from flujo.engine.journal import encoded
from flujo.engine.known_batches import KnownBatches
from flujo.engine.ranges import Kept
from flujo.exceptions import JournalConflict, StepFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from flujo.domain.steps import BaseStep
    from flujo.domain.values import Logic
    from flujo.engine.frame import Frame
    from flujo.engine.ranges import Keeping

MAX_LAUNCHES = 50
"""How many batches are launched in one commit."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Consecutive items of the map."""

    first: int
    count: int
    items: list[Any] | None
    """None when `over` is not evaluated again: an iterator that has ended before."""

    @property
    def last(self) -> int:
        """The number of the last item."""
        return self.first + self.count - 1


class _Batches:
    """The batches of one map in one execution of its run."""

    def __init__(self, step: BaseStep, over: Logic, keeping: Keeping, frame: Frame, path: StepPath) -> None:
        self._step = step
        self._over = over
        self._keeping = keeping
        self._frame = frame
        self._path = path
        self._known = KnownBatches()
        self._whole: Sequence[Entry] | None = None
        """All entries about the batches, if all were read."""
        self._appended: list[Entry] = []
        """The ends of batches that this execution has appended."""
        self._is_streamed = False
        """Whether `over` is an iterator, which yields all items again."""
        self._context = b""
        self._fresh = 0
        """How many launches wait for a commit."""

    async def load(self) -> None:
        """Read the launches and ends that this process does not know."""
        run = self._frame.run
        known = run.known_maps.take(run.id, self._path)
        if known is not None and known.newest is not None:
            # With the newest known one: another run may have got the id since, after a purge.
            found = await run.journal.ranges(self._path, after=known.newest.seq - 1)
            if found and found[0] == known.newest:
                known.learn(found[1:])
                self._known = known
                return
        self._whole = await run.journal.ranges(self._path)
        self._known.learn(self._whole)

    def keep(self) -> None:
        """Let the next execution of the run in this process know what was read."""
        self._frame.run.known_maps.keep(self._frame.run.id, self._path, self._known)

    # Which there are ----------------------------------------------------------------------------------------

    async def each(self) -> AsyncGenerator[_Batch, None]:
        """Yield the batches to look at in the order of the items.

        They are those that were launched and are not settled, and then those that may be launched.
        """
        what = f"`over` of map {self._step.name!r}"
        items = await items_of(self._over, self._frame, self._path, what)
        self._is_streamed = isinstance(items, Stream)
        if isinstance(items, Stream):
            async with aclosing(self._streamed(items)) as batches:
                async for batch in batches:
                    yield batch
            return
        total, size = items if isinstance(items, int) else len(items), self._step.config.batch_size or 1
        fresh = range(self._known.following, total, size)
        counts = [(first, self._size(first)) for first in self._known.places]
        counts += [(first, min(size, total - first)) for first in fresh]
        for first, count in counts:
            part = None if isinstance(items, int) else items[first : first + count]
            yield _Batch(first, count, part)

    async def _streamed(self, items: Stream) -> AsyncGenerator[_Batch, None]:
        """Yield the batches of an iterator, which is read one batch at a time."""
        frame = self._frame
        async with aclosing(items) as stream:
            first = await stream.skip(self._known.passed)
            while taken := await stream.exactly(self._size(first)):
                part = canonical.normalise(taken, what=f"`{items.rule.target}`")
                yield _Batch(first, len(part), part)
                first += len(part)
        if first < (least := self._known.following):
            how = f"{first} items, and at least {least} before this run was resumed"
            self._differs(how, self._path, recorded=least, now=first)
        frame.run.journal.append_deferred(decision(frame, self._path, 1, first))

    def _size(self, first: int) -> int:
        """Return the size of the batch that begins with `first`: as it was launched, whatever is set now."""
        entry = self._known.launched.get(first) or self._known.ended.get(first)
        begins, ends = (entry and bounds(entry.path)) or (1, self._step.config.batch_size or 1)
        return ends - begins + 1

    # What becomes of one ------------------------------------------------------------------------------------

    def place(self, batch: _Batch) -> StepPath:
        """Return the path of a batch."""
        return ranged(self._path, batch.first, batch.last)

    def is_launched(self, batch: _Batch) -> bool:
        """Return whether a batch is launched; otherwise its launch may follow."""
        return batch.first < self._known.following

    def has_room(self) -> bool:
        """Return whether the budget of the run has room for one more batch."""
        budget, most = self._frame.budget, self._step.config.budget
        return budget is None or most is None or budget.has_room(most.most)

    async def launch(self, batch: _Batch) -> Pause:
        """Launch a batch, and return the wait for it; both are committed together, or by the next `flush`.

        Raises:
            UsageLimitExceeded: the budget of the run has no room for it.
        """
        step, frame, run, here = self._step, self._frame, self._frame.run, self.place(batch)
        if run.launches is None:
            raise StepFailed(f"map {step.name!r} cannot launch its batches here", hint="remove `executor`")
        await run.journal.require_lease()
        self._context = self._context or encoded(frame.scope.tree, "context")
        given = background.scope_of(background.batch_step(step), frame, narrow=True)
        given |= {"previous": batch.items, "first": batch.first}
        lent = await background.lent(step, frame, here)
        place = run.launches.place
        queue, items = step.config.queue or DEFAULT_QUEUE, encoded(batch.items, f"items of map {step.name!r}")
        launched = run.launches.child(
            run.id,
            here,
            recorded=run.journal.stored_path(here),
            given=encoded(given, f"what map {step.name!r} reads"),
            context=self._context,
            queued=None if place is None else place(queue, step.config.priority, items),
            lent=lent,
            kind=RunKind.ITEM,
        )
        run.journal.launch(launched)
        now, output = run.clock.now(), canonical.encode({"task_id": launched.run.run_id})
        run.journal.append_deferred(
            Entry(
                path=here,
                kind=EntryKind.WORK,
                fingerprint=step.kind,
                input=canonical.encode({"items": canonical.digest(items)}),
                output=output,
                started_at=now,
                ended_at=now,
            )
        )
        self._fresh += 1
        if self._fresh % MAX_LAUNCHES == 0:
            await run.journal.flush()
        return self._wait(batch, launched.run.run_id)

    async def standing(self, batch: _Batch) -> Pause | Failure | None:
        """Return the wait for a launched batch, or its failure; None when it has completed.

        Raises:
            JournalConflict: `over` gives other items than when the batch was launched.
        """
        journal, here = self._frame.run.journal, self.place(batch)
        self._compare(batch, here)
        ended = self._known.ended.get(batch.first)
        if ended is not None and ended.status is EntryStatus.COMPLETED:
            self._settle(batch)
            return None
        if ended is not None and (ended.seq > self._frame.since or self._frame.run.recorded is not None):
            return Failure(_error(ended))
        wait = journal.pause(here)
        if wait is not None and wait.is_open:
            return wait
        run_id = canonical.decode(self._known.launched[batch.first].output or b"null")["task_id"]
        if self._frame.run.recorded is not None:
            return self._wait(batch, run_id)
        task = await journal.task(run_id)
        if task.status not in ENDS_OF_TASKS:
            return self._wait(batch, run_id)
        return self._end(batch, here, task)

    def _settle(self, batch: _Batch) -> None:
        """Do not look at a batch again, whose items were compared and which has completed."""
        if self._is_streamed:
            if batch.first != self._known.passed:
                return  # its size is needed to find the batch behind it
            self._known.passed += batch.count
        self._known.settle(batch.first)

    def _compare(self, batch: _Batch, here: StepPath) -> None:
        launched = self._known.launched.get(batch.first)
        if batch.items is None or launched is None or launched.input is None:
            return
        now = canonical.encode({"items": canonical.digest(canonical.encode(batch.items))})
        if now != launched.input:
            how = (
                f"other items than before this run was resumed, among the items {batch.first} to {batch.last}"
            )
            self._differs(how, here, recorded=canonical.decode(launched.input), now=canonical.decode(now))

    def _differs(self, how: str, where: StepPath, **facts: Any) -> None:
        conflict = JournalConflict(
            f"`over` of map {self._step.name!r} gives {how}",
            hint="make it give the same items in the same order each time, or start a new run",
            path=where,
            **facts,
        )
        self._frame.run.journal.differs(conflict)

    def _end(self, batch: _Batch, here: StepPath, task: RunRecord) -> Failure | None:
        """Record how the run of a batch has ended."""
        run, before = self._frame.run, self._known.ended.get(batch.first)
        now = run.clock.now()
        entry = Entry(
            path=here,
            kind=EntryKind.DONE,
            attempt=1 if before is None else before.attempt + 1,
            fingerprint=self._step.kind,
            started_at=now,
            ended_at=now,
        )
        if task.status is not RunStatus.COMPLETED:
            error = self._failure(batch, task)
            failed = replace(entry, status=EntryStatus.FAILED, error=canonical.encode(error.to_json()))
            run.journal.append_deferred(failed)
            return Failure(error)
        given = task.output or b"{}"
        result = canonical.decode(given)
        detail = {name: result[name] for name in ("failed", "keeps", "items", "patches") if name in result}
        detail |= {"run": task.run_id, "digest": canonical.digest(given)}
        entry = replace(entry, output=canonical.encode(result["output"]), detail=canonical.encode(detail))
        self._appended.append(run.journal.append_deferred(entry))
        return None

    def _failure(self, batch: _Batch, task: RunRecord) -> ErrorInfo:
        """Return the error of a batch as that of its run, which has the path of the item."""
        error = ErrorInfo.from_json(canonical.decode(task.error or b"{}"))
        own = child(ROOT, self._step.name)
        path = self._path + error.path.removeprefix(own) if error.path.startswith(own) else self._path
        retry = command("flujo", "tasks", "retry", task.run_id)
        items = f"items {batch.first} to {batch.last}"
        return replace(
            error,
            message=f"{items} (run {task.run_id}, {task.status}): {error.message}",
            hint=f"`{retry}` continues these items, then `flujo resume RUN --retry-failed` the run",
            path=path,
            retryable=False,
            frame=None,
            traceback=None,
        )

    def _wait(self, batch: _Batch, run_id: str) -> Pause:
        return Pause(
            pause_id=self.place(batch),
            message=f"waits for items {batch.first} to {batch.last} of {self._path}",
            answer_schema=canonical.encode({"tasks": [run_id]}),
            kind=PauseKind.CHILDREN,
        )

    def ask(self, waits: Sequence[Pause]) -> Paused:
        """Return the waits, and open those that are not open yet."""
        journal = self._frame.run.journal
        known = [journal.pause(wait.pause_id) for wait in waits]
        return Paused(
            tuple(
                there if there is not None and there.is_open else journal.ask(wait)
                for wait, there in zip(waits, known, strict=True)
            )
        )

    async def kept(self) -> Kept:
        """Return what the map keeps of its items; all batches have completed.

        Raises:
            JournalConflict: one was executed under other settings of the map.
        """
        whole = self._whole
        if whole is None:
            whole = await self._frame.run.journal.ranges(self._path)
        ends = {bounds(each.path): each for each in [*whole, *self._appended] if each.kind is EntryKind.DONE}
        every = Kept()
        for place in sorted(place for place in ends if place is not None):
            every.add(self._kept_of(ends[place]))
        return every

    def _kept_of(self, entry: Entry) -> Kept:
        """Return what the map keeps of the items of an ended batch.

        Raises:
            JournalConflict: it was executed under other settings of the map.
        """
        detail = canonical.decode(entry.detail or b"{}")
        if detail.get("keeps") != self._keeping.to_json():
            raise JournalConflict(
                f"a batch of map {self._step.name!r} was executed with another `keep`, `on_error` or `merge`",
                hint="restore the settings of the map, or start a new run",
                path=entry.path,
            )
        patches = sorted(detail.get("patches", {}).items(), key=lambda pair: int(pair[0]))
        return Kept(detail["failed"], canonical.decode(entry.output or b"[]"), dict(patches))


def _error(entry: Entry) -> ErrorInfo:
    return ErrorInfo.from_json(canonical.decode(entry.error or b"{}"))


async def spread(
    step: BaseStep, over: Logic, keeping: Keeping, frame: Frame, path: StepPath, *, limit: int
) -> Kept | Paused | Failure:
    """Return what the map keeps of all its items once their batches have ended; until then, the waits.

    At most `limit` batches are under way. After a failed batch no further one is launched, and
    those under way continue.

    Raises:
        ExpressionFailed: `over` is not a list.
        JournalConflict: `over` gives other items than before the run was resumed.
        UsageLimitExceeded: the budget of the run has no room for any batch.
    """
    journal = frame.run.journal
    await journal.flush()  # the launches of an earlier attempt may wait for a commit
    batches = _Batches(step, over, keeping, frame, path)
    await batches.load()
    waits: list[Pause] = []
    async with aclosing(batches.each()) as given:
        async for batch in given:
            if batches.is_launched(batch):
                found = await batches.standing(batch)
            elif waits and not batches.has_room():
                break  # the end of a batch makes room
            else:
                found = await batches.launch(batch)
            if isinstance(found, Failure):
                journal.void(waits)
                return found
            if found is not None:
                waits.append(found)
            if len(waits) >= limit:
                break
    if not waits:
        return await batches.kept()
    batches.keep()
    return batches.ask(waits)
