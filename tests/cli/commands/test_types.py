"""Python types that blueprints name, from the command line: written down once, trusted as long as the code is the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

import warm

if TYPE_CHECKING:
    import subprocess

    from cli.conftest import Flujo, Project

LABELS = "from enum import StrEnum\n\n\nclass Label(StrEnum):\n    BUG = 'bug'\n    REFUND = 'refund'\n"
MODELS = """\
from pathlib import Path
from dataclasses import dataclass

from pydantic import BaseModel

from flujo.domain.models import PipelineContext
from skills.labels import Label

(Path(__file__).parent / "imported").touch()


class Ticket(BaseModel):
    title: str
    label: Label = Label.BUG
    note: str | None = None


class Seen(PipelineContext):
    count: int = 0
    last: Ticket | None = None


@dataclass
class Found:
    number: int


def look(text: str) -> Ticket:
    return Ticket(title=text)


def find(text: str) -> list[Found]:
    return [Found(1)]


def plain(text: str) -> str:
    return text


def untold(text: str):
    return text
"""
BLUEPRINT = """\
version: "1"
name: typed
context: skills.models:Seen
input_schema: {type: string}
agents:
  sorter: {model: "local:smollm2", output_type: skills.models:Ticket}
steps:
  - {name: look, call: skills.models:look, with: {text: "{{ input }}"}, save: {count: context.count + 1}}
  - {kind: map, name: each, over: skills.models:find, steps: [{name: one, agent: sorter, input: "{{ item.number }}"}]}
  - {name: plain, call: skills.models:plain, with: {text: "{{ steps.look.output.title }} {{ context.count }}"}}
  - {name: untold, call: skills.models:untold, with: {text: "{{ steps.plain.output }}"}}
  - {name: sort, agent: sorter, when: steps.look.output.label == 'bug', input: "{{ steps.each.output.map(t, t.title) }}"}
"""


@pytest.fixture
def typed(project: Project) -> Project:
    """A project of one blueprint, whose types are classes."""
    for path in (project.root / "blueprints").glob("*.yaml"):
        path.unlink()
    (project.root / "skills/labels.py").write_text(LABELS, "utf-8")
    (project.root / "skills/models.py").write_text(MODELS, "utf-8")
    project.blueprint("typed", BLUEPRINT)
    return project


def called(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own, so that no module of the project is imported before."""
    return warm.run(project.command(*words), capture_output=True)


def test_types_are_written_once_and_checked_against_from_then_on(typed: Project) -> None:
    before = called(typed, "validate")
    assert before.returncode == 0
    assert before.stderr.splitlines() == snapshot(
        [
            "1 blueprint checked: valid (5 notes)",
            "next: flujo validate -v   (show what could not be checked)",
        ]
    )
    written = called(typed, "types")
    assert (written.returncode, written.stdout) == (0, "schemas/skills.models.json\n")
    assert "no return type is known for: skills.models:untold" in written.stderr
    file = typed.root / "schemas/skills.models.json"
    said = json.loads(file.read_text("utf-8"))
    assert list(said["sources"]) == ["skills/labels.py", "skills/models.py"]
    assert list(said["types"]) == ["Seen", "Ticket", "find", "look"], (
        "a plain annotation is read from the source"
    )
    assert said["types"]["Ticket"]["required"] == ["title", "label", "note"], (
        "as a journal has it: with its defaults"
    )
    data = file.read_bytes()
    assert called(typed, "types").stderr.endswith("1 type file up to date\n")
    assert file.read_bytes() == data
    assert called(typed, "validate").stderr == "1 blueprint checked: valid\n"


def test_what_a_class_does_not_have_is_found(typed: Project, flujo: Flujo) -> None:
    assert called(typed, "types").returncode == 0
    (typed.root / "skills/imported").unlink()
    text = BLUEPRINT
    for right, wrong in {
        "steps.look.output.title": "steps.look.output.titel",
        "item.number": "item.nubmer",
        "context.count }}": "context.cuont }}",
        "save: {count:": "save: {cuont:",
        "t.title)": "t.lable)",
        "== 'bug'": "== 'buggy'",
    }.items():
        assert right in text
        text = text.replace(right, wrong)
    typed.blueprint("typed", text)
    found = json.loads(flujo("validate", "--json").stdout)[0]["diagnostics"]
    assert [(one["code"], one["hint"]) for one in found if one["severity"] != "info"] == [
        ("FLJ214", "did you mean `count`?"),
        ("FLJ204", "did you mean `number`?"),
        ("FLJ204", "did you mean `title`?"),
        ("FLJ204", "did you mean `count`?"),
        ("FLJ260", "did you mean `bug`?"),
        ("FLJ204", "did you mean `label`?"),
    ]
    assert not (typed.root / "skills/imported").exists(), "a check imports nothing"


def test_types_of_changed_code_are_not_trusted(typed: Project) -> None:
    assert called(typed, "types").returncode == 0
    (typed.root / "skills/imported").unlink()
    (typed.root / "skills/labels.py").write_text(LABELS.replace("refund", "return"), "utf-8")
    found = called(typed, "validate")
    assert found.stdout.splitlines() == snapshot(
        [
            "warning[FLJ254]: the recorded schema of `skills.models:Seen` is ignored: skills/labels.py has changed since schemas/skills.models.json was written",
            " --> blueprints/typed.yaml:3:10",
            "  |",
            "3 | context: skills.models:Seen",
            "  |          ^^^^^^^^^^^^^^^^^^",
            "  = hint: run `flujo types` to record it again",
        ]
    )
    assert not (typed.root / "skills/imported").exists(), "the digests say it"
    checked = called(typed, "types", "--check")
    assert (checked.returncode, checked.stdout) == (1, "schemas/skills.models.json\n")
    assert called(typed, "types").returncode == 0
    assert called(typed, "types", "--check").returncode == 0


def test_files_that_nothing_names_any_more_go_and_others_stay(typed: Project) -> None:
    assert called(typed, "types").returncode == 0
    ours, theirs = typed.root / "schemas/skills.models.json", typed.root / "schemas/ticket.json"
    theirs.write_text('{"type": "object"}', "utf-8")
    typed.blueprint("typed", 'version: "1"\nname: typed\nsteps: [{name: a, call: skills.models:plain}]\n')
    checked = called(typed, "types", "--check", "--json")
    assert json.loads(checked.stdout) == {
        "files": [],
        "changed": ["schemas/skills.models.json"],
        "untold": [],
    }
    assert "removed" in called(typed, "types").stdout
    assert not ours.exists()
    assert theirs.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 2, "sources": {}, "types": {}}'])
def test_an_unreadable_type_file_is_reported_and_ignored(typed: Project, flujo: Flujo, text: str) -> None:
    (typed.root / "schemas/skills.models.json").write_text(text, "utf-8")
    found = flujo("validate")
    assert found.exit_code == 0
    assert "FLJ254" in found.stdout


def test_code_that_cannot_be_imported_is_an_error_with_its_reason(typed: Project) -> None:
    (typed.root / "skills/labels.py").write_text("raise RuntimeError('not here')\n", "utf-8")
    found = called(typed, "types")
    assert found.returncode == 3
    assert "RuntimeError: not here" in found.stderr
    assert not (typed.root / "schemas/skills.models.json").exists()
