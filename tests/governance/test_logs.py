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


def test_a_logger_is_filtered_once() -> None:
    assert logger("flujo.test_logs") is logger("flujo.test_logs")
    assert len(logger("flujo.test_logs").filters) == 1
