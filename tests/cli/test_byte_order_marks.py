"""A byte order mark, which editors on Windows write, changes nothing in any file or pipe that Flujo reads."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

import warm

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

MARK = b"\xef\xbb\xbf"

ASKS = """\
version: "1"
name: asks
input_schema: {type: object, required: [n], properties: {n: {type: integer}}}
agents: {writer: {model: test:x, instructions_file: p.md}}
steps:
  - {name: write, agent: writer, input: "{{ input.n }}"}
"""


def mark(project: Project, *names: str) -> None:
    for name in names:
        path = project.root / name
        path.write_bytes(MARK + path.read_bytes())


def test_a_project_is_read_as_without_marks(project: Project, flujo: Flujo) -> None:
    (project.root / "blueprints/p.md").write_text("Write.", "utf-8")
    project.blueprint("asks", ASKS)
    assert flujo("lock").exit_code == 0
    before = json.loads(flujo("lock", "show", "--json").stdout)
    validated = flujo("validate", "--json").stdout
    mark(project, "flujo.toml", "flujo.lock")
    assert flujo("lock", "verify").exit_code == 0
    assert json.loads(flujo("lock", "show", "--json").stdout) == before
    mark(project, "blueprints/hello.yaml", "blueprints/asks.yaml", "blueprints/p.md", "skills/greet.py")
    assert flujo("validate", "--json").stdout == validated
    assert flujo("run", "hello", "--input", "Ada").stdout.startswith("Hello, Ada!")


@pytest.mark.parametrize("name", ["in.json", "in.txt"])
def test_an_input_file_is_read_as_without_a_mark(project: Project, flujo: Flujo, name: str) -> None:
    (project.root / name).write_bytes(MARK + (b"Ada" if name == "in.txt" else b'"Ada"'))
    result = flujo("run", "hello", "--input-file", name)
    assert result.stdout.startswith("Hello, Ada!"), result.stderr


@pytest.mark.parametrize("words", [["run", "hello"], ["run", "hello", "--input", "-"]])
def test_a_pipe_is_read_as_without_a_mark(project: Project, words: list[str]) -> None:
    done = warm.run(project.command(*words), input="\ufeffAda", capture_output=True)
    assert done.stdout.startswith("Hello, Ada!"), done.stderr


def test_a_typed_text_is_read_as_without_a_mark(flujo: Flujo) -> None:
    assert flujo("run", "hello", "--input", "\ufeffAda").stdout.startswith("Hello, Ada!")


def test_a_pipe_in_another_encoding_is_refused_with_its_place(project: Project) -> None:
    program = warm.Popen(
        project.command("run", "hello"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    program.stdin.buffer.write("Zoë".encode("latin-1"))
    _, err = program.communicate()
    assert program.wait() == 2
    assert err.splitlines()[-2:] == [
        "error: stdin: byte 0xEB at offset 2 is not UTF-8 text [FLJ601]",
        "  hint: save it as UTF-8 (it looks like Latin-1 or Windows-1252)",
    ]


@pytest.mark.parametrize("name", ["flujo.toml", "flujo.lock", "blueprints/hello.yaml"])
def test_a_file_in_another_encoding_is_refused_with_its_place(
    project: Project, flujo: Flujo, name: str
) -> None:
    flujo("lock")
    path = project.root / name
    path.write_bytes(path.read_text("utf-8").encode("utf-16"))
    result = flujo("lock", "verify")
    assert result.exit_code != 0
    assert "UTF-16" in result.output
    assert "Traceback" not in result.output
    assert f"{path.name}:1" in result.output
