"""Log lines name the run and the step, have no secrets, and go where they are sent."""

from __future__ import annotations

import io
import json
import logging
import warnings
from typing import TYPE_CHECKING

import pytest

from flujo.domain.current_step import CURRENT_STEP, CurrentStep
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.trace_ids import shown_trace_id
from flujo.exceptions import SettingsError
from flujo.governance.log_lines import LogFormat, about, catch_messages, configure
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = RunId("01k0-run")
STEP = CurrentStep(RUN, StepPath("draft[1]/write"), 2)
SECRET = "sk-canary-lines-0123"


pytestmark = pytest.mark.usefixtures("same_logging")


@pytest.fixture(autouse=True)
def _no_step() -> Iterator[None]:
    """Leave the step of the surroundings."""
    token = CURRENT_STEP.set(None)
    yield
    CURRENT_STEP.reset(token)


def configured(style: LogFormat = "json", levels: str = "") -> io.StringIO:
    stream = io.StringIO()
    configure(style, levels, lambda: stream)
    return stream


def test_a_json_line_names_run_step_attempt_and_trace() -> None:
    stream = configured()
    logging.getLogger("flujo.x").info("outside of runs")
    CURRENT_STEP.set(STEP)
    logging.getLogger("flujo.x").warning("it is %s", "late")
    outside, inside = map(json.loads, stream.getvalue().splitlines())
    assert outside.keys() == {"time", "level", "logger", "message"}
    assert inside.pop("time").endswith("Z")
    assert inside == {
        "level": "warning",
        "logger": "flujo.x",
        "message": "it is late",
        "run_id": RUN,
        "trace_id": shown_trace_id(RUN),
        "step": "draft[1]/write",
        "attempt": 2,
    }


def test_a_text_line_names_them_too() -> None:
    stream = configured("text")
    logging.getLogger("flujo.x").info("done", extra=about(STEP))
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == f"INFO flujo.x [{RUN} draft[1]/write #2] done\n"


@pytest.mark.parametrize("style", ["json", "text"])
def test_lines_of_any_logger_have_no_secrets_and_no_controls(style: LogFormat) -> None:
    GATE.know([SECRET], of="LINES_API_KEY")
    stream = configured(style)
    try:
        int(SECRET)
    except ValueError:
        logging.getLogger("other").exception("refused\n\x1b[2J %s", SECRET)
    written = stream.getvalue()
    assert SECRET not in written
    assert "\x1b" not in written
    assert "invalid literal for int() with base 10: '***'" in written
    assert style == "text" or len(written.splitlines()) == 1


def test_levels_are_set_for_each_logger() -> None:
    stream = configured("text", "warning, flujo.engine=debug,other=info")
    for name in ("flujo.x", "flujo.engine", "other", "another"):
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger(name), level)("%s of %s", level, name)
    assert [line.rpartition("] ")[2].split(" ", 3)[3] for line in stream.getvalue().splitlines()] == [
        "warning of flujo.x",
        *(f"{level} of flujo.engine" for level in ("debug", "info", "warning")),
        *(f"{level} of other" for level in ("info", "warning")),
        "warning of another",
    ]


@pytest.mark.parametrize("levels", ["loud", "flujo=", "=debug", "a b=info", "info;debug"])
def test_unknown_levels_are_refused_and_change_nothing(levels: str) -> None:
    before = logging.getLogger().handlers
    with pytest.raises(SettingsError, match="FLUJO_LOG"):
        configured(levels=levels)
    assert logging.getLogger().handlers is before


def test_warnings_are_written_once_in_one_form_and_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    GATE.know([SECRET], "CANARY_KEY")
    library = {"__name__": "pydantic_ai.models.openai"}
    code = compile(f"warn('no temperature with {SECRET}')", "x", "exec")
    with warnings.catch_warnings():
        catch_messages()
        warnings.simplefilter("always")
        for _ in range(2):
            exec(code, {**library, "warn": warnings.warn})
            logging.getLogger("skills.mail").error("no answer of %s", SECRET)
    logging.getLogger("flujo.engine").warning("of our own")
    assert capsys.readouterr().err.splitlines() == [
        "warning from pydantic_ai: no temperature with ***",
        "error from skills.mail: no answer of ***",
        "error from skills.mail: no answer of ***",
        "warning: of our own",
    ]
