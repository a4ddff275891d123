"""The blocks of CONTRIBUTING's "A new kind of step" work in a copy of the source, from YAML and Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from docs.test_examples import QUIETLY, ROOT, Block, blocks, environment

if TYPE_CHECKING:
    from pathlib import Path

HEADING = "## A new kind of step, through the code"
SKILLS = "def double(data: int) -> int:\n    return data * 2\n"


@dataclass(frozen=True)
class Copy:
    """A copy of the source with the new kind, and a project."""

    folder: Path

    def python(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run Python with the copy, in the project."""
        env = environment() | {"PYTHONPATH": str(self.folder / "src")}
        del env["PYTHONDONTWRITEBYTECODE"]  # each command would compile what the new kind changes
        command = [sys.executable, *argv]
        return subprocess.run(command, cwd=self.folder, env=env, check=False, text=True, **QUIETLY)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("repeat")
    for part in ("src", "alembic"):
        shutil.copytree(ROOT / part, folder / part)
    (folder / "flujo.toml").write_text('[blueprints]\nallow_callables = ["skills.*"]\n')
    (folder / "skills").mkdir()
    (folder / "skills/numbers.py").write_text(SKILLS)
    for block in section_blocks():
        follow(block, folder)
    return Copy(folder)


def section_blocks() -> list[Block]:
    """Return the blocks of the section, in its order."""
    page = ROOT / "CONTRIBUTING.md"
    lines = page.read_text("utf-8").splitlines()
    start = lines.index(HEADING)
    end = next(number for number, line in enumerate(lines) if number > start and line.startswith("## "))
    return [block for block in blocks(page) if start < block.line <= end]


def follow(block: Block, folder: Path) -> None:
    """Write the file of a block, or change it where the block is a diff."""
    file = folder / block.words["title"]
    if block.language != "diff":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, "utf-8")
        return
    for hunk in block.text.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        text = file.read_text("utf-8")
        assert text.count(before) == 1, f"{block.place}: not once in {block.words['title']}:\n{before}"
        file.write_text(text.replace(before, "".join(line[1:] for line in lines if line[0] != "-")), "utf-8")


def test_the_new_kind_runs_from_yaml(copy: Copy) -> None:
    done = copy.python("-m", "flujo", "run", "thrice", "--input", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == 40


def test_the_new_kind_runs_from_python(copy: Copy) -> None:
    done = copy.python("thrice.py")
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("graph", "thrice", "--format", "tree"), "again [repeat]"),
        (("ls", "thrice"), "repeat: its steps 3 times"),
        (("explain", "thrice"), "again runs its steps 3 times."),
    ],
)
def test_tree_walkers_know_the_new_kind(copy: Copy, command: tuple[str, ...], words: str) -> None:
    done = copy.python("-m", "flujo", *command)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout + done.stderr


def test_a_lock_holds_the_new_kind(copy: Copy) -> None:
    done = copy.python("-m", "flujo", "lock")
    assert done.returncode == 0, done.stderr
    lock = tomllib.loads((copy.folder / "flujo.lock").read_text("utf-8"))
    own = lock["blueprints"]["blueprints/thrice.yaml"]["steps"]["again"]
    assert json.loads(own) == {"kind": "repeat", "times": 3, "body": ["double"]}


def test_a_tree_of_the_new_kind_is_written_as_yaml(copy: Copy) -> None:
    program = (
        "from flujo import CallableRef, Pipeline, Step, write_blueprint\n"
        "from flujo.domain.steps import RepeatStep\n"
        "step = RepeatStep('again', Step('double', 'skills.numbers:double'), times=3)\n"
        "print(write_blueprint(Pipeline(step, 'thrice'), 'x.yaml')['x.yaml'])\n"
    )
    done = copy.python("-c", program)
    assert "kind: repeat" in done.stdout, done.stderr
    assert "times: 3" in done.stdout


def test_an_error_inside_the_new_kind_is_found(copy: Copy) -> None:
    text = (copy.folder / "blueprints/thrice.yaml").read_text("utf-8")
    wrong = text.replace("double, call", 'double, when: "contexts.x", call')
    (copy.folder / "wrong.yaml").write_text(wrong.replace("name: thrice", "name: wrong"), "utf-8")
    done = copy.python("-m", "flujo", "validate", "wrong.yaml")
    assert done.returncode != 0
    assert "contexts" in done.stdout + done.stderr
