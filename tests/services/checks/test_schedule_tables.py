"""`flujo validate` checks `[schedules.NAME]` against the blueprint, with the line of flujo.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import SettingsError
from flujo.services.checks.validation import check, rendered
from flujo.services.project.project import find_project

if TYPE_CHECKING:
    from pathlib import Path

BLUEPRINT = """\
version: "1"
name: nightly
input_schema: {type: object, required: [folder], properties: {folder: {type: string}}}
schedule: {cron: "0 2 * * *", input: {folder: inbox}}
steps:
  - {kind: hitl, name: ask, message: "Go on?"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "nightly.yaml").write_text(BLUEPRINT)
    return tmp_path


def _findings(folder: Path, text: str) -> list[str]:
    (folder / "flujo.toml").write_text(text)
    [report] = check(find_project(folder), ["blueprints/nightly.yaml"])
    return [f"{each.code} {each.span.file}:{each.span.line}" for each in report.diagnostics if each.is_error]


def test_a_table_that_fits_has_no_finding(folder: Path) -> None:
    table = '[schedules.noon]\nblueprint = "nightly"\ncron = "0 12 * * *"\ninput = {folder = "a"}\n'
    assert _findings(folder, table) == []


def test_an_input_that_does_not_fit_is_found_at_its_line(folder: Path) -> None:
    table = '[schedules.noon]\nblueprint = "nightly"\ncron = "0 12 * * *"\n'
    assert _findings(folder, table) == ["FLJ298 flujo.toml:1"]
    assert _findings(folder, table + "input = {folder = 3}\n") == ["FLJ298 flujo.toml:4"]
    [report] = check(find_project(folder), ["blueprints/nightly.yaml"])
    assert "4 | input = {folder = 3}" in rendered(report.diagnostics[0], report.sources)


def test_the_name_of_a_schedule_of_the_blueprint_is_taken(folder: Path) -> None:
    table = '[schedules.nightly]\nblueprint = "nightly"\ncron = "0 12 * * *"\ninput = {folder = "a"}\n'
    assert _findings(folder, table) == ["FLJ299 flujo.toml:1"]


def test_a_priority_out_of_range_is_an_error_of_the_settings(folder: Path) -> None:
    table = (
        '[schedules.x]\nblueprint = "nightly"\ncron = "0 12 * * *"\nqueue = "default"\npriority = 1000001\n'
    )
    with pytest.raises(
        SettingsError, match="priority 1000001: use a whole number from -1,000,000 to 1,000,000"
    ):
        _findings(folder, table)


def test_an_unknown_blueprint_is_an_error_of_the_settings(folder: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"flujo\.toml:1: \[schedules\.x\]: no blueprint is called 'nope'"
    ):
        _findings(folder, '[schedules.x]\nblueprint = "nope"\ncron = "0 12 * * *"\n')
