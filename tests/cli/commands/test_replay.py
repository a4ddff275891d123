"""`flujo replay`: a run on the command line, compared with its own files or those on disk."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from agents.provider_server import Response, provider_server
from flujo.cli.exit_codes import ExitCode
from local_mcp import shop_toml

if TYPE_CHECKING:
    import pytest

    from cli.conftest import Flujo, Project

ORDER = """\
version: "1"
name: order
input_schema: {type: string}
steps:
  - name: write
    call: skills.work:note
    with: {text: "{{ input }}"}
output: "{{ steps.write.output }}"
"""


def test_a_run_is_replayed_without_a_call_also_after_a_change(flujo: Flujo, project: Project) -> None:
    project.blueprint("order", ORDER)
    assert flujo("run", "order", "--input", "a").exit_code == 0
    project.blueprint("order", ORDER.replace("{{ input }}", "{{ input }}!"))
    result = flujo("replay")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.endswith("(completed): 1 entry, no difference\n")
    assert project.notes() == ["a"]


def test_the_first_difference_of_a_blueprint_on_disk_ends_with_1(flujo: Flujo, project: Project) -> None:
    project.blueprint("order", ORDER)
    flujo("run", "order", "--input", "a")
    project.blueprint("order", ORDER.replace("{{ input }}", "{{ input }}!"))
    result = flujo("replay", "@last", "--blueprint", "order")
    assert result.exit_code == ExitCode.RUN_FAILED
    assert "diverges at write: input" in result.stderr
    assert 'recorded: {"text": "a"}' in result.stderr
    assert 'now:      {"text": "a!"}' in result.stderr
    told = flujo("replay", "--blueprint", "order", "--json")
    assert told.exit_code == ExitCode.RUN_FAILED
    assert json.loads(told.stdout)["difference"] == {
        "path": "write",
        "cause": "input",
        "expected": {"text": "a"},
        "got": {"text": "a!"},
    }
    assert project.notes() == ["a"]


def test_an_unknown_run_or_step_is_refused(flujo: Flujo, project: Project) -> None:
    project.blueprint("order", ORDER)
    flujo("run", "order", "--input", "a")
    unknown = flujo("replay", "@last", "--until", "wrte")
    assert unknown.exit_code == ExitCode.USAGE
    assert "did you mean `write`?" in unknown.stderr
    assert flujo("replay", "nope").exit_code == ExitCode.STATE


def test_a_run_is_replayed_and_explained_from_a_file(flujo: Flujo, project: Project) -> None:
    project.blueprint("order", ORDER)
    flujo("run", "order", "--input", "a")
    written = flujo("replay", "@last", "--export", "run.jsonl.zst")
    assert (written.exit_code, written.stdout) == (0, "")
    assert written.stderr.startswith("wrote run.jsonl.zst (")
    again = flujo("replay", "@last", "--export", "again.jsonl.zst", "--json")
    assert json.loads(again.stdout)["file"] == "again.jsonl.zst"
    shutil.rmtree(project.root / ".flujo")
    project.blueprint("order", ORDER.replace("{{ input }}", "{{ input }}!"))
    assert flujo("replay", "run.jsonl.zst").stderr.endswith("(completed): 1 entry, no difference\n")
    differs = flujo("replay", "./run.jsonl.zst", "--blueprint", "order")
    assert (differs.exit_code, "diverges at write: input" in differs.stderr) == (ExitCode.RUN_FAILED, True)
    assert flujo("why", "run.jsonl.zst").exit_code == 0
    (project.root / "run.jsonl.zst").write_bytes(b"cut")
    for command in ("replay", "why"):
        damaged = flujo(command, "run.jsonl.zst")
        assert (damaged.exit_code, "FLJ560" in damaged.stderr) == (8, True)
    assert not (project.root / ".flujo").exists()


DESK = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  clerk:
    model: openai-chat:gpt-5-mini
    tools: [{call: "skills.work:note", effect: read}, {mcp: help, allow: [lookup], effect: read}]
steps:
  - {kind: granular, name: serve, agent: clerk, input: "{{ input }}"}
  - {name: write, call: "skills.work:note", with: {text: "{{ previous }}"}}
"""


def test_a_file_is_replayed_traced_and_explained_in_an_empty_folder(
    flujo: Flujo, project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.blueprint("desk", DESK)
    toml = project.root / "flujo.toml"
    shop = shop_toml(LEDGER=project.root / "ledger.txt").replace("[mcp.shop]", "[mcp.help]")
    (project.root / "ledger.txt").touch()
    toml.write_text(f"{toml.read_text('utf-8')}\n{shop}timeout = 60\n", "utf-8")
    with provider_server() as server:
        server.will_answer(Response(tool_call=("note", {"text": "a"})), "noted")
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        ran = flujo("run", "desk", "--input", "a", "--run-id", "far")
        assert ran.exit_code == 0, ran.output
    empty = tmp_path_factory.mktemp("empty")
    assert flujo("export", "far", "-o", str(empty / "far.jsonl.zst")).exit_code == 0
    monkeypatch.chdir(empty)
    replayed = flujo("replay", "far.jsonl.zst")
    assert replayed.exit_code == 0, replayed.output
    assert "no difference\nnot compared, because the code is not here: `note`\n" in replayed.stderr
    assert json.loads(flujo("replay", "far.jsonl.zst", "--json").stdout)["not_compared"] == ["note"]
    assert flujo("trace", "far.jsonl.zst").exit_code == 0
    explained = flujo("why", "far.jsonl.zst")
    assert (explained.exit_code, "cannot be read" in explained.output) == (0, False)
    assert "next: flujo trace far.jsonl.zst" in explained.stderr
    assert [each.name for each in empty.iterdir()] == ["far.jsonl.zst"]
