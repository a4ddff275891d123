"""Input and output processors, the output schema, and validators of a step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.domain.wording import kind_of
from flujo.engine.attempt_costs import take_over
from flujo.engine.budget_questions import BudgetAsked
from flujo.engine.error_info import described, text_of
from flujo.engine.journal import encoded
from flujo.exceptions import (
    ArgumentsRejected,
    ControlSignal,
    FlujoError,
    OutputRejected,
    PausedException,
    StepFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.agents import Reply
    from flujo.domain.models import PipelineContext
    from flujo.domain.steps import CallableRef, Step
    from flujo.engine.attempt import Attempt


async def process_input(attempt: Attempt) -> None:
    """Apply `processors.input` to the attempt's input, one after the other.

    Raises:
        StepFailed: one of them raised.
        ArgumentsRejected: the step has `with:`, and one of them did not return a mapping.
    """
    step = cast("Step", attempt.step)
    given = canonical.decode(attempt.input or b"null")
    for ref in step.processors.input:
        reply = await _ask(attempt, ref, "processor", given, attempt.context)
        given = canonical.normalise(reply.output, what=f"result of processor `{ref.target}`")
        if step.arguments is not None and not isinstance(given, dict):
            raise ArgumentsRejected(
                f"processor `{ref.target}` returned {kind_of(given)} for step {step.name!r}, which passes "
                "arguments by name (`with:`)",
                hint="return a mapping of the arguments",
                callable=ref.target,
            )
    attempt.input = encoded(given, f"input of step {step.name!r}")


async def set_output_gate(attempt: Attempt) -> None:
    """Set the processing of answers: output processors, the output schema and the validators."""
    attempt.check = OutputGate(attempt)


class OutputGate:
    """Converts an answer to the step's output with the processors, and checks it with schema and validators.

    One attempt may call it several times, because a model gets the reason and answers again. Writes of
    processors to the context are dropped for a rejected answer; validators only read.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._step = cast("Step", attempt.step)
        self._scope = attempt.frame.scope
        self._what = f"output of step {attempt.step.name!r}"

    async def __call__(self, answer: Any) -> Any:
        """Return the output for `answer`.

        Raises:
            OutputRejected: it does not match the schema, or a validator rejects it (`reason`).
            StepFailed: a processor or a validator raised something else.
        """
        self._attempt.is_passed = False
        value = canonical.normalise(answer, what=self._what)
        tree = self._scope.tree_of(self._attempt.context)
        for ref in self._step.processors.output:
            value, tree = await self._processed(ref, value, tree)
        value = self._fitting(value)
        for ref in self._step.validators:
            await self._judged(ref, value, tree)
        self._attempt.tree, self._attempt.is_passed = tree, True
        return value

    async def _processed(self, ref: CallableRef, value: Any, tree: Any) -> tuple[Any, Any]:
        context = self._view(ref, tree)
        reply = await _ask(self._attempt, ref, "processor", value, context)
        what = f"result of processor `{ref.target}`"
        if context is not None:
            tree = self._scope.type.dump(context)
        return canonical.normalise(reply.output, what=what), tree

    def _fitting(self, value: Any) -> Any:
        """Return a value that fits the schema, in its declared types; an agent's answer is coerced first."""
        if self._step.output_schema is None:
            return value
        schema = self._attempt.frame.run.binding.schema(self._step.output_schema)
        if self._step.agent is not None and not self._step.processors.output:
            value, _ = schema.coerced(value)
        try:
            return schema.check(value, what=self._what)
        except OutputRejected as error:
            reason = " · ".join(error.violations) or error.message
            facts = {**error.facts, "reason": reason, "retryable": True}
            raise OutputRejected(error.message, hint=error.hint, **facts) from None

    async def _judged(self, ref: CallableRef, value: Any, tree: Any) -> None:
        """Check `value` with a validator."""
        context = self._view(ref, tree)
        try:
            reply = await _ask(self._attempt, ref, "validator", canonical.normalise(value), context)
        except _Refused as refused:
            reason = refused.reason
        else:
            if reply.output is None or reply.output is True:
                return
            reason = _reason(ref, reply.output)
        raise OutputRejected(
            f"{self._what} does not pass validator `{ref.target}`: {reason}",
            hint="change the step that produces the output, or the validator",
            reason=reason,
            validator=ref.target,
            retryable=True,
        )

    def _view(self, ref: CallableRef, tree: Any) -> PipelineContext | None:
        wants_context = self._attempt.frame.run.binding.agent(ref).wants_context
        return self._scope.type.view(tree) if wants_context else None


class _Refused(Exception):
    """A validator has rejected a value by raising."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def _ask(
    attempt: Attempt, ref: CallableRef, role: str, data: Any, context: PipelineContext | None
) -> Reply:
    """Return the result of a processor or validator; its usage counts for the attempt."""
    with _named(ref, role):
        run = attempt.frame.run
        ask = Ask(data=data, context=context, resources=run.resources, meter=attempt.meter)
        try:
            reply = await attempt.frame.ask(attempt.path, ref, ask, *attempt.clocks)
        except BaseException as error:
            attempt.usage += take_over(error)
            raise
    attempt.usage += reply.usage
    return reply


@contextmanager
def _named(ref: CallableRef, role: str) -> Iterator[None]:
    """Wrap an exception of a processor or validator; a `ValueError` of a validator is a rejection."""
    try:
        yield
    except BudgetAsked:
        raise
    except PausedException as signal:
        raise StepFailed(
            f"{role} `{ref.target}` asked a human: {signal.message}",
            hint="only the callable of a step may pause; ask in a separate step, with `kind: hitl`",
        ) from signal
    except ControlSignal:
        raise
    except FlujoError as error:
        # A value that does not match the annotation of a validator's parameter is rejected.
        named = error.parameter if isinstance(error, ArgumentsRejected) else None
        if role == "validator" and named not in (None, "context", "resources"):
            raise _Refused(error.message) from error
        raise
    except Exception as error:
        if role == "validator" and isinstance(error, ValueError | AssertionError):
            raise _Refused(text_of(error) or type(error).__name__) from error
        message = f"{role} `{ref.target}` raised {described(error)}"
        raise StepFailed(message, retryable=True) from error


def _reason(ref: CallableRef, verdict: Any) -> str:
    if verdict is False:
        return "it returned False"
    if isinstance(verdict, str):
        return verdict or "it returned an empty reason"
    raise StepFailed(
        f"validator `{ref.target}` returned a value of type {type(verdict).__name__}",
        hint="return None or True to accept the output, and False or a reason to reject it",
    )
