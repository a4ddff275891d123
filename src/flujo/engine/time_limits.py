"""The seconds of time limits: a number, or the value of an expression up to a maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.pipeline import NO_ITEMS
from flujo.domain.wording import repr_short, span
from flujo.exceptions import ExpressionFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.steps import BaseStep
    from flujo.domain.values import TimeLimit
    from flujo.engine.frame import Frame


def seconds_of(
    given: float | TimeLimit | None, frame: Frame, *, what: str, names: Mapping[str, Any] = NO_ITEMS
) -> float | None:
    """Return the seconds of a limit of time, which a blueprint gives as a number or an expression.

    They are not recorded: an expression reads recorded values only, so it has the same value after a resume.
    The deadline of a question is recorded with the question.

    Args:
        given: the limit.
        frame: the scope of its expression.
        what: the limit's name in errors.
        names: further names of the scope.

    Raises:
        ExpressionFailed: the value of its expression is not a number above 0, up to its maximum.
    """
    if given is None or isinstance(given, int | float):
        return given
    return seconds_in_range(frame.evaluate(given.value, **names), given, what=what)


def seconds_in_range(value: Any, given: TimeLimit, *, what: str) -> float:
    """Return the value of the expression of a limit as seconds.

    Raises:
        ExpressionFailed: it is not a number above 0, up to the maximum of the limit.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= given.max:
        raise ExpressionFailed(
            f"{what}, `{given.value}`, is {repr_short(value)}, not a number of seconds above 0, "
            f"up to {span(given.max)}",
            hint="limit it in the expression, for instance `input.n > 60 ? 60 : input.n`, or raise `max`",
        )
    return float(value)


def timeout_of(step: BaseStep[Any, Any], frame: Frame) -> float | None:
    """Return the maximum number of seconds of an attempt of a step.

    Raises:
        ExpressionFailed: the value of its expression is out of its range.
    """
    return seconds_of(step.config.timeout_s, frame, what=f"`timeout_s` of step {step.name!r}")
