"""Events for hooks and streams have no secrets in their texts."""

from __future__ import annotations

import pytest

from flujo.domain.events import Chunk, StepEnded, StepRetried, StepStarted
from flujo.domain.journal import ErrorInfo
from flujo.domain.outcomes import Failure, Success
from flujo.domain.paths import StepPath
from flujo.governance.events import redacted
from flujo.governance.sink import GATE

KEY = "sk-canary-events-0123"
PATH = StepPath("a")


@pytest.fixture(autouse=True)
def _known() -> None:
    GATE.know([KEY], of="EVENTS_API_KEY")


def error() -> ErrorInfo:
    """Return an error with the key in its message and hint."""
    return ErrorInfo("FLJ301", f"refused {KEY}", f"check {KEY}", "ModelUnavailable", PATH, retryable=True)


def test_a_piece_of_text_is_redacted() -> None:
    assert redacted(Chunk(PATH, 1, f"the key is {KEY}!")) == Chunk(PATH, 1, "the key is ***!")


def test_errors_are_redacted() -> None:
    retried = redacted(StepRetried(PATH, 1, error(), 0.5))
    ended = redacted(StepEnded(PATH, "step", Failure(error())))
    assert isinstance(retried, StepRetried)
    assert (retried.error.message, retried.error.hint) == ("refused ***", "check ***")
    assert KEY not in repr(ended)


def test_an_output_is_a_value_and_is_not_redacted() -> None:
    ended = StepEnded(PATH, "step", Success({"key": KEY}))
    assert redacted(ended) is ended
    started = StepStarted(PATH, "step")
    assert redacted(started) is started
