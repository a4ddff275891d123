"""`--env NAME`: another database and other models, without touching a blueprint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from cli.conftest import Flujo, Project

ASKING = """\
version: "1"
name: asking
agents:
  writer: {model: "openai:gpt-5-mini"}
  judge: {model: "openai:gpt-5-mini"}
steps:
  - {name: write, agent: writer, input: x}
  - {name: judge, agent: judge}
"""

DEV = """
[env.dev]
state_uri = "sqlite:///dev.db"
agents."*".model = "local:smollm2"
agents.judge.model = "local:other"
agents.stranger.model = "local:nobody"
"""


def _models(flujo: Flujo, *words: str) -> dict[str, str]:
    listed = json.loads(flujo(*words, "ls", "asking", "--only", "agent", "--json").stdout)
    return {item["name"]: item["detail"] for item in listed}


def _prepare(project: Project) -> None:
    project.blueprint("asking", ASKING)
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write(DEV)


def test_an_environment_gives_agents_other_models(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepare(project)
    before = {"writer": "openai:gpt-5-mini", "judge": "openai:gpt-5-mini"}
    now = {"writer": "local:smollm2", "judge": "local:other"}
    assert _models(flujo) == before
    assert _models(flujo, "--env", "dev") == now
    monkeypatch.setenv("FLUJO_ENV", "dev")
    assert _models(flujo) == now


def test_an_environment_has_its_own_database(flujo: Flujo, project: Project) -> None:
    _prepare(project)
    flujo("--env", "dev", "run", "hello", "--input", "Ada", "--run-id", "one")
    assert (project.root / "dev.db").is_file()
    assert flujo("trace", "one").exit_code == 8
    assert flujo("--env", "dev", "trace", "one").exit_code == 0


def test_doctor_shows_settings_from_the_environment(flujo: Flujo, project: Project) -> None:
    _prepare(project)
    said = json.loads(flujo("--env", "dev", "doctor", "--json").stdout)
    settings = {row["key"]: row for row in said["settings"]}
    [project_found] = [one["detail"] for one in said["checks"] if one["name"] == "project"]
    assert project_found.endswith("flujo.toml with [env.dev]")
    assert "[env" not in flujo("doctor").stdout
    assert settings["agents.*.model"]["value"] == "local:smollm2"
    assert settings["state_uri"]["origin"].startswith("flujo.toml:")
