"""The errors of a cassette: the class and the text of an exception survive the file."""

from __future__ import annotations

import pytest

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.paths import StepPath
from flujo.engine.error_info import error_info
from flujo.exceptions import FlujoError, ModelUnavailable, OutputRejected, StepTimeout
from flujo.services.replay.cassette_errors import error_of, exception_of

AT = StepPath("a")


class Odd(Exception):
    """An exception of a library."""


class Own(FlujoError):
    """An error that an application derives from one of Flujo."""

    code = "APP1"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("tota"),
        OSError(2, "no such file", "x"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ExceptionGroup("several", [ValueError("one")]),
        Odd(),
        Odd("why: because"),
        Own("refused", hint="ask Ada", retryable=True),
        ModelUnavailable("status 401", hint="check the key", retryable=False),
        OutputRejected("too short", reason="too short", retryable=True),
        StepTimeout("too late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_recorded_as_before_after_it_was_played(error: Exception) -> None:
    info = error_info(error, AT)
    encoded = canonical.encode(info.to_json())
    entry = Entry(path=AT, kind=EntryKind.WORK, status=EntryStatus.FAILED, error=encoded)
    recorded = error_of(entry)
    assert recorded is not None
    assert error_info(exception_of(recorded), AT) == info


def test_an_error_of_python_keeps_its_class() -> None:
    encoded = canonical.encode(error_info(KeyError("tota"), AT).to_json())
    recorded = error_of(Entry(path=AT, kind=EntryKind.WORK, status=EntryStatus.FAILED, error=encoded))
    assert recorded is not None
    played = exception_of(recorded)
    assert isinstance(played, KeyError)
    assert str(played) == "'tota'"
    assert error_of(Entry(path=AT, kind=EntryKind.WORK)) is None
