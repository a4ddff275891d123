"""Errors: declared facts are attributes, none can hide what every error has, and all of it survives a process."""

from __future__ import annotations

import pickle

import pytest

from flujo import exceptions
from flujo.exceptions import FlujoError, JournalConflict, ModelUnavailable, StepFailed, StepTimeout

ERRORS = [
    kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, FlujoError)
]
OF_EVERY_ERROR = {"args", "code", "facts", "hint", "message", "with_traceback", "add_note"}


@pytest.mark.parametrize("kind", ERRORS)
def test_no_fact_that_a_class_declares_hides_what_every_error_has(kind: type[FlujoError]) -> None:
    assert not OF_EVERY_ERROR & kind._declared


def test_a_fact_that_is_not_declared_stays_in_facts() -> None:
    error = FlujoError("no", hint="do", args=(1,), code="FLJ999", message_id=3)
    assert (error.code, error.args, error.message, error.hint) == ("FLJ400", ("no",), "no", "do")
    assert error.facts == {"args": (1,), "code": "FLJ999", "message_id": 3}
    assert not hasattr(error, "message_id")


def test_a_declared_fact_is_an_attribute() -> None:
    error = ModelUnavailable("no", status=503, retryable=True)
    assert (error.status, error.retryable, error.provider) == (503, True, None)


def test_every_error_says_whether_another_attempt_may_succeed() -> None:
    assert (StepFailed("no").retryable, StepTimeout("late").retryable) == (False, True)
    assert not StepTimeout("late", retryable=False).retryable


def test_a_class_derived_from_one_of_ours_declares_its_own_facts() -> None:
    class Refused(StepFailed):
        reason: str = ""

    error = Refused("no", reason="because", retryable=True)
    assert (error.reason, error.retryable) == ("because", True)
    assert "reason" not in StepFailed._declared


def test_an_error_survives_a_process() -> None:
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
