"""`--log-format` and `FLUJO_LOG`: with JSON, stderr has nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo


pytestmark = pytest.mark.usefixtures("same_logging")


def test_all_of_stderr_is_json(flujo: Flujo) -> None:
    result = flujo("--log-format", "json", "run", "hello", "--input", "Ada")
    assert result.exit_code == 0
    assert result.stdout == "Hello, Ada! Your name has 3 letters.\n"
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == ["greet", "count"]
    [run_id] = {line["run_id"] for line in lines if line["logger"] == "flujo.runs"}
    assert f"flujo trace {run_id[:12]}" in lines[-1]["message"]


def test_an_error_is_a_json_line_too(flujo: Flujo) -> None:
    result = flujo("--log-format", "json", "run", "hallo")
    assert result.exit_code == 2
    first, *_ = [json.loads(line) for line in result.stderr.splitlines()]
    assert (first["level"], first["logger"]) == ("error", "flujo.cli")
    assert first["message"].endswith("[FLJ600]")


def test_the_variable_alone_writes_text(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_LOG", "info")
    result = flujo("run", "hello", "--input", "Ada")
    assert " INFO flujo.runs [" in result.stderr
    assert "hello started\n" in result.stderr


def test_an_unknown_level_is_an_error_with_a_hint(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_LOG", "loud")
    result = flujo("--log-format", "json", "ls")
    assert result.exit_code == 2
    assert "error: FLUJO_LOG has 'loud'" in result.stderr
    assert "hint: the levels are debug, info, warning, error, critical" in result.stderr
