"""stdout carries the results alone; a stream that is closed, full or no longer read ends no command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import warm
from cli.conftest import ASK, Project
from flujo.services.admin.scaffold import scaffold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COMMANDS = {
    "--version": 0,
    "--help": 0,
    "tasks list --help": 0,
    "ls": 0,
    "validate": 0,
    "schema": 0,
    "explain hello": 0,
    "graph hello --format mermaid": 0,
    "doctor": 0,
    "migrate": 0,
    "run hello --input Ada": 0,
    "run ask": 5,
    "run nothing": 2,
    "run hello --nothing": 2,
    "tasks list": 0,
    "tasks show @last": 0,
    "trace @last": 0,
    "purge --older-than 1d --yes": 0,
    "worker --once": 0,
    "lock show": 0,
}
"""Command → its exit code."""

QUIET = (
    ("unread stdout", "unread stderr", "empty stdin"),
    ("closed stderr", "closed stdin"),
    ("full stderr",),
)
"""Ways in which no result is lost."""

NOT_WRITTEN = (("closed stdout", "it is closed"), ("full stdout", "No space left on device"))
"""Ways in which results are lost, and the reason that the command reports."""

LOST = "error: the output cannot be written to stdout"


EACH = os.environ.get("FLUJO_CORPUS_STRIDE") == "1"
"""Whether each command meets each way (`make soak`); otherwise the ways take turns."""


def of(words: str, ways: Sequence[Any]) -> Sequence[Any]:
    """Return the ways that a command meets."""
    return ways if EACH else [ways[list(COMMANDS).index(words) % len(ways)]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a paused run and a lock."""
    root = tmp_path_factory.mktemp("used") / "demo"
    scaffold(root, "demo")
    made = Project(root)
    made.blueprint("ask", ASK)
    for words in (("run", "ask"), ("lock",)):
        warm.run(made.command(*words), capture_output=True)
    return root


@pytest.fixture
def used(project: Project, state: Path) -> Project:
    """A copy of the project with a paused run and a lock."""
    shutil.copytree(state, project.root, dirs_exist_ok=True)
    return project


def run(project: Project, words: str, streams: dict[str, Any]) -> tuple[int, str]:
    """Return the exit code and both outputs."""
    usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = warm.Popen(project.command(*words.split()), **usual | streams)
    shown = "".join(process.communicate(timeout=100))
    assert "bug in Flujo" not in shown
    assert "Traceback" not in shown
    return process.wait(), shown


@contextmanager
def broken(how: str) -> Iterator[dict[str, Any]]:
    """Yield streams that are broken in this way."""
    kind, _, name = how.partition(" ")
    if kind in ("closed", "empty"):
        yield {name: warm.CLOSED if kind == "closed" else subprocess.DEVNULL}
    elif kind == "full":
        with open("/dev/full", "wb") as device:  # noqa: PTH123 - a device
            yield {name: device}
    else:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            yield {name: pipe}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_without_usable_streams_ends_with_its_exit_code(used: Project, words: str) -> None:
    for hows in of(words, QUIET):
        with ExitStack() as stack:
            streams = {
                name: stream for how in hows for name, stream in stack.enter_context(broken(how)).items()
            }
            code, shown = run(used, words, streams)
        assert (code, LOST in shown) == (COMMANDS[words], False), (hows, shown)


@pytest.mark.parametrize("words", COMMANDS)
def test_lost_results_are_reported_in_one_line(used: Project, words: str) -> None:
    for how, why in of(words, NOT_WRITTEN):
        with broken(how) as streams:
            code, shown = run(used, words, streams)
        assert code == (COMMANDS[words] or int(LOST in shown)), (how, shown)
        assert [line for line in shown.splitlines() if LOST in line] in ([f"{LOST}: {why}"], []), (how, shown)


def test_lost_results_are_an_error(used: Project) -> None:
    with broken("full stdout") as streams:
        code, shown = run(used, "tasks list", streams)
    assert code == 1
    assert shown.splitlines()[-1] == "error: the output cannot be written to stdout: No space left on device"


def test_a_run_whose_messages_are_lost_completes_and_is_stored(project: Project) -> None:
    with broken("unread stdout") as out, broken("unread stderr") as err:
        assert run(project, "run hello --input Ada", out | err)[0] == 0
    assert json.loads(run(project, "tasks list --json", {})[1])[0]["status"] == "completed"


RAW = """\
import os


def noise(text: str) -> str:
    os.read(0, 1)
    os.write(1, b"x" * 9000)
    os.write(2, b"x" * 9000)
    return text
"""


def test_no_file_of_a_run_gets_the_number_of_a_closed_stream(noisy: Project) -> None:
    (noisy.root / "skills/noise.py").write_text(RAW, "utf-8")
    closed = {"stdin": warm.CLOSED, "stdout": warm.CLOSED, "stderr": warm.CLOSED}
    assert run(noisy, "run noisy", closed)[0] == 1
    assert json.loads(run(noisy, "tasks list --json", {})[1])[0]["status"] == "completed"
    assert run(noisy, "doctor", {})[0] == 0


NOISE = """\
import ctypes
import os
import subprocess
import sys

print("noise at import")


def noise(text: str) -> str:
    print("noise of print")
    sys.stdout.write("noise of sys.stdout\\n")
    os.write(1, b"noise of os.write\\n")
    libc = ctypes.CDLL(None)
    libc.printf(b"noise of C\\n")
    libc.fflush(None)
    subprocess.run(["echo", "noise of a subprocess"], check=True)
    return text
"""

NOISY = """\
version: "1"
name: noisy
steps:
  - name: make
    call: skills.noise:noise
    with: {text: done}
    output_schema: {type: string}
output: "{{ steps.make.output }}"
"""

SOURCES = ("at import", "of print", "of sys.stdout", "of os.write", "of C", "of a subprocess")


@pytest.fixture
def noisy(project: Project) -> Project:
    (project.root / "skills/noise.py").write_text(NOISE, "utf-8")
    project.blueprint("noisy", NOISY)
    project.blueprint(
        "ask", ASK.replace("skills.greet:greet", "skills.noise:noise").replace("name: Ada", "text: Ada")
    )
    return project


def output(project: Project, words: str) -> tuple[str, str]:
    done = warm.run(project.command(*words.split()), capture_output=True)
    return done.stdout, done.stderr


def test_only_the_result_reaches_stdout(noisy: Project) -> None:
    out, err = output(noisy, "run noisy")
    assert out == "done\n"
    assert [source for source in SOURCES if f"noise {source}\n" not in err] == []


def test_json_is_json_whatever_a_step_prints(noisy: Project) -> None:
    assert json.loads(output(noisy, "run noisy --json")[0])["output"] == "done"
    assert json.loads(output(noisy, "run ask --json --paused-ok")[0])["status"] == "paused"
    assert json.loads(output(noisy, "tasks resume @last --field ok=true --json")[0])["output"] is True


def test_a_worker_keeps_stdout_for_its_events(noisy: Project) -> None:
    output(noisy, "run ask")
    output(noisy, "tasks resume @last --field ok=true --detach")
    out, _ = output(noisy, "worker --once --json")
    assert all(json.loads(line) for line in out.splitlines())


def test_commands_that_import_code_keep_stdout_clean(noisy: Project) -> None:
    assert "noise" not in output(noisy, "types")[0]
    assert "noise" not in output(noisy, "doctor --json")[0]


def test_a_program_is_started_with_the_streams_of_the_command_line(noisy: Project) -> None:
    """Python itself starts here: a warm one would have been started with streams of its own."""
    flujo = f"{sys.executable} -m flujo -C {noisy.root}"
    lines = (
        f"{flujo} run noisy 2>/dev/null; {flujo} ls >&- 2>/dev/null; {flujo} --version >/dev/full; echo $?"
    )
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "done"
    assert done.stdout.splitlines()[-1] == "1"
    assert done.stderr == "error: the output cannot be written to stdout: No space left on device\n"


def test_the_library_leaves_the_streams_alone(tmp_path: Path) -> None:
    program = (
        "import sys, os\nbefore = (sys.stdout, sys.stderr, os.fstat(1).st_ino)\n"
        "import asyncio\nfrom flujo import Flujo, Pipeline, Step\n"
        "def say(data: str) -> str:\n    print('from a step')\n    return data\n"
        "pipeline = Pipeline(Step('say', say), 'p')\n"
        "asyncio.run(Flujo(pipeline, persist_state=False).run_result_async('a'))\n"
        "assert before == (sys.stdout, sys.stderr, os.fstat(1).st_ino)\n"
    )
    done = warm.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "from a step\n"), done.stderr
