"""The approval of a tool call by a human, before the call is announced.

    research/turn[0]/tool[1]   pause: answer = {"approved": …, "reason": …, "arguments": …, "digest": …}

The answer stays with the question. A resumed run reads it there, and decides the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.domain.approvals import ARGUMENTS, DIGEST, answer_schema, digest
from flujo.domain.journal import EntryKind, ErrorInfo
from flujo.domain.outcomes import Failure, Paused
from flujo.domain.run import Pause, PauseKind
from flujo.domain.steps.step import ToolCallStep
from flujo.domain.values import CallableRef
from flujo.engine.attempts import answering, record_failure
from flujo.engine.composed_calls import has_begun
from flujo.engine.error_info import error_info
from flujo.engine.time_limits import seconds_of
from flujo.exceptions import ArgumentsRejected, DeadlinePassed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.approvals import Approval
    from flujo.domain.conversations import Tool, ToolCall
    from flujo.domain.paths import StepPath
    from flujo.engine.frame import Frame


@dataclass(frozen=True, slots=True)
class Decision:
    """What a human decided about a call, or that the call needs no approval."""

    arguments: Any
    """The arguments of the call."""
    denial: str = ""
    """Why the call is not made, in words for the model."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """For the entry of the call: who decided, and whether the arguments were changed."""


@dataclass(frozen=True, slots=True)
class ApprovalGate:
    """The approval of one call at one path."""

    step: str
    tool: Tool
    approval: Approval
    call: ToolCall
    frame: Frame
    path: StepPath

    async def decision(self) -> Decision | Paused | Failure:
        """Return the decision, or the question while it is open, or the failure at its deadline."""
        asked = self.frame.run.journal.pause(self.path)
        if asked is None and (known := self._decided_before()) is not None:
            return known
        if asked is None or asked.kind is not PauseKind.APPROVAL or (asked.void and not asked.is_settled):
            is_settled = await self._is_sent() or not self._is_needed()
            return Decision(self.call.arguments) if is_settled else self._ask()
        if asked.is_expired:
            return await self._too_late(asked)
        if asked.is_open:
            return await self._still_open(asked)
        answer = canonical.decode(asked.answer or b"{}")
        return self._answered(asked, answer, is_sent=await self._is_sent())

    def _decided_before(self) -> Decision | None:
        """Return the decision that a replayed fork has in common with its parent, whose question it was."""
        recorded = self.frame.run.recorded
        known = None if recorded is None else recorded.decided(self.path)
        if known is None:
            return None
        arguments, detail = known
        is_denied = detail["outcome"] == "denied"
        return Decision(
            self.call.arguments if arguments is None else arguments,
            "a human denied it" if is_denied else "",
            {"approval": detail["approval"]},
        )

    async def _is_sent(self) -> bool:
        """Return whether the call was made before, so that it is settled and not decided about."""
        sent = await self.frame.run.journal.intent(self.path)
        return sent is not None or has_begun(self.frame, self.path)

    def _is_needed(self) -> bool:
        when = self.approval.when
        return (
            when is None
            or self.call.written != ""
            or bool(self.frame.evaluate(when, args=self.call.arguments))
        )

    # The question ----------------------------------------------------------------------------------------

    def _digest(self) -> str:
        """Return the digest of what the human sees, and of the number of the question."""
        return digest(
            run=self.frame.run.id,
            path=self.frame.run.journal.stored_path(self.path),
            tool=self.tool.target,
            arguments=self.call.arguments,
            parameters=self.tool.parameters,
            number=len(self.frame.run.journal.attempts(self.path, EntryKind.ANSWER)) + 1,
        )

    def _ask(self) -> Paused:
        bound_to, approval = self._digest(), self.approval
        limit = seconds_of(
            approval.deadline_s,
            self.frame,
            what=f"`deadline_s` of the approval of `{self.call.name}`",
            names={"args": self.call.arguments},
        )
        schema = answer_schema(
            bound_to, self.call.arguments, self.tool.parameters, editable=approval.editable
        )
        question = Pause(
            pause_id=self.path,
            kind=PauseKind.APPROVAL,
            message=self._message(bound_to),
            answer_schema=schema,
            deadline_s=limit,
        )
        return Paused((self.frame.run.journal.ask(question),))

    def _message(self, bound_to: str) -> str:
        lines = [f"step {self.step!r} wants to call `{self.call.name}` (effect: {self.tool.effect})."]
        if self.approval.message is not None:
            args = {"args": self.call.arguments}
            inside = self.frame.inside(self.frame.path, previous=self.frame.previous, names=args)
            lines.append(str(inside.render(self.approval.message)))
        if self.call.written:
            written = canonical.encode(self.call.written).decode()  # one line, whatever the model wrote
            lines.append(f"the model wrote: {written} ({'; '.join(self.call.repairs)})")
        lines.append(f"{ARGUMENTS}{canonical.encode(self.call.arguments).decode()}")
        lines.append(f"{DIGEST}{bound_to}")
        return "\n".join(lines)

    # The answer ------------------------------------------------------------------------------------------

    async def _still_open(self, asked: Pause) -> Paused:
        if asked.digest == self._digest():
            return Paused((asked,))
        self.frame.run.journal.void([asked])  # the tool has changed since the question was opened
        await self.frame.run.journal.flush()  # a commit opens questions before it closes others
        return self._ask()

    def _answered(self, asked: Pause, answer: Any, *, is_sent: bool) -> Decision:
        by: dict[str, Any] = {"approved": answer["approved"], "by": asked.by}
        given = self.call.arguments
        if answer["digest"] != self._digest() and not is_sent:  # a call that was sent is settled, not denied
            why = "the tool has changed since the question was opened; call it again"
            return Decision(given, why, {"approval": by})
        if not answer["approved"]:
            why = answer.get("reason")
            return Decision(given, "a human denied it" + (f": {why}" if why else ""), {"approval": by})
        if "arguments" not in answer or answer["arguments"] == given:
            return Decision(given, detail={"approval": by})
        by["changed"] = True
        why_not = self._misfit(answer["arguments"])
        return Decision(answer["arguments"], why_not, {"approval": by})

    def _misfit(self, arguments: Any) -> str:
        """Return why changed arguments cannot be used: a tool may check more than its schema says."""
        ask = Ask(arguments=arguments, resources=self.frame.run.resources, idempotency_key="")
        try:
            self.tool.check_arguments(ask)
        except ArgumentsRejected as error:
            return f"a human changed its arguments, and they do not fit: {error.message}"
        return ""

    async def _too_late(self, asked: Pause) -> Decision | Paused | Failure:
        """Apply `on_deadline`; a retry of a failed step asks again."""
        if self.approval.on_deadline == "deny":
            detail = {"approval": {"approved": False, "deadline": "passed"}}
            return Decision(self.call.arguments, "no human approved it in time", detail)
        failed = self.frame.run.journal.attempts(self.path, EntryKind.ANSWER)
        if failed and failed[-1].started_at == asked.asked_at:
            if failed[-1].seq <= self.frame.since:
                return self._ask()
            return Failure(ErrorInfo.from_json(canonical.decode(failed[-1].error or b"{}")))
        error = DeadlinePassed(
            f"step {self.step!r}: the call of `{self.call.name}` was not approved within the `deadline_s` of "
            f"{(asked.deadline_at or 0) - (asked.asked_at or 0):g} s",
            hint="`flujo resume RUN --retry-failed` asks again; `on_deadline: deny` continues without it",
            step=self.step,
        )
        failure = error_info(error, self.path)
        step = ToolCallStep(self.step, CallableRef(self.tool.target))
        await record_failure(answering(step, self.frame, asked), failure)
        return Failure(failure, error)
