"""The leaf steps of a replay: each ends as it is recorded, once what it gets is compared with the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import TRANSCRIPT, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.outcomes import Failure, Paused, Success
from flujo.domain.run import RunStatus
from flujo.domain.values import Expr
from flujo.engine.call_layers import given
from flujo.engine.error_info import safe_text
from flujo.engine.recording import end_of_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.differences import Cause
    from flujo.domain.journal import Entry
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep, Save
    from flujo.engine.call_layers import LeafCall
    from flujo.engine.frame import Frame
    from flujo.engine.recorded_journal import RecordedJournal

_ENDED = (RunStatus.COMPLETED, RunStatus.FAILED)


class RecordedSteps:
    """Ends leaf steps as they are recorded.

    Args:
        journal: the record.
        compares_agents: whether the agents may differ from those of the run, because the blueprint is not the
            pinned one.
    """

    def __init__(self, journal: RecordedJournal, *, compares_agents: bool) -> None:
        self._journal = journal
        self._compares_agents = compares_agents

    async def perform(self, call: LeafCall, frame: Frame, path: StepPath) -> StepOutcome:
        """Return the recorded outcome of a step, a turn, a summary or a tool call."""
        entry = self._ended(call.step, path)
        if entry is None:
            return self._standing(path)
        if entry.fingerprint != call.kind:
            self._journal.tell(path, "kind", entry.fingerprint, call.kind)
        if entry.kind is EntryKind.WORK and entry.input is not None and not call.step.processors.input:
            is_agent = isinstance(call.who, AgentSpec) or call.kind == "turn"
            cause: Cause = "prompt" if is_agent else "input"
            self._journal.compare_given(path, cause, entry.input, lambda: given(call, frame))
        if self._compares_agents and isinstance(call.who, AgentSpec):
            await self._compare_agent(call, call.who, frame, path, entry)
        if (recall := getattr(call.agent, "recall", None)) is not None:
            recall(entry)  # a conversation or a tool: it tells the engine more than its answer
        outcome = self._outcome(frame, path, entry)
        if isinstance(outcome, Success) and call.saves:
            await self._compare_saved(call.step, frame, path, entry, outcome.output)
        self._apply(frame, entry)
        return outcome

    async def awaited(self, step: BaseStep, ids: bytes, frame: Frame, path: StepPath) -> StepOutcome:
        """Return the recorded outcome of an `await` step."""
        entry = self._ended(step, path)
        if entry is None:
            return self._standing(path)
        if entry.input is not None:
            self._journal.compare(path, "input", entry.input, ids)
        outcome = self._outcome(frame, path, entry)
        if isinstance(outcome, Success) and step.save:
            await self._compare_saved(step, frame, path, entry, outcome.output)
        self._apply(frame, entry)
        return outcome

    def launched(self, path: StepPath) -> Any:
        """Return the launch that a fork has in common with its parent, whose task it is; None for another."""
        entry = self._journal.copied(path)
        return None if entry is None else canonical.decode(entry.output or b"null")

    def decided(self, path: StepPath) -> tuple[Any, Mapping[str, Any]] | None:
        """Return the arguments and the details of a call that a human has decided about; None for another."""
        entry = self._journal.ended(path)
        detail = {} if entry is None or entry.detail is None else canonical.decode(entry.detail)
        if entry is None or "approval" not in detail:
            return None
        return None if entry.input is None else canonical.decode(entry.input), detail

    def saved(self, path: StepPath, field: str, save: Save, frame: Frame) -> Any:
        """Return the recorded value of a `save:` of the step at `path` that a callable gives."""
        patch = self._journal.written(path)
        after = merge.apply(frame.scope.tree, patch)[field] if patch else frame.scope.tree.get(field)
        return after[-1] if save.append and after else after

    def _ended(self, step: BaseStep, path: StepPath) -> Entry | None:
        """Return the entry with which the step ended; None when it waits, or more attempts would follow."""
        journal = self._journal
        journal.seen.add(path)
        entry = journal.ended(path)
        if entry is None or entry.status is EntryStatus.COMPLETED:
            return entry
        failures = len(journal.attempts(path, entry.kind))
        is_last = failures > step.config.max_retries or not _error(entry).retryable
        is_cut_off = not is_last and journal.run.status not in _ENDED
        return None if is_cut_off or journal.asked(path) is not None else entry

    def _standing(self, path: StepPath) -> Paused:
        """Return the pause at which the step stands: its question, or the end of the record."""
        asked = self._journal.asked(path)
        if asked is not None:
            return Paused((asked,))
        self._journal.miss(path)
        return end_of_record(path)

    def _outcome(self, frame: Frame, path: StepPath, entry: Entry) -> Success | Failure:
        self._journal.spend(path)
        if entry.status is EntryStatus.FAILED:
            self._journal.failed.append(path)
            self._journal.end_at(path)
            return Failure(_error(entry))
        output = entry.output or b"null"
        value = canonical.decode(output)
        frame.written = value, output
        return Success(value)

    def _apply(self, frame: Frame, entry: Entry) -> None:
        if entry.status is EntryStatus.COMPLETED:
            if entry.patch is not None:
                frame.scope.tree = merge.apply(frame.scope.tree, canonical.decode(entry.patch))
            self._journal.end_at(entry.path)

    async def _compare_agent(
        self, call: LeafCall, who: AgentSpec, frame: Frame, path: StepPath, entry: Entry
    ) -> None:
        """Compare the model, and from the transcript, if it is kept, the instructions and the tools."""
        detail = canonical.decode(entry.detail) if entry.detail else {}
        asked = detail.get("asked", who.model)
        if asked != who.model:
            self._journal.tell(path, "model", asked, who.model)
        if TRANSCRIPT not in detail:
            return
        kept = await self._journal.contents([detail[TRANSCRIPT]])
        said: dict[str, Any] = canonical.decode(kept[detail[TRANSCRIPT]])
        now = None if call.instructions is None else safe_text(frame.render(call.instructions))
        if said.get("instructions") != now:
            self._journal.tell(path, "instructions", said.get("instructions"), now)
        tools = list(getattr(call.agent, "tools", ()))
        if said.get("tools", []) != tools:
            self._journal.tell(path, "tools", said.get("tools", []), tools)

    async def _compare_saved(
        self, step: BaseStep, frame: Frame, path: StepPath, entry: Entry, output: Any
    ) -> None:
        """Compare what `save:` writes now with the record; a value that a callable gives is not compared."""
        if not all(isinstance(each.value, Expr) for each in step.save.values()):
            return
        saved, _ = frame.scope.accepted(await frame.saved(step, output), what=f"step {step.name!r}")
        before = canonical.decode(entry.patch or b"[]")
        self._journal.compare(
            path, "context", _written(before, step.save), canonical.encode(_written_now(saved))
        )


def _error(entry: Entry) -> ErrorInfo:
    return ErrorInfo.from_json(canonical.decode(entry.error or b"{}"))


def _written(patch: merge.Patch, names: Any) -> bytes:
    """Return the last operation on each field that `save:` names."""
    return canonical.encode({op[1][0]: op for op in patch if op[1] and op[1][0] in names})


def _written_now(patch: merge.Patch) -> Any:
    return {op[1][0]: op for op in patch}
