"""Errors: declared facts are attributes, hide no attribute of every error, and survive pickling."""

from __future__ import annotations

import pickle

import pytest

from flujo import exceptions
from flujo.exceptions import (
    FlujoError,
    JournalConflict,
    ModelUnavailable,
    PipelineError,
    StepFailed,
    StepTimeout,
)

ERRORS = [
    kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, FlujoError)
]
OF_EVERY_ERROR = {"args", "code", "facts", "hint", "message", "with_traceback", "add_note"}


@pytest.mark.parametrize("kind", ERRORS)
def test_no_declared_fact_hides_an_attribute_of_every_error(kind: type[FlujoError]) -> None:
    # An error in a pipeline has the code that the same error in a blueprint has.
    own = {"code"} if kind is PipelineError else set()
    assert OF_EVERY_ERROR & kind._declared == own


def test_an_undeclared_fact_stays_in_facts() -> None:
    error = FlujoError("no", hint="do", args=(1,), code="FLJ999", message_id=3)
    assert (error.code, error.args, error.message, error.hint) == ("FLJ400", ("no",), "no", "do")
    assert error.facts == {"args": (1,), "code": "FLJ999", "message_id": 3}
    assert not hasattr(error, "message_id")


def test_a_declared_fact_is_an_attribute() -> None:
    error = ModelUnavailable("no", status=503, retryable=True)
    assert (error.status, error.retryable, error.provider) == (503, True, None)


def test_every_error_declares_whether_it_is_retryable() -> None:
    assert (StepFailed("no").retryable, StepTimeout("late").retryable) == (False, True)
    assert not StepTimeout("late", retryable=False).retryable


def test_a_subclass_of_a_flujo_error_declares_its_own_facts() -> None:
    class Refused(StepFailed):
        reason: str = ""

    error = Refused("no", reason="because", retryable=True)
    assert (error.reason, error.retryable) == ("because", True)
    assert "reason" not in StepFailed._declared


def test_an_error_survives_pickling() -> None:
    error = JournalConflict("no", hint="do", path="a/b", recorded=True, now=False)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is JournalConflict
    assert (again.message, again.hint, again.path, again.recorded, again.now) == (
        "no",
        "do",
        "a/b",
        True,
        False,
    )
