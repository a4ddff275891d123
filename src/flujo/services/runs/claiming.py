"""How runs are claimed and driven: one that is new, one that is there already, one that was just answered."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from flujo.domain import canonical
from flujo.domain.fast_dataclass import record
from flujo.domain.journal import ROOT
from flujo.domain.run import Move, RunStatus, Write
from flujo.engine.attempts import error_info
from flujo.exceptions import ResumeConflict, RunConflict, RunParked
from flujo.services.runs.execution import Execution, unless_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.models import PipelineResult
    from flujo.domain.run import NewRun, RunRecord

IfExists = Literal["attach", "fail", "resume", "return"]

CONTINUABLE = (RunStatus.ACCEPTED, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED)
"""The states of a run that is under way."""

RESUMABLE = (*CONTINUABLE, RunStatus.PARKED)
"""The states from which a run simply goes on when somebody asks; a failed one asks for `retry_failed`."""

RECOVERABLE = (RunStatus.ACCEPTED, RunStatus.RUNNING, RunStatus.PAUSED)
"""The states from which a run goes on without being asked; a paused one only once it is answered."""

_POLL_S = 0.25

log = logging.getLogger("flujo.recovery")


@record(frozen=True, slots=True)
class RunDriver:
    """Claims runs of one pipeline and executes them to where they end, fail or wait."""

    execution: Execution

    async def accept(
        self, new: NewRun, blobs: Mapping[str, bytes], if_exists: IfExists
    ) -> PipelineResult[Any, Any]:
        """Record a run and execute it; one that has its id already is treated as `if_exists` says."""
        try:
            record = await self._claimed(self.execution.store.accept(new, blobs))
        except ResumeConflict as conflict:
            return await self._existing(conflict.facts["record"], if_exists)
        return await self._executed(record)

    async def resume(self, record: RunRecord, *, answered: bool = False) -> PipelineResult[Any, Any]:
        """Go on with a run that is there; what it asked goes unanswered where the deadline has passed.

        When it was `answered` just now, somebody who looks after such runs may be faster: then its end is
        waited for here as well.

        Raises:
            ResumeConflict: somebody else is executing it, or there is nothing to go on with.
        """
        failed = (RunStatus.FAILED,) if self.execution.retry_failed else ()
        if record.deadline_at is not None:
            await self._expire(record.run_id)
        try:
            claimed = await self._claim(record.run_id, (*RESUMABLE, *failed))
        except ResumeConflict:
            if not answered:
                raise
            return await self._existing(await self.execution.store.run(record.run_id), "attach")
        return await self._executed(claimed)

    async def recover(self, run_id: RunId, max_recoveries: int) -> PipelineResult[Any, Any]:
        """Go on with a run that nobody attends to; one that lost its process too often is parked.

        Raises:
            ResumeConflict: somebody else was faster.
        """
        store = self.execution.store
        record = await self._claimed(store.claim(run_id, statuses=RECOVERABLE, recovering=True))
        if record.recoveries <= max_recoveries:
            return await self._executed(record)
        error = RunParked(
            f"run {run_id} lost its process {record.recoveries} times in a row without finishing a step",
            hint=f"`flujo trace {run_id}` shows how far it came; `flujo resume {run_id}` lets it go on",
            run_id=run_id,
            recoveries=record.recoveries,
        )
        reason = canonical.encode(error_info(error, ROOT).to_json())
        move = Move(status=RunStatus.PARKED, error=reason)
        await store.write(Write(run_id=run_id, fence=record.fence, move=move))
        log.warning("%s; it is parked", error)
        return await self.execution.standing(await store.run(run_id))

    async def _existing(self, record: RunRecord, if_exists: IfExists) -> PipelineResult[Any, Any]:
        """Do what `if_exists` says with the run that has this id, this pipeline and this input already."""
        store = self.execution.store
        if if_exists == "fail":
            raise RunConflict(
                f"run {record.run_id} exists already and is {record.status}",
                hint="`--if-exists resume` goes on with it, `--if-exists return` says how it stands",
                run_id=record.run_id,
            )
        while (
            if_exists != "return" and record.status in CONTINUABLE and record.status is not RunStatus.PAUSED
        ):
            try:
                return await self._executed(await self._claim(record.run_id, CONTINUABLE))
            except ResumeConflict:
                if if_exists == "resume":
                    raise
            await self.execution.clock.sleep(_POLL_S)
            record = await store.run(record.run_id)
        return await self.execution.standing(record)

    async def _executed(self, record: RunRecord) -> PipelineResult[Any, Any]:
        result, answered = await self.execution.run(record)
        while answered:
            try:
                claimed = await self._claim(result.run_id, (RunStatus.PAUSED,))
            except ResumeConflict:
                break  # whoever has answered goes on with it
            result, answered = await replace(self.execution, retry_failed=False).run(claimed)
        return result

    async def _expire(self, run_id: RunId) -> None:
        """Act on deadlines that have passed, as whoever looks after runs would, if anybody did."""
        store = self.execution.store
        for pause in await store.pauses(run_id):
            if pause.is_open and pause.deadline_at is not None:
                await store.expire(run_id, pause.pause_id)

    async def _claim(self, run_id: RunId, statuses: Sequence[RunStatus]) -> RunRecord:
        return await self._claimed(self.execution.store.claim(run_id, statuses=statuses))

    async def _claimed(self, claiming: Awaitable[RunRecord]) -> RunRecord:
        return await unless_cancelled(self.execution.store, claiming, lambda record: record)
