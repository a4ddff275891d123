"""Events for hooks and streams have no secrets in their texts."""

from __future__ import annotations

import pytest

from flujo.domain.events import Chunk, StepEnded, StepRetried, StepStarted
from flujo.domain.journal import ErrorInfo
from flujo.domain.outcomes import Failure, Paused, Success
from flujo.domain.paths import StepPath
from flujo.domain.personal_data import Rules
from flujo.domain.run import Pause
from flujo.governance.events import redacted, redacted_values
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


def test_an_event_that_leaves_the_process_has_no_personal_data() -> None:
    GATE.hide_personal_data(Rules())
    ended = StepEnded(
        PATH, "step", Success({"to": f"jane@example.org {KEY}"}, facts={"note": "bob@example.org"})
    )
    assert redacted(ended) == ended
    masked = Success({"to": "<EMAIL> ***"}, facts={"note": "<EMAIL>"})
    assert redacted_values(ended) == StepEnded(PATH, "step", masked)
    asked = StepEnded(PATH, "hitl", Paused((Pause(pause_id=PATH, message="write to jane@example.org?"),)))
    shown = redacted_values(asked)
    assert isinstance(shown, StepEnded)
    assert shown.outcome == Paused((Pause(pause_id=PATH, message="write to <EMAIL>?"),))
