"""Calls with effects in a fork: the recorded result replaces the same call, otherwise a human decides.

    pay!stub     pause: answer = {"result": …} or {"call": true}

A call has an effect unless its step or tool declares `read`. The result of the parent is
matched by path, tool and arguments, so a call that the fork makes differently is never made by itself.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import Reply
from flujo.domain.outcomes import Paused
from flujo.domain.paths import stub
from flujo.domain.run import Pause, PauseKind
from flujo.domain.run_forks import STUBBED, Stub
from flujo.exceptions import PausedException

if TYPE_CHECKING:
    from flujo.domain.agents import Ask
    from flujo.domain.conversations import Tool, ToolCall
    from flujo.domain.paths import StepPath
    from flujo.engine.attempt import Attempt
    from flujo.engine.call_layers import LeafCall
    from flujo.engine.frame import Frame


class StubAsked(PausedException):
    """A call waits for a human: it is permitted, or replaced by a result."""

    def __init__(self, pause: Pause) -> None:
        super().__init__(pause.message)
        self.pause = pause


# The call of a step --------------------------------------------------------------------------------------


def stubbed(call: LeafCall, frame: Frame, path: StepPath) -> LeafCall:
    """Return the substitute for a call of a step, or the call itself if a human has permitted it."""
    given = _answer(frame, path)
    if given is not None and "call" in given:
        return call
    leaf = copy(call)
    leaf.agent = agent = _StubOfStep(leaf, given)
    leaf.is_enforced = False
    leaf.take_input(agent.begin)
    return leaf


class _StubOfStep:
    """The substitute for the callable of a step, which answers once the input is known."""

    wants_context = False

    def __init__(self, leaf: LeafCall, given: Any) -> None:
        self._leaf = leaf
        self._given = given
        self._attempt: Attempt | None = None

    def begin(self, _: LeafCall, attempt: Attempt) -> None:
        """Take the attempt, whose input is prepared: the last layer of the call."""
        self._attempt = attempt

    async def ask(self, ask: Ask) -> Reply:  # noqa: ARG002 - of the port
        """Return the result that replaces the call.

        Raises:
            StubAsked: there is none, and no human has given one.
        """
        attempt, leaf, step = self._attempt, self._leaf, self._leaf.step
        if attempt is None or step.call is None:
            raise AssertionError  # the layer has been called, and only calls are stubbed
        attempt.context = None  # the recorded patch has the writes to it
        if self._given is not None:
            leaf.describe({**leaf.detail, STUBBED: "answer"})
            return Reply(output=self._given["result"])
        sent, tool = attempt.input or b"null", step.call.target
        known = await attempt.frame.run.journal.stub(attempt.path, tool, sent)
        if known is None:
            schema = True if step.output_schema is None else step.output_schema
            raise StubAsked(
                _question(attempt.frame, attempt.path, step.name, tool, step.effect, sent, schema)
            )
        leaf.saves = False  # the patch has what the step has saved
        attempt.patch = known.patch
        leaf.describe({**leaf.detail, STUBBED: "recorded"})
        return Reply(output=known.output)


# The call of a tool --------------------------------------------------------------------------------------


class StubOfTool:
    """The substitute for a tool."""

    wants_context = False

    def __init__(self, call: ToolCall, tool: Tool, known: Stub | None, given: Any) -> None:
        self.outcome: Any = "result" if known is None else known.outcome
        self.detail: dict[str, Any] = {
            "tool": call.name,
            "outcome": self.outcome,
            "effect": tool.effect,
            STUBBED: "answer" if known is None else "recorded",
        }
        self._output = given["result"] if known is None else known.output
        self._patch = None if known is None else known.patch

    def begin(self, _: LeafCall, attempt: Attempt) -> None:
        """Give the attempt the recorded writes to the context: a layer of the call."""
        attempt.patch = self._patch

    async def ask(self, ask: Ask) -> Reply:  # noqa: ARG002 - of the port
        """Return the result that replaces the call."""
        return Reply(output=self._output)


async def stub_of_tool(
    step: str, call: ToolCall, tool: Tool, frame: Frame, path: StepPath
) -> StubOfTool | Paused | None:
    """Return the substitute for a call, or the question; None if a human has permitted the call."""
    given = _answer(frame, path)
    if given is not None:
        return None if "call" in given else StubOfTool(call, tool, None, given)
    sent = canonical.encode(call.arguments)
    known = await frame.run.journal.stub(path, call.name, sent)
    if known is not None:
        return StubOfTool(call, tool, known, None)
    question = _question(frame, path, step, call.name, tool.effect, sent, True)
    return Paused((frame.run.journal.ask(question),))


# The question --------------------------------------------------------------------------------------------


def _answer(frame: Frame, path: StepPath) -> Any:
    """Return the answer of a human about the call at `path`; None when there is none."""
    asked = frame.run.journal.pause(stub(path))
    return None if asked is None or asked.answer is None else canonical.decode(asked.answer)


def _question(
    frame: Frame, path: StepPath, step: str, tool: str, effect: str, sent: bytes, schema: Any
) -> Pause:
    asked = frame.run.journal.pause(stub(path))
    if asked is not None and asked.is_open:
        return asked
    return Pause(
        pause_id=stub(path),
        kind=PauseKind.STUB,
        message=f"step {step!r} of this fork would call `{tool}` (effect: {effect}), and the run that it "
        f"was forked from has no result of this call.\narguments: {sent.decode()}\n"
        "Answer with one of: result (it replaces the call), or call: true (make the call).",
        answer_schema=canonical.encode(
            {
                "type": "object",
                "properties": {"result": schema, "call": {"const": True}},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            }
        ),
    )
