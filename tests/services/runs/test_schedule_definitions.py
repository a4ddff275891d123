"""Schedules of blueprints, of flujo.toml and of registered pipelines are found, each name once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import flujo
from flujo.domain.schedules import Schedule
from flujo.exceptions import BlueprintError, FlujoError, ScheduleConflict, SettingsError
from flujo.services.project.project import find_project
from flujo.services.runs import pipeline_registry
from flujo.services.runs.schedule_definitions import defined_schedules
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 'steps:\n  - {kind: hitl, name: ask, message: "Go on?"}\n'
TABLE = "[schedules.{name}]\nblueprint = '{blueprint}'\ncron = '0 2 * * *'\n{more}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    monkeypatch.setattr(pipeline_registry, "_factories", [])
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "flujo.toml").write_text("[blueprints]\n")
    _blueprint(tmp_path, "plain", "")
    return tmp_path


def _blueprint(folder: Path, name: str, more: str) -> None:
    text = f'version: "1"\nname: {name}\n{more}\n{STEPS}'
    (folder / "blueprints" / f"{name}.yaml").write_text(text)


def _toml(folder: Path, text: str) -> None:
    (folder / "flujo.toml").write_text(f"[blueprints]\n\n{text}")


def _found(folder: Path) -> dict[str, str]:
    found = defined_schedules(Workspace(find_project(folder)))
    return {name: f"{one.pipeline.name} {one.place}" for name, one in found.items()}


def test_every_place_of_a_schedule_is_read(folder: Path) -> None:
    _blueprint(folder, "one", 'schedule: {cron: "0 2 * * *"}')
    _blueprint(folder, "two", 'schedule: [{cron: "0 2 * * *"}, {cron: "0 3 * * *", name: later}]')
    _toml(folder, TABLE.format(name="table", blueprint="plain", more=""))
    step = flujo.HumanInTheLoopStep("ask", message="?")
    flujo.register(
        lambda: flujo.Pipeline(
            step, "python", schedules=[Schedule(cron="0 4 * * *"), Schedule(cron="0 5 * * *", name="p2")]
        )
    )
    assert _found(folder) == {
        "later": "two blueprints/two.yaml",
        "one": "one blueprints/one.yaml",
        "p2": "python pipeline 'python'",
        "python": "python pipeline 'python'",
        "table": "plain flujo.toml:3",
        "two": "two blueprints/two.yaml",
    }


@pytest.mark.parametrize("where", ["blueprint", "flujo.toml"])
def test_two_schedules_of_one_name_are_a_conflict(folder: Path, where: str) -> None:
    _blueprint(folder, "one", 'schedule: {cron: "0 2 * * *"}')
    if where == "blueprint":
        _blueprint(folder, "other", 'schedule: {cron: "0 2 * * *", name: one}')
    else:
        _toml(folder, TABLE.format(name="one", blueprint="plain", more=""))
    with pytest.raises(
        ScheduleConflict, match=r"two schedules are named 'one': in .* and in blueprints/"
    ) as e:
        _found(folder)
    assert e.value.schedule == "one"


def test_a_table_that_cannot_run_is_refused_with_its_line(folder: Path) -> None:
    _toml(folder, TABLE.format(name="x", blueprint="plan", more=""))
    with pytest.raises(
        SettingsError, match=r"flujo\.toml:3: \[schedules\.x\]: no blueprint is called 'plan'"
    ):
        _found(folder)
    _blueprint(folder, "needs", "input_schema: {type: object}")
    _toml(folder, TABLE.format(name="x", blueprint="needs", more=""))
    with pytest.raises(SettingsError, match=r"flujo\.toml:3: \[schedules\.x\]: .* has no `input`"):
        _found(folder)
    _toml(folder, TABLE.format(name="x", blueprint="needs", more="input = {a = 1}"))
    assert _found(folder) == {"x": "needs flujo.toml:3"}


def test_a_file_with_an_error_can_be_left_out(folder: Path) -> None:
    _blueprint(folder, "one", 'schedule: {cron: "0 2 * * *"}')
    _blueprint(folder, "bad", 'schedule: {cron: "0 0 31 2 *"}')
    with pytest.raises(BlueprintError):
        _found(folder)
    errors: list[tuple[str, FlujoError]] = []
    found = defined_schedules(
        Workspace(find_project(folder)), lambda place, error: errors.append((place, error))
    )
    assert list(found) == ["one"]
    [(place, error)] = errors
    assert (place, type(error)) == ("blueprints/bad.yaml", BlueprintError)


def test_a_definition_has_all_that_its_runs_depend_on(folder: Path) -> None:
    _blueprint(folder, "one", 'schedule: {cron: "0 2 * * *"}')
    workspace = Workspace(find_project(folder))
    before = defined_schedules(workspace)["one"].record()
    assert before == defined_schedules(Workspace(find_project(folder)))["one"].record()
    _blueprint(folder, "one", 'schedule: {cron: "0 2 * * *", queue: slow}')
    after = defined_schedules(workspace)["one"].record()
    assert (before.digest != after.digest, before.closure != after.closure) == (True, True)
    assert (after.pipeline, after.project, after.schedule.queue) == ("one", "", "slow")
