"""With `--json`, stdout has one JSON document whatever happens, and `--json=FIELDS` selects of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flujo.cli.app import imported
from flujo.cli.json_fields import FIELDS
from flujo.cli.root_help import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

    from cli.conftest import Flujo, Project


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something itself, by its words."""
    for section in COMMANDS.values():
        for name in section:
            command = imported(name)
            inner = getattr(command, "commands", {})
            if not inner or command.invoke_without_command:
                yield name, command
            for word, each in inner.items():
                yield f"{name} {word}", each


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


WITH_JSON = [name for name, command in commands() if "--json" in options_of(command)]


def required(name: str) -> list[str]:
    """Return words for the required arguments and options of a command."""
    (command,) = (each for other, each in commands() if other == name)
    words = []
    for parameter in command.params:
        if parameter.required:
            value = "0.5" if parameter.opts[0] == "--score" else "done" if "--as" in parameter.opts else "x"
            words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return words


def error_of(result: Result) -> dict[str, Any]:
    data = json.loads(result.stdout)
    assert list(data) == ["error"]
    error: dict[str, Any] = data["error"]
    assert error["exit_code"] == result.exit_code
    assert error["message"]
    return error


def test_an_error_of_every_command_is_json_too(flujo: Flujo, project: Project) -> None:
    (project.root / "flujo.toml").write_text("nonsense = 1", "utf-8")
    for name in WITH_JSON:
        usage = error_of(flujo(*name.split(), "--json", "--nonsense"))
        assert (usage["exit_code"], usage["code"]) == (2, "FLJ600")
        assert f"flujo {name} --help" in usage["hint"]
        if name not in ("explain", "trust"):  # they read no settings
            error = error_of(flujo(*name.split(), *required(name), "--json"))
            assert (error["exit_code"], bool(error["code"])) == (2, True), name


def test_an_unknown_field_is_an_error_before_anything_happens(flujo: Flujo) -> None:
    for name in WITH_JSON:
        error = error_of(flujo(*name.split(), *required(name), "--json=nonsense"))
        if name not in ("tasks send", "purge", "tokens create"):  # they look at their other words first
            assert error["message"] == f"--json: 'nonsense' is not a field of `flujo {name}`"
            assert all(field in error["hint"] for field in FIELDS[name].split())


def test_every_command_with_json_has_fields() -> None:
    assert set(WITH_JSON) == set(FIELDS)


def test_json_selects_fields_and_takes_no_other_argument(flujo: Flujo) -> None:
    assert flujo("run", "ask", "--run-id", "r1").exit_code == 5
    listed = json.loads(flujo("runs", "list", "--json=run_id,status").stdout)
    assert listed == [{"run_id": "r1", "status": "paused"}]
    shown = json.loads(flujo("tasks", "show", "--json=status", "r1").stdout)
    assert shown == {"status": "paused"}
    assert json.loads(flujo("tasks", "show", "--json", "r1").stdout)["run_id"] == "r1"
    extra = error_of(flujo("runs", "list", "--json", "run_id"))
    assert "run_id" in extra["message"]
    assert "fields are selected with `--json=FIELDS`" in extra["hint"]


def test_an_invalid_blueprint_is_json_with_its_place(flujo: Flujo, project: Project) -> None:
    project.blueprint("bad", 'version: "1"\nname: bad\nsteps:\n  - name: a\n    cal: skills.greet:greet\n')
    error = error_of(flujo("run", "bad", "--json"))
    assert error["exit_code"] == 4
    assert (error["file"], error["line"]) == ("blueprints/bad.yaml", error["diagnostics"][0]["span"]["line"])


def test_a_failed_run_has_the_same_error_with_its_path(flujo: Flujo) -> None:
    failed = flujo("run", "flaky", "--input", "x", "--json")
    error = json.loads(failed.stdout)["error"]
    assert (error["path"], error["exit_code"], failed.exit_code) == ("second", 1, 1)
