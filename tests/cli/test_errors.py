"""Every error becomes words, a hint and a documented exit code; a traceback only on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from flujo import exceptions
from flujo.cli.exit_codes import ExitCode, of_error, of_run
from flujo.domain.run import RunStatus
from flujo.services.checks import validation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project


def kinds(root: type[exceptions.FlujoError]) -> Iterator[type[exceptions.FlujoError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == exceptions.__name__:
            yield from kinds(kind)


def test_the_exit_codes_are_frozen() -> None:
    assert {code.name: code.value for code in ExitCode} == snapshot(
        {
            "OK": 0,
            "RUN_FAILED": 1,
            "USAGE": 2,
            "CALLABLE": 3,
            "BLUEPRINT": 4,
            "PAUSED": 5,
            "BUDGET": 6,
            "LOCK": 7,
            "STATE": 8,
            "CANNOT_TELL": 9,
            "INTERRUPTED": 130,
            "TERMINATED": 143,
        }
    )


def test_every_error_has_its_exit_code() -> None:
    codes: dict[int, set[str]] = {}
    for kind in kinds(exceptions.FlujoError):
        codes.setdefault(of_error(kind("x")), set()).add(kind.__name__)
    assert {"SettingsError", "InputRejected", "ProviderUnavailable"} <= codes[2]
    assert codes[3] == {"CallableError"}
    assert "BlueprintError" in codes[4]
    assert codes[7] == {"LockMismatch"}
    assert {"StateError", "RunNotFound", "ResumeConflict", "SchemaOutdated", "CorruptState"} <= codes[8]
    assert {"StepFailed", "StepTimeout", "ModelUnavailable"} <= codes[1]


@pytest.mark.parametrize("status", list(RunStatus))
def test_every_state_of_a_run_has_its_exit_code(status: RunStatus) -> None:
    expected = {"completed": 0, "paused": 5, "waiting": 5, "interrupted": 130}
    assert of_run(status, None) == of_run(status, "FLJ401") == expected.get(status, 1)


def test_a_run_that_its_budget_ended_has_an_exit_code_of_its_own() -> None:
    assert of_run("failed", "FLJ421") == ExitCode.BUDGET
    assert of_run("completed", "FLJ421") == ExitCode.OK


def test_an_error_is_a_line_with_its_code_and_a_hint(flujo: Flujo) -> None:
    result = flujo("run", "hallo")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == snapshot("""\
error: no blueprint is called 'hallo' [FLJ600]
  hint: did you mean `hello`?
""")


def test_a_flujo_error_shows_a_traceback_only_with_debug(flujo: Flujo) -> None:
    assert "Traceback" not in flujo("run", "hallo").stderr
    assert "Traceback" in flujo("--debug", "run", "hallo").stderr


def test_an_unexpected_error_is_reported_as_a_bug(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> str:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(validation, "schema_text", broken)
    result = flujo("schema")
    assert result.exit_code == 1
    assert result.stderr == snapshot("""\
error: ZeroDivisionError: division by zero
  hint: this is a bug in Flujo; run the command again with --debug for the traceback
""")
    assert "Traceback" in flujo("schema", "--debug").stderr


def test_no_error_shows_a_secret(flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_API_KEY", "canary-77")

    def broken(**_: object) -> str:
        raise OSError("cannot reach postgresql://u:canary-88@h/db with canary-77")

    monkeypatch.setattr(validation, "schema_text", broken)
    for words in (["schema"], ["--debug", "schema"]):
        shown = flujo(*words).stderr
        assert "canary" not in shown
        assert "cannot reach postgresql://u:***@h/db with ***" in shown


@pytest.mark.parametrize("uri", ["mysql://u:canary-99@h/db", "nonsense"])
def test_a_database_that_cannot_be_used_is_refused_without_its_password(
    uri: str, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", uri)
    result = flujo("tasks", "list")
    assert result.exit_code == 2
    assert "canary" not in result.output


def test_a_file_that_is_not_a_database_is_a_state_error(flujo: Flujo, project: Project) -> None:
    (project.root / ".flujo").mkdir()
    (project.root / ".flujo/state.db").write_bytes(b"not a database, but long enough to be read as one" * 40)
    result = flujo("tasks", "list")
    assert result.exit_code == 8
    assert "Traceback" not in result.stderr


def test_a_project_with_broken_settings_says_where(flujo: Flujo, project: Project) -> None:
    (project.root / "flujo.toml").write_text("[aros]\ncoercion_tolerant_level = 9\n", "utf-8")
    result = flujo("run")
    assert result.exit_code == 2
    assert "flujo.toml:2: `aros.coercion_tolerant_level` must be less than or equal to 2" in result.stderr
