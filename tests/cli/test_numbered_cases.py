"""Each of the 154 bad inputs, given to the command line: the exit code, the place and the words that follow."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from bad.listed import LISTED
from flujo.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

    from bad.listing import Listed


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("FLUJO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


def flujo(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="flujo")


def test_the_list_is_complete() -> None:
    assert [case.number for case in LISTED] == list(range(1, 155))


@pytest.mark.parametrize("case", LISTED, ids=lambda case: case.id)
def test_a_bad_input_is_answered_with_its_rule_its_place_and_words_that_help(
    case: Listed, root: Path
) -> None:
    case.write(root)
    for words in case.before:
        assert flujo(*words).exit_code == 0
    if case.make is not None:
        case.make(root)
    result = flujo(*case.command)
    assert result.exit_code == case.exit_code, result.output
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert "Traceback" not in result.output
    assert not case.hidden or case.hidden not in result.output
    said = _finding(case) if case.at is not None else result.output
    assert [word for word in case.words if word not in said] == [], said
    assert case.at is not None or case.code in result.output
    assert not list(root.rglob("marker")), "something that the blueprint names was imported"


def _finding(case: Listed) -> str:
    """Return the message and the hint of the finding at the case's place."""
    written = flujo(*case.command, "--json").stdout
    assert not case.hidden or case.hidden not in written
    found: list[dict[str, Any]] = [one for report in json.loads(written) for one in report["diagnostics"]]
    fitting = [
        one
        for one in found
        if (one["code"], one["severity"]) == (case.code, case.severity)
        and (one["span"]["file"], one["span"]["line"], one["span"]["column"]) == (case.file, *(case.at or ()))
    ]
    assert fitting, found
    return " ".join(f"{one['message']} {one['hint']}" for one in fitting)
