"""What stands between a step and who answers it: processors on the way in and out, then validators."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.engine import context_isolation
from flujo.exceptions import (
    ArgumentsRejected,
    FlujoError,
    OutputRejected,
    PausedException,
    PipelineAbortSignal,
    StepFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.agents import Reply
    from flujo.domain.models import PipelineContext
    from flujo.domain.steps import CallableRef, Step
    from flujo.engine.frame import Frame
    from flujo.engine.recording import Draft


def wants_context(step: Step, frame: Frame) -> bool:
    """Return whether a processor of the step's input asks for the context."""
    asked = step.processors.input
    return bool(asked) and any(frame.run.binding.agent(ref).wants_context for ref in asked)


async def processed_input(
    step: Step, frame: Frame, draft: Draft, given: Any, context: PipelineContext | None
) -> Any:
    """Return what is really asked: what the last of `processors.input` makes of the step's input.

    Raises:
        StepFailed: one of them raised.
        ArgumentsRejected: the step has `with:`, and one of them returned no mapping.
    """
    for ref in step.processors.input:
        reply = await _ask(frame, draft, ref, "processor", given, context)
        given = canonical.normalise(reply.output, what=f"what processor `{ref.target}` returned")
        if step.arguments is not None and not isinstance(given, dict):
            raise ArgumentsRejected(
                f"processor `{ref.target}` returned a {type(given).__name__} for step {step.name!r}, which "
                "hands its callable arguments by name (`with:`)",
                hint="return a mapping of the arguments",
                callable=ref.target,
            )
    return given


class OutputGate:
    """What an answer has to pass to become the step's output: processors, the schema, the validators.

    It may be passed several times in one attempt, because a model is shown why its answer does not fit.
    What processors wrote to the context for an answer that was refused is forgotten; validators only read.
    """

    def __init__(self, step: Step, frame: Frame, draft: Draft, context: PipelineContext | None) -> None:
        self._step = step
        self._frame = frame
        self._draft = draft
        self._context = context
        self._tree = frame.scope.tree
        self._what = f"output of step {step.name!r}"
        self.is_passed = False
        """Whether the last answer has passed."""

    @staticmethod
    def is_needed(step: Step) -> bool:
        """Return whether anything judges or changes the answers of this step."""
        return bool(step.output_schema is not None or step.validators or step.processors.output)

    @property
    def tree(self) -> Any:
        """The context's tree after the answer that passed: what the attempt and its processors made of it."""
        return self._tree

    async def __call__(self, answer: Any) -> Any:
        """Return the output that `answer` becomes.

        Raises:
            OutputRejected: it does not fit the schema, or a validator refuses it (`reason`).
            StepFailed: a processor or a validator raised something else.
        """
        self.is_passed = False
        value = canonical.normalise(answer, what=self._what)
        tree = context_isolation.after(self._frame, self._context)
        for ref in self._step.processors.output:
            value, tree = await self._processed(ref, value, tree)
        self._fits_schema(value)
        for ref in self._step.validators:
            await self._judged(ref, value, tree)
        self._tree, self.is_passed = tree, True
        return value

    async def _processed(self, ref: CallableRef, value: Any, tree: Any) -> tuple[Any, Any]:
        context = self._view(ref, tree)
        reply = await _ask(self._frame, self._draft, ref, "processor", value, context)
        what = f"what processor `{ref.target}` returned"
        if context is not None:
            tree = self._frame.scope.type.dump(context)
        return canonical.normalise(reply.output, what=what), tree

    def _fits_schema(self, value: Any) -> None:
        if self._step.output_schema is None:
            return
        try:
            self._frame.run.binding.schema(self._step.output_schema).check(value, what=self._what)
        except OutputRejected as error:
            reason = " · ".join(error.facts.get("violations", ())) or error.message
            facts = {**error.facts, "reason": reason, "retryable": True}
            raise OutputRejected(error.message, hint=error.hint, **facts) from None

    async def _judged(self, ref: CallableRef, value: Any, tree: Any) -> None:
        """Return when a validator has nothing against `value`."""
        context = self._view(ref, tree)
        try:
            reply = await _ask(
                self._frame, self._draft, ref, "validator", canonical.normalise(value), context
            )
        except _Refused as refused:
            reason = refused.reason
        else:
            if reply.output is None or reply.output is True:
                return
            reason = _reason(ref, reply.output)
        raise OutputRejected(
            f"{self._what} does not pass validator `{ref.target}`: {reason}",
            hint="change what gives the output, or the validator",
            reason=reason,
            validator=ref.target,
            retryable=True,
        )

    def _view(self, ref: CallableRef, tree: Any) -> PipelineContext | None:
        return self._frame.scope.type.view(tree) if self._frame.run.binding.agent(ref).wants_context else None


class _Refused(Exception):
    """A validator has said no by raising."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def _ask(
    frame: Frame, draft: Draft, ref: CallableRef, role: str, data: Any, context: PipelineContext | None
) -> Reply:
    """Return what a processor or validator says; what it used counts for the attempt."""
    with _named(ref, role):
        ask = Ask(data=data, context=context, resources=frame.run.resources, meter=draft.meter)
        reply = await frame.run.binding.agent(ref).ask(ask)
    draft.usage += reply.usage
    return reply


@contextmanager
def _named(ref: CallableRef, role: str) -> Iterator[None]:
    """Name the callable whose code raised, and tell a validator's verdict from its failure."""
    try:
        yield
    except PipelineAbortSignal:
        raise
    except PausedException as signal:
        raise StepFailed(
            f"{role} `{ref.target}` asked a human: {signal.message}",
            hint="only what a step calls may pause; ask in a step of its own, with `kind: hitl`",
        ) from signal
    except FlujoError as error:
        # A value that does not fit the annotation of a validator's parameter is refused by it.
        if role == "validator" and error.facts.get("parameter") not in (None, "context", "resources"):
            raise _Refused(error.message) from error
        raise
    except Exception as error:
        if role == "validator" and isinstance(error, ValueError | AssertionError):
            raise _Refused(str(error) or type(error).__name__) from error
        said = f"{role} `{ref.target}` raised {type(error).__name__}: {error}"
        raise StepFailed(said, retryable=True) from error


def _reason(ref: CallableRef, verdict: Any) -> str:
    if verdict is False:
        return "it says no"
    if isinstance(verdict, str):
        return verdict or "it says no"
    raise StepFailed(
        f"validator `{ref.target}` returned a {type(verdict).__name__}",
        hint="return None or True when the output is fine, and False or the reason when it is not",
    )
