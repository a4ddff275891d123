"""`flujo init` writes a project in which everything works at once, and takes nothing away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import warm
from flujo.services.admin.scaffold import TEMPLATES
from support import plugin_variables

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo

RUNS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "hello": (("hello", "--input", "Ada"), 0, "Hello, Ada! Your name has 3 letters.\n"),
    "agent": (("ask", "--input", "Where is A-1001?"), 0, '"tool_calls": '),
    "hitl": (("publish", "--input", "we open on Monday"), 5, ""),
    "batch": (("import_orders", "--input", "data/orders.jsonl"), 0, '{"failed": 2, "lines": [3, 5]}\n'),
    "service": (("refund", "--field", "order=A-1", "--field", "amount=50"), 0, "A-1: 50.00 EUR, receipt "),
}
"""A run of each template: its words, its exit code, and a part of its output."""
RUNNABLE = [pytest.param(name, marks=[pytest.mark.model] if name == "agent" else []) for name in RUNS]


def test_the_first_commands_of_a_new_project_work(flujo: Flujo, tmp_path: Path) -> None:
    made = flujo("init", str(tmp_path / "new"))
    assert made.exit_code == 0
    assert f"next: cd {tmp_path / 'new'}\nnext: flujo run hello --input Ada\n" in made.stderr
    inside = ("-C", str(tmp_path / "new"))
    assert flujo(*inside, "migrate").exit_code == 0
    assert flujo(*inside, "run").exit_code == 0


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_project_of_a_template_is_valid_and_runs(
    name: str, flujo: Flujo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, code, output = RUNS[name]
    assert flujo("init", "--template", name, str(tmp_path / "new")).exit_code == 0
    monkeypatch.chdir(tmp_path / "new")
    monkeypatch.setenv("FLUJO_STRICT_DSL", "1")
    checked = flujo("validate")
    assert checked.exit_code == 0, checked.stderr
    assert checked.stderr == "1 blueprint checked: valid\n"
    done = flujo("run", *words)
    assert done.exit_code == code, done.stderr
    assert output in done.stdout


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tests_of_a_template_pass(name: str, flujo: Flujo, tmp_path: Path) -> None:
    root = tmp_path / "new"
    flujo("init", "--template", name, str(root))
    # Warnings of plugins that this environment has are not errors of the template.
    options = ["-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "."]
    # Without a folder of its own it ends with deleting what other runs of pytest have left, which may take minutes.
    options += ["--basetemp", str(tmp_path / "pytest")]
    done = warm.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={name: os.environ[name] for name in os.environ if not name.startswith(("PYTEST_", "FLUJO_"))}
        | plugin_variables(),
    )
    assert done.returncode == 0, done.stdout


def test_the_templates_are_listed(flujo: Flujo, tmp_path: Path) -> None:
    listed = flujo("init", "--list", "--json")
    assert [each["name"] for each in json.loads(listed.stdout)] == list(TEMPLATES)
    assert [line.split()[0] for line in flujo("init", "--list").stdout.splitlines()[1:]] == list(TEMPLATES)


def test_an_unknown_template_is_an_error_that_writes_nothing(flujo: Flujo, tmp_path: Path) -> None:
    result = flujo("init", "--template", "agnt", str(tmp_path / "new"))
    assert result.exit_code == 2
    assert "did you mean `agent`?" in result.stderr
    assert not (tmp_path / "new").exists()
    assert "add `--list`" in flujo("init", "--json", str(tmp_path / "new")).stderr


def test_a_file_in_the_way_is_an_error_that_says_what_to_do(flujo: Flujo, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for place in ("taken", "taken/new"):
        result = flujo("init", str(tmp_path / place))
        assert (result.exit_code, "hint: choose an empty folder" in result.stderr) == (2, True)
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_editor_finds_the_schema_that_the_blueprint_names(flujo: Flujo, tmp_path: Path) -> None:
    flujo("init", str(tmp_path / "new"))
    blueprint = tmp_path / "new/blueprints/hello.yaml"
    first = blueprint.read_text("utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (blueprint.parent / named).read_text("utf-8") == flujo("schema").stdout


def test_what_is_there_is_never_overwritten(flujo: Flujo, tmp_path: Path) -> None:
    root = tmp_path / "new"
    (root / "blueprints").mkdir(parents=True)
    mine = root / "blueprints/hello.yaml"
    mine.write_text("mine", "utf-8")
    result = flujo("init", str(root))
    assert result.exit_code == 2
    assert "already contains blueprints/hello.yaml; nothing was written" in result.stderr
    assert mine.read_text("utf-8") == "mine"
    assert sorted(path.name for path in root.rglob("*")) == ["blueprints", "hello.yaml"]


def test_a_readme_and_a_gitignore_stay_as_they_are(flujo: Flujo, tmp_path: Path) -> None:
    root = tmp_path / "new"
    root.mkdir()
    (root / ".gitignore").write_text("mine\n", "utf-8")
    result = flujo("init", str(root))
    assert result.exit_code == 0
    assert (root / ".gitignore").read_text("utf-8") == "mine\n"
    assert "kept" in result.stderr


@pytest.mark.parametrize("name", ['with "quotes"', "back\\slash", "ünïcode"])
def test_any_name_gives_a_readable_flujo_toml(name: str, flujo: Flujo, tmp_path: Path) -> None:
    flujo("init", str(tmp_path / "new"), "--name", name)
    assert flujo("-C", str(tmp_path / "new"), "run").exit_code == 0
