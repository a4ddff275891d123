"""Executes a run under one claim, and records the status in which it ends."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from flujo.domain import canonical, chains
from flujo.domain.current_step import CURRENT_STEP, CurrentStep
from flujo.domain.events import RunEnded, RunStarted, StepEnded
from flujo.domain.fast_dataclass import record
from flujo.domain.ledger import Ledger
from flujo.domain.models import PipelineResult, StepResult
from flujo.domain.outcomes import Aborted, BackgroundLaunched, BegunAgain, Ended, Failure, Paused, Success
from flujo.domain.paths import ROOT, shown
from flujo.domain.providers import SHARED_REQUESTS
from flujo.domain.queues import Queued
from flujo.domain.run import (
    AT_A_PAUSE,
    UNRESOLVED,
    Child,
    Intent,
    Move,
    NewRun,
    Progress,
    RunRecord,
    RunStatus,
    Write,
    pinned_stubs,
)
from flujo.domain.shared_budgets import BudgetRule, Facts
from flujo.domain.step_results import at_a_pause, step_facts
from flujo.domain.tool_policy import EVERY_TOOL, TOOL_POLICY, ToolPolicy
from flujo.domain.usage import NOTHING, Usage, UsageLimits
from flujo.engine.budget import Budget, unconfirmed
from flujo.engine.endings import begins_with_finally
from flujo.engine.foreign_code import Wish
from flujo.engine.frame import RANGE_LENGTH, Cancelled, Plans, Run
from flujo.engine.interpreter import execute
from flujo.engine.journal import Journal
from flujo.engine.known_batches import KnownMaps
from flujo.exceptions import ChangesRefused, Fenced, JournalConflict, StateError, StepFailed
from flujo.governance.events import of_run, read_error
from flujo.services.checks.pseudonyms import pseudonyms_of
from flujo.services.recorded.recorded_binding import SilentBinding
from flujo.services.recorded.replay import Replayed, context_so_far
from flujo.services.runs.applied_migrations import applied_migrations
from flujo.services.runs.feed_writer import RunFeed
from flujo.services.runs.life_limits import left_s, life_of, too_late
from flujo.services.runs.notices import SILENT
from flujo.services.runs.raised_budgets import of_acts
from flujo.services.runs.run_log import observer_of
from flujo.services.runs.run_request import is_stubbed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from flujo.domain.acts import Act
    from flujo.domain.journal import ErrorInfo, RunId, Transcripts
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.personal_data import Pii
    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.domain.ports import Binding, Clock, ContextType, Locate, Observer, Random, Sink
    from flujo.domain.run import Launches, Pause
    from flujo.domain.store import JournalSource, StateStore
    from flujo.engine.answer_cache import AnswerCache
    from flujo.services.runs.notices import Notifier
    from flujo.services.scoring.shadow import Scoring, Shadow
    from flujo.telemetry.telemetry import Telemetry


T = TypeVar("T")


def unchanged(output: Any) -> Any:
    """Return the output as it is; for pipelines whose output has no annotation."""
    return output


class StopReason(Enum):
    """Why an execution is stopped before the run's end; it decides who may continue the run."""

    INTERRUPT = RunStatus.INTERRUPTED
    """A person or the program stops this run: only a resume continues it."""
    SHUTDOWN = RunStatus.RUNNING
    """The process ends, or the caller is gone: the run keeps its status without an owner, and any process may
    take it over."""


@dataclass(slots=True)
class Stop:
    """Why the task of an execution is cancelled; set before the cancellation.

    A cancellation without a reason comes from a server that stops or a client that disconnected.
    """

    reason: StopReason = StopReason.SHUTDOWN


class _Walk:
    """The task that executes the steps of a run; a cancellation of the run cancels it."""

    __slots__ = ("_alarm", "_is_over", "_task", "_wish", "ended", "feed", "is_announced", "is_late")

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self.ended: Sequence[StepEnded] = ()
        """The steps that ended in this execution, in order."""
        self.is_late = False
        """Whether the deadline of the run has passed, which is why it is cancelled."""
        self.is_announced = False
        """Whether the watchers of the run know that this execution has begun."""
        self.feed: RunFeed | None = None
        """Writes the feed of the run while it is followed."""
        self._alarm: asyncio.TimerHandle | None = None
        self._is_over = False
        self._task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Cancel the run, unless it has come to its end."""
        if not (self._is_over or self._wish.is_past):
            self._wish.is_requested = True
            if self._task is not None:
                self._task.cancel()

    def expire_in(self, seconds: float) -> None:
        """Cancel the run after this time, its deadline, unless it is cancelled before."""
        if seconds < math.inf:
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.is_late = not (self._is_over or self._wish.is_requested or self._wish.is_past)
        self.cancel()

    def end(self) -> None:
        """Ignore later requests: the run has come to its end."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self.feed is not None:
            self.feed.end()
        self._is_over = True

    def begin(self, steps: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Execute the steps; cancelling a task that awaits the result cancels them."""
        self._task = task = asyncio.create_task(steps, name=name)
        return task


class Tasks(Protocol):
    """Executes background tasks in this process."""

    def begin(self, task_id: RunId, parent: RunId, queue: str | None) -> None:
        """Execute a task that this process has launched, unless it is in a queue, whose workers do."""
        ...

    async def adopt(self, parent: RunId) -> None:
        """Resume the tasks of a run that no process executes."""
        ...

    def executing(self, parent: RunId) -> list[asyncio.Task[None]]:
        """Return the asyncio tasks of this loop that execute tasks of a run."""
        ...


@record(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The services and settings that all runs of one pipeline share."""

    pipeline: Pipeline
    binding: Binding
    store: StateStore
    clock: Clock
    random: Random
    closure: str = ""
    """The digest of what its runs pin; forks whose effects are stubbed pin that of `pinned_stubs`."""
    resources: Any = None
    cache: AnswerCache | None = None
    limits: UsageLimits | None = None
    """The most that a run may use, its pipeline's own budget included; None for no limit."""
    rules: Sequence[BudgetRule] = ()
    """The budgets that several runs share; each counts the runs that it matches."""
    tools: ToolPolicy = EVERY_TOOL
    """The tools that may be called."""
    pii: Pii | None = None
    """`tokenise` where the project tokenises requests to models."""
    load_output: Callable[[Any], Any] = unchanged
    """Converts the output of a completed run to the annotated return type of its last callable."""
    range_length: int = RANGE_LENGTH
    """How many items of a map share an entry once they have ended."""
    known_maps: KnownMaps = field(default_factory=KnownMaps)
    """What this process knows about the batches of maps over workers."""
    plans: Plans = field(default_factory=Plans)
    is_durable: bool = True
    """Whether the store outlives the process."""
    transcripts: Transcripts = "full"
    """The transcripts of attempts that are kept."""
    locate: Locate | None = None
    """Finds the code of the user in errors; None records no places in code."""
    notifier: Notifier = SILENT
    """Adds the messages about its runs to their moves."""
    shadow: Shadow | None = None
    """Chooses the outputs of its runs that are scored; None when none are."""
    scoring: Scoring | None = None
    """Of runs that evaluate: adds their score to the move that ends them."""
    launches: Launches | None = None
    """What the background tasks of its runs have in common; None when no step runs in the background."""
    tasks: Tasks | None = None
    """Executes the background tasks that its runs launch."""
    owner: Pipeline | None = None
    """Of a background task, the pipeline whose context it has a copy of."""
    telemetry: Telemetry | None = None

    @property
    def context(self) -> ContextType:
        """The context handling of its runs."""
        return self.binding.context(self.owner or self.pipeline)

    def life_of(self, data: Any) -> float | None:
        """Return how long a run with this input may last; see `life_limits.life_of`."""
        return life_of(self.pipeline, self.binding, data)

    def announced(self, record: RunRecord, move: Move, used: Usage, pauses: Sequence[Pause] = ()) -> Move:
        """Return a move of one of its runs with the messages about it, and with the score that it ends with.

        Args:
            record: the run.
            move: the move.
            used: what the run has used.
            pauses: what the run waits for afterwards.
        """
        move = self.notifier.announced(record, move, pauses)
        return move if self.scoring is None else self.scoring.scored(record, move, used)


class Executed(NamedTuple):
    """How an execution of a run ended."""

    result: PipelineResult[Any, Any]
    answered: bool = False
    """Whether the run paused although one of its questions was answered meanwhile."""
    acts: Sequence[Act] = ()
    """Those that its execution began with; see `Progress.acts`."""


@record(frozen=True, slots=True)
class Execution:
    """Executes claimed runs, and records how each execution ends."""

    runtime: Runtime
    sink: Sink | None = None
    retry_failed: bool = False
    accept_changes: bool = False
    """Whether a conversation continues with an agent that has changed."""
    longest_wait_s: float = 0
    """A wait of at most this length is waited for here; after a longer one any process continues the run."""
    stop: Stop = field(default_factory=Stop)
    wish: Wish = field(default_factory=Wish)

    # Not `async`, because it only calls another coroutine: each of 10,000 waiting runs would hold one more.

    def run(self, record: RunRecord, start: Progress | None = None) -> Awaitable[Executed]:
        """Execute the claimed run until it completes, fails or pauses, and record its status.

        Args:
            record: the run, as its claim has returned it.
            start: its progress, when it is known.

        After a cancellation the run can be resumed; `stop` decides who may resume it.

        Raises:
            StateError: the journal could not be read or written; the run can be resumed.
        """
        store = self.runtime.store
        left = left_s(record)
        telemetry = self.runtime.telemetry
        traced = None if telemetry is None else telemetry.observe(record, self.runtime.clock)
        observer = observer_of(record, traced)
        if record.wish is not None:
            return self._cancel(record, None, observer)
        if left <= 0:
            return self._end_early(record, None, observer, is_late=True)
        walk = _Walk(self.wish)
        walk.expire_in(left)
        store.on_wish(record.run_id, walk.cancel)
        return self._watched(record, walk, observer, start)

    async def _watched(
        self,
        record: RunRecord,
        walk: _Walk,
        observer: Observer | None,
        start: Progress | None,
        cancelled: Cancelled | None = None,
    ) -> Executed:
        """Execute the steps of a run, or only its `finally` if it is cancelled; record how that ends."""
        journal: Journal | None = None
        store = self.runtime.store
        try:
            if start is None:
                start = Progress() if record.is_new else await store.progress(record.run_id)
            tasks = self.runtime.tasks
            begin = None if tasks is None else tasks.begin
            migrations = await applied_migrations(store, record, self.runtime.pipeline, self.runtime.binding)
            journal = Journal(
                store,
                record,
                start,
                is_durable=self.runtime.is_durable,
                is_stubbed=is_stubbed(record, self.runtime.closure),
                begin=begin,
                locate=self.runtime.locate,
                observer=observer,
                migrations=migrations,
            )
            steps = self._walk(record, journal, walk, observer, start, cancelled)
            return await walk.begin(steps, name=record.run_id)
        except asyncio.CancelledError as error:
            walk.end()
            if self.wish.is_of_the_caller:
                await self._stop(record, journal, self.stop.reason.value)
                raise
            if walk.is_late:
                return await self._end_early(record, journal, observer, walk.ended, is_late=True)
            if self.wish.is_requested:
                return await self._cancel(record, journal, observer, walk.ended)
            await self._stop(record, journal, RunStatus.INTERRUPTED)
            raise StepFailed(
                f"the task of run {record.run_id} was cancelled, and its caller was not",
                hint="code of a step cancels tasks that it did not create; resume the run once that is fixed",
            ) from error
        except ChangesRefused:
            await self._stop(record, journal, RunStatus.INTERRUPTED)
            raise
        except StateError as error:
            self._let_go(record.run_id, error)
            raise
        except BaseException:  # Ctrl-C, or a bug in Flujo: errors of steps and hooks are caught inside
            await self._stop(record, journal, RunStatus.INTERRUPTED)
            raise
        finally:
            walk.end()

    async def _stop(self, record: RunRecord, journal: Journal | None, status: RunStatus) -> None:
        """Release the run; when that cannot be written, stop renewing its lease."""
        move = Move(status=status)
        alone = Write(run_id=record.run_id, fence=record.fence, move=move)
        try:
            await settled(journal.end(move) if journal else self.runtime.store.write(alone))
        except StateError as error:
            self._let_go(record.run_id, error)

    def _let_go(self, run_id: RunId, error: StateError) -> None:
        """Stop renewing the lease of a run that this execution could not release."""
        # After `Fenced` there is a newer claim. It may be of this process, whose lease must then be kept.
        if not isinstance(error, Fenced):
            self.runtime.store.let_go(run_id)

    async def _cancel(
        self,
        record: RunRecord,
        journal: Journal | None,
        observer: Observer | None,
        ended: Sequence[StepEnded] = (),
    ) -> Executed:
        """End a run that is to be cancelled: after its `finally`, if it has one and has begun."""
        if self.runtime.pipeline.finally_ is None:
            return await self._end_early(record, journal, observer, ended, is_late=False)
        store = self.runtime.store
        try:
            if journal is not None:
                await settled(journal.flush())
            start = await store.progress(record.run_id)
            if not begins_with_finally(start.first):
                return await self._end_early(record, journal, observer, ended, is_late=False)
            wish = (await store.run(record.run_id)).wish
            tree = await context_so_far(store, record, self._replayed())
        except JournalConflict as conflict:
            why = f"`finally` was not executed: {conflict.message}"
            return await self._end_early(record, journal, observer, ended, is_late=False, why=why)
        except StateError as error:
            self._let_go(record.run_id, error)
            raise
        reason = cancelled(wish.by if wish else "").message
        last = replace(self, wish=Wish())
        walk = _Walk(last.wish)
        walk.ended, walk.is_announced = ended, journal is not None
        return await last._watched(record, walk, observer, start, Cancelled(reason, tree))

    def _replayed(self) -> Replayed:
        """Return the pipeline for a replay of what a run has recorded."""
        runtime = self.runtime
        binding = SilentBinding(runtime.binding)
        return Replayed(pipeline=runtime.pipeline, binding=binding, range_length=runtime.range_length)

    async def _end_early(
        self,
        record: RunRecord,
        journal: Journal | None,
        observer: Observer | None,
        ended: Sequence[StepEnded] = (),
        *,
        is_late: bool,
        why: str = "",
    ) -> Executed:
        """Record that the run was cancelled or is too late, and name the calls that it leaves in doubt."""
        store = self.runtime.store
        if is_late:
            status, error = RunStatus.FAILED, too_late(record)
        else:
            wish = (await store.run(record.run_id)).wish
            reason = cancelled(wish.by if wish else "").message
            status, error = RunStatus.CANCELLED, stopped(f"{reason}; {why}" if why else reason)
        move = Move(status=status, error=canonical.encode(error.to_json()))
        move = self.runtime.announced(record, move, journal.usage if journal else record.usage)
        alone = Write(run_id=record.run_id, fence=record.fence, move=move)
        try:
            await settled(journal.end(move) if journal else store.write(alone))
        except StateError as unwritten:
            self._let_go(record.run_id, unwritten)
            raise
        used = journal.usage if journal else record.usage
        if observer is not None:
            observer.ended(status, error, used)
        if self.sink is not None:
            await self.sink(RunEnded(record.run_id, status, used))
        result = await standing(self.runtime, await store.run(record.run_id))
        calls = map(in_doubt, result.in_doubt)
        facts = {"steps": tuple(StepResult(**step_facts(each)) for each in ended), "note": "\n".join(calls)}
        return Executed(result.model_copy(update=facts))

    async def _walk(
        self,
        record: RunRecord,
        journal: Journal,
        walk: _Walk,
        observer: Observer | None,
        start: Progress,
        cancelled: Cancelled | None,
    ) -> Executed:
        runtime = self.runtime
        CURRENT_STEP.set(CurrentStep(record.run_id, ROOT))  # in the task of this walk
        TOOL_POLICY.set(runtime.tools)
        SHARED_REQUESTS.set(runtime.store if runtime.is_durable else None)  # in the run's own task
        run = self._run_of(record, journal, walk, observer, cancelled)
        walk.ended = run.ended
        walk.feed = RunFeed(runtime.store, run, record.fence)
        if not walk.is_announced:
            await run.emit(RunStarted(record.run_id, record.pipeline, resumed=start.last_seq > 0))
        context = canonical.decode(record.context)
        budget = await self._budget(record, journal, start.acts)
        given = canonical.decode(record.input)
        outcome, tree = await execute(runtime.pipeline, run, given, context, budget, owner=runtime.owner)
        if isinstance(outcome, BegunAgain) and journal.is_stubbed:
            outcome = Success(outcome.input)  # a fork ends here: nothing is recorded of calls after this
        move = _move(record, outcome, canonical.encode(tree, what="context"))
        if isinstance(outcome, BegunAgain):  # only the end of the last run of the chain is announced
            journal.launch(_successor(runtime, record, outcome, move))
        else:
            asked = map(journal.stored_pause, outcome.pauses) if isinstance(outcome, Paused) else ()
            move = runtime.announced(record, move, journal.usage, tuple(asked))
            for evaluation in self._evaluations(record, move):
                journal.launch(evaluation)
        walk.end()
        answered = await journal.end(move)
        if observer is not None:
            observer.ended(move.status, _error(outcome, record.run_id), journal.usage)
        await run.emit(RunEnded(record.run_id, move.status, journal.usage))
        held = NOTHING if budget is None else budget.unconfirmed
        result = self._result(record, journal, run.ended, outcome, move, held)
        if any(each.deadline_s is not None for each in result.pauses):
            pauses = await _with_deadlines(runtime.store, record.run_id, result.pauses)
            result = result.model_copy(update={"pauses": pauses})
        if not result.success and journal.may_have_called:
            calls = await unresolved(runtime.store, record.run_id)
            note = "" if cancelled is None else "\n".join(map(in_doubt, calls))
            result = result.model_copy(update={"in_doubt": calls, "note": note})
        return Executed(result, answered and isinstance(outcome, Paused), start.acts)

    def _run_of(
        self,
        record: RunRecord,
        journal: Journal,
        walk: _Walk,
        observer: Observer | None,
        cancelled: Cancelled | None,
    ) -> Run:
        """Return what all steps of this execution share."""
        runtime = self.runtime
        return Run(
            record.run_id,
            record.created_at,
            runtime.binding,
            journal,
            runtime.clock,
            runtime.random,
            runtime.plans,
            resources=runtime.resources,
            cache=runtime.cache,
            sink=self.sink,
            observer=observer,
            retry_failed=self.retry_failed,
            accept_changes=self.accept_changes,
            ended=[*walk.ended],
            wish=self.wish,
            cancelled=cancelled,
            range_length=runtime.range_length,
            known_maps=runtime.known_maps,
            transcripts=runtime.transcripts,
            launches=_launches(runtime, record),
            evaluations=self._step_evaluations(record),
            input_schema=runtime.pipeline.input_schema,
            life_of=runtime.life_of,
            pii=runtime.pii,
            pseudonyms=pseudonyms_of(runtime.store, record.run_id),
        )

    def _evaluations(self, record: RunRecord, move: Move) -> Sequence[Child]:
        """Return the runs that score the output with which a run ends."""
        shadow = self.runtime.shadow
        return () if shadow is None or self._is_fork(record) else shadow.of_run(record, move)

    def _step_evaluations(
        self, record: RunRecord
    ) -> Callable[[BaseStep, StepPath, bytes | None, bytes], Sequence[Child]] | None:
        """Return what chooses the runs that score outputs of steps; None when none of this run is scored."""
        shadow = self.runtime.shadow
        if shadow is None or self._is_fork(record) or not shadow.takes(record):
            return None
        return partial(shadow.of_step, record)

    def _is_fork(self, record: RunRecord) -> bool:
        return is_stubbed(record, self.runtime.closure)

    async def _budget(self, record: RunRecord, journal: Journal, acts: Sequence[Act]) -> Budget | None:
        """Return what the run may still use; None when it has no limits."""
        runtime = self.runtime
        facts = Facts(blueprint=record.pipeline, user=record.user_id, metadata=record.metadata)
        shares = [share for rule in runtime.rules if (share := rule.share(facts)) is not None]
        raised = of_acts(acts)
        if runtime.limits is None and not shares and not raised.own:
            return None
        ledger = Ledger() if record.is_new else await journal.ledger()
        for hold in unconfirmed(ledger):
            journal.hold(hold)
        return Budget(
            raised.limits(runtime.limits or UsageLimits()),
            now=runtime.clock.monotonic,
            ledger=ledger,
            read=journal.ledger,
            shares=[*map(raised.share, shares)],
            raised=raised.own,
        )

    def _result(
        self,
        record: RunRecord,
        journal: Journal,
        ended: list[StepEnded],
        outcome: StepOutcome,
        move: Move,
        held: Usage,
    ) -> PipelineResult[Any, Any]:
        result: PipelineResult[Any, Any] = PipelineResult(
            run_id=record.run_id,
            status=move.status,
            output=self.runtime.load_output(outcome.output) if isinstance(outcome, Success) else None,
            context=_context(self.runtime, move.context),
            steps=cast("Any", [step_facts(each) for each in ended]),  # validated once, as a whole
            usage=journal.usage,
            unconfirmed=held,
            error=_error(outcome, record.run_id),
            pauses=tuple(map(journal.stored_pause, outcome.pauses)) if isinstance(outcome, Paused) else (),
            ends_by=record.ends_by,
            continued_as=chains.continued_as(record.run_id, move.output),
        )
        if isinstance(outcome, Failure):
            result._cause = outcome.cause
        return result


async def result_of(store: JournalSource, record: RunRecord) -> PipelineResult[Any, Any]:
    """Return the state of a run that is not executed here, from the database."""
    pauses = await store.pauses(record.run_id) if record.status in AT_A_PAUSE else []
    ledger = await store.ledger(record.run_id)
    return PipelineResult(
        run_id=record.run_id,
        status=record.status,
        output=None if record.output is None else canonical.decode(record.output),
        usage=ledger.usage,
        unconfirmed=ledger.unconfirmed,
        error=None if record.error is None else read_error(record.error, record.run_id),
        pauses=tuple(pause for pause in pauses if pause.is_open),
        in_doubt=() if record.status is RunStatus.RUNNING else await unresolved(store, record.run_id),
        ends_by=record.ends_by,
        continued_as=chains.continued_as(record.run_id, record.output),
    )


async def _with_deadlines(store: JournalSource, run_id: RunId, pauses: Sequence[Pause]) -> tuple[Pause, ...]:
    """Return new pauses with the deadlines that the database has set by its clock."""
    stored = {each.pause_id: each.deadline_at for each in await store.pauses(run_id)}
    return tuple(replace(each, deadline_at=stored.get(each.pause_id)) for each in pauses)


async def unresolved(store: JournalSource, run_id: RunId) -> tuple[Intent, ...]:
    """Return the calls of a run that were sent and whose outcome is not recorded."""
    return tuple(intent for intent in await store.intents(run_id) if intent.state in UNRESOLVED)


def in_doubt(call: Intent) -> str:
    """Return the sentence about a call whose outcome is not recorded."""
    return f"in doubt: `{shown(call.path)}` called `{call.tool}`; its outcome is not recorded"


async def standing(runtime: Runtime, record: RunRecord) -> PipelineResult[Any, Any]:
    """Return the state of a run that is not executed here, with output and context loaded as their types."""
    result = await result_of(runtime.store, record)
    context = _context(runtime, record.context_now or record.context)
    output = runtime.load_output(result.output) if result.success else None
    return result.model_copy(update={"output": output, "context": context})


def _move(record: RunRecord, outcome: StepOutcome, context: bytes) -> Move:
    match outcome:
        case BegunAgain():
            output = chains.output_before(chains.successor_of(record.run_id))
            return Move(status=RunStatus.COMPLETED, output=output, context=context)
        case Success(output=output):
            return Move(
                status=RunStatus.COMPLETED, output=canonical.encode(output, what="output"), context=context
            )
        case Failure(error=error):
            return Move(status=RunStatus.FAILED, error=canonical.encode(error.to_json()), context=context)
        case Paused():
            return Move(status=at_a_pause(outcome), context=context)
        case Aborted(reason=reason):
            why = canonical.encode(stopped(reason).to_json())
            return Move(status=RunStatus.CANCELLED, error=why, context=context)
        case BackgroundLaunched() | Ended():
            raise StateError(f"a run cannot end as {type(outcome).__name__}")


def _successor(runtime: Runtime, record: RunRecord, outcome: BegunAgain, move: Move) -> Child:
    """Return the run that continues a run which ends with `move`."""
    launches = _launches(runtime, record)
    assert launches is not None  # noqa: S101 - for the type checker: of a pipeline with such a step
    assert move.context is not None  # noqa: S101 - as above: the move of an end has it
    queued = record.queued
    return Child(
        run=NewRun(
            run_id=chains.successor_of(record.run_id),
            pipeline=record.pipeline,
            closure=launches.closure,
            input=canonical.encode(outcome.input, what="input"),
            context=move.context,
            metadata=record.metadata,
            user_id=record.user_id,
            lock_digest=record.lock_digest,
            queued=None
            if queued is None
            else Queued(queue=queued.queue, key=queued.key, priority=queued.priority),
            life_s=runtime.life_of(outcome.input),
        ),
        blobs=launches.blobs,
    )


def _error(outcome: StepOutcome, run_id: str) -> ErrorInfo | None:
    match outcome:
        case Failure(error=error):
            return of_run(error, run_id)
        case Aborted(reason=reason):
            return stopped(reason)
        case _:
            return None


def stopped(reason: str) -> ErrorInfo:
    """Return the error of a cancelled run."""
    return Aborted(reason).error


def cancelled(by: str) -> ErrorInfo:
    """Return the error of a run that was cancelled from outside."""
    return stopped(f"cancelled by {by}" if by else "cancelled")


def _context(runtime: Runtime, tree: bytes | None) -> Any:
    return None if tree is None else runtime.context.load(canonical.decode(tree))


def _launches(runtime: Runtime, record: RunRecord) -> Launches | None:
    launches = runtime.launches
    if launches is None:
        return None
    if is_stubbed(record, runtime.closure):
        closure, manifest = pinned_stubs(launches.closure)
        launches = replace(launches, closure=closure, blobs={**launches.blobs, closure: manifest})
    return replace(
        launches,
        lock_digest=record.lock_digest,
        metadata=record.metadata,
        user_id=record.user_id,
    )


async def settled(write: Awaitable[object]) -> None:
    """Finish a last write although this task is cancelled; a second cancellation stops the wait."""
    last = asyncio.ensure_future(write)
    # After a second cancellation no caller waits for the write, and its error is dropped: the journal has
    # the state of the run.
    last.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.shield(last)
