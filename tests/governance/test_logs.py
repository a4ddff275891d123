"""Log records are redacted before any handler sees them."""

from __future__ import annotations

import logging

import pytest

from flujo.governance.logs import logger
from flujo.governance.sink import GATE

KEY = "sk-canary-logs-0123"


@pytest.fixture(autouse=True)
def _known() -> None:
    GATE.know([KEY], of="LOGS_API_KEY")


def test_messages_arguments_and_tracebacks_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("flujo.test_logs")
    with caplog.at_level(logging.DEBUG, "flujo.test_logs"):
        try:
            int(KEY)
        except ValueError as error:
            log.warning("refused: %s", error)
            log.exception("failed with %s", KEY)
    assert [record.getMessage() for record in caplog.records] == [
        "refused: invalid literal for int() with base 10: '***'",
        "failed with ***",
    ]
    assert "ValueError: invalid literal for int() with base 10: '***'" in caplog.text
    assert KEY not in caplog.text


def test_a_record_keeps_no_exception_that_another_formatter_could_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        int(KEY)
    except ValueError:
        logger("flujo.test_logs").exception("failed", stack_info=True)
    (record,) = caplog.records
    assert record.exc_info is None
    assert "ValueError" in logging.Formatter().format(record)
    assert KEY not in f"{record.__dict__}"


def test_a_message_is_one_line_without_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    logger("flujo.test_logs").warning("step %s", "a\x1b[2J\nERROR forged \u202e")
    assert caplog.records[0].getMessage() == r"step a\x1b[2J\nERROR forged \u202e"


def test_a_logger_is_filtered_once() -> None:
    assert logger("flujo.test_logs") is logger("flujo.test_logs")
    assert len(logger("flujo.test_logs").filters) == 1
