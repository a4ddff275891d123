"""No command shows a known secret or a character that steers a terminal, whatever a project and its runs hold.

Names, questions, errors, metadata and values of one hostile project pass through every command, in a pipe and on a
terminal. The text that `flujo run` returns to a pipe is the exception: a value is never rewritten.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import zstandard

import warm
from flujo.cli.root_help import COMMANDS
from flujo.state.sql.database import Database

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

SECRET = "sk-canary+screens/0123456789"
HOSTILE = "\x1b]8;;https://evil.example\x07\x1b[31mred\x9b2J\u202egnp.exe\u2066\r\x08\x7f\u200b\u2028\U000e0041[bold]x[/bold]"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
OWN_STYLE = re.compile(r"\x1b\[(?:\d+(?:;\d+)*m|\?25[lh]|\d*[AGJK])")

STEPS = f'''
"""Steps that fail with a secret, and return hostile text."""

import os
from urllib.parse import quote

from flujo.exceptions import PausedException, PipelineAbortSignal

HOSTILE = {HOSTILE!r}


def secret() -> str:
    return os.environ["CANARY_API_KEY"]


def fails(_: object = None) -> str:
    cause = ConnectionError(f"postgresql://user:{{secret()}}@db/x")
    error = ValueError(f"401 for {{secret()}} {{quote(secret(), safe='')}} {{secret()!r}} {{HOSTILE}}")
    error.add_note(f"key={{secret()}}")
    raise error from ExceptionGroup(f"parts {{secret()}}", [cause, OSError(secret())])


def leaks(_: object = None) -> str:
    return f"the key is {{secret()}}"


def halves(_: object = None) -> list[str]:
    return [secret()[:11], secret()[11:]]


def asks(_: object = None) -> str:
    raise PausedException(f"use {{secret()}}? {{HOSTILE}}")


def aborts(_: object = None) -> str:
    raise PipelineAbortSignal(f"no {{secret()}} {{HOSTILE}}")


def judged(value: object) -> str:
    return f"refused with {{secret()}} {{HOSTILE}}"


def hostile(_: object = None) -> str:
    return HOSTILE
'''

ONE = 'version: "1"\nname: {name}\nsteps:\n  - {{name: work, call: skills.canary:{call}{more}}}\n'
HALVES = """\
version: "1"
name: halves
steps:
  - {name: work, call: skills.canary:halves}
output: "{{ steps.work.output[0] + steps.work.output[1] }}"
"""
YAML_HOSTILE = HOSTILE.encode("unicode_escape").decode().replace('"', '\\"')
NAMED = f"""\
version: "1"
name: named
description: "{YAML_HOSTILE}"
steps:
  - {{name: work, call: skills.canary:hostile}}
  - kind: conditional
    name: decide
    if: "steps.work.output == 'x'"
    then: [{{name: inner, call: skills.canary:hostile}}]
  - {{kind: hitl, name: ask, message: "May I {{{{ steps.work.output }}}}?"}}
output: done
"""
NOT_YAML = f'version: "1"\nname: broken\n"{YAML_HOSTILE}": 1 # \u202e\nsteps: [{{name: "{YAML_HOSTILE}", call: x}}]\n'

SHOWING = [
    ("trace",),
    ("trace", "--json"),
    ("trace", "--full"),
    ("trace", "--format", "html"),
    ("why",),
    ("why", "--json"),
    ("logs",),
    ("logs", "--json"),
    ("tasks", "show"),
    ("tasks", "show", "--json"),
]
TURNS = 1 if os.environ.get("FLUJO_CORPUS_STRIDE") == "1" else 2
"""Each second command shows a run, the others the next run of the same blueprint; in `make soak` all show each."""

RUNS = ("fails", "leaks", "halves", "asks", "aborts", "judged", "hostile", "named")


@pytest.fixture
def canary(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose steps leak a key and steer a terminal."""
    monkeypatch.setenv("CANARY_API_KEY", SECRET)
    (project.root / "skills/canary.py").write_text(STEPS, "utf-8")
    for name in ("fails", "leaks", "asks", "aborts", "hostile"):
        project.blueprint(name, ONE.format(name=name, call=name, more=""))
    more = ", validators: [skills.canary:judged], config: {max_retries: 1}"
    project.blueprint("judged", ONE.format(name="judged", call="hostile", more=more))
    project.blueprint("halves", HALVES)
    project.blueprint("named", NAMED)
    return project


Call = Callable[..., None]


def all_output(flujo: Flujo, project: Project) -> dict[str, str]:
    """Return the output of every command, stdout and stderr, by its words."""
    shown: dict[str, str] = {}

    def call(*words: str) -> None:
        result = flujo(*words)
        is_value = "run hostile" in " ".join(words) and "--json" not in words
        shown[" ".join(words)] = result.stderr + ("" if is_value else result.stdout)

    for name in RUNS:
        for more in ([], ["--json"], ["--metadata", f"k={HOSTILE}"]):
            call("--debug", "run", name, *more)
    runs = re.findall(r'"run_id": "([0-9a-f]{32})"', flujo("tasks", "list", "--json").stdout)
    assert len(runs) > len(RUNS)
    for number, run in enumerate(runs):
        for words in SHOWING[number % TURNS :: TURNS]:
            call(*words, run)
    call_with_arguments(call, runs)
    call_listings(call, project)
    return shown


def call_with_arguments(call: Call, runs: list[str]) -> None:
    """Give secrets and hostile texts as arguments."""
    call("tasks", "resume", runs[0], "--input", SECRET)
    call("tasks", "resume", runs[0], "--input", HOSTILE)
    call("resume", runs[-1], "--retry-failed")
    call("tasks", "cancel", runs[0])
    call("run", HOSTILE, "--field", f"{HOSTILE}=1")
    call("run", "fails", "--input", SECRET)
    call("run", "fails", "--metadata", f"k={SECRET}")
    call("run", "--run-id", HOSTILE, "fails")
    call("fork", runs[-1], "--at", "work", "--set", f"context.{HOSTILE}={SECRET}")
    call("fork", runs[-1], "--at", HOSTILE, "--prompt", f"{HOSTILE}={SECRET}")
    call("fork", runs[0], "--at", "work", "--json")
    call("diff", runs[0], runs[-1])
    call("diff", runs[0], runs[1], "--json")
    call("replay", runs[-1], "--until", HOSTILE)
    call("replay", HOSTILE)
    for run in runs[:: 2 * TURNS]:
        call("replay", run)
        call("replay", run, "--json")
        call("export", run, "--output", "run.jsonl.zst")
    call("export", HOSTILE)
    call("pull", HOSTILE, "--from", f"sqlite:///{HOSTILE}")
    call("pull", runs[0], "--from", "run.jsonl.zst")
    for run in runs[:: 4 * TURNS]:
        call("cassette", "save", run, "--output", "cassette.yaml")
    call("check-resume", HOSTILE)
    call("nothing" + HOSTILE)
    call("run", "--nothing" + HOSTILE)
    call("explain", HOSTILE)
    call("plan", HOSTILE)
    call("evals", "show", HOSTILE)
    call("evals", "run", HOSTILE)
    call("evals", "list")
    call("keys", "new", "--id", HOSTILE)
    call("keys", "list")
    call("keys", "rotate", "--dry-run")
    call("tokens", "create", HOSTILE, "--role", "viewer")
    call("tokens", "create", "t", "--role", "viewer", "--metadata", f"a={HOSTILE}")
    call("tokens", "list")
    call("tokens", "revoke", HOSTILE)
    call("tokens", "hash-password")
    call("serve", "--host", HOSTILE)
    call("evals", "list", "--evaluator", HOSTILE)
    call("plan", "ask", "--input", HOSTILE)
    call("models", "pull", HOSTILE)
    call("purge", "--older-than", HOSTILE)
    call("purge", "--subject", HOSTILE)
    call("purge", "--subject", f"user_id={HOSTILE}", "--yes")
    call("trust", HOSTILE)
    call("schedules", "show", HOSTILE)
    call("schedules", "trigger", "named", "--at", HOSTILE)
    call("run", "fails", "--detach", "--queue", HOSTILE)
    call("workers", "pause", HOSTILE)


def call_listings(call: Call, project: Project) -> None:
    """Show the project and its database, also with a blueprint that cannot be read."""
    seeing = (
        "tasks list",
        "resume",
        "doctor",
        "worker --once",
        "check-resume",
        "workers",
        "queues",
        "budgets",
        "stats",
        "stats --plot",
        "notifications list",
        "acts",
        "ls",
        "lock show",
    )
    for line in (*seeing, "lock verify", "schedules list"):
        call(*line.split())
        call(*line.split(), "--json")
    for form in ("tree", "mermaid", "dot"):
        call("graph", "named", "--format", form)
    for line in (
        "explain named",
        "lock",
        "types",
        "migrate",
        "schema",
        "models list",
        "init other",
        "cache why named",
    ):
        call(*line.split())
    call("purge", "--older-than", "9d", "--yes")
    project.blueprint("broken", NOT_YAML)
    for form in ("text", "json", "github", "sarif", "junit"):
        call("validate", "-v", "--format", form)
    project.blueprint(HOSTILE.replace("/", ""), NOT_YAML)
    for word in ("validate", "ls", "run", "doctor"):
        call(word)


def test_no_command_shows_a_secret_or_steers_a_terminal(
    canary: Project, flujo: Flujo, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    shown = all_output(flujo, canary)
    commands = {words.replace("--debug ", "").split()[0] for words in shown}
    assert commands >= {name for section in COMMANDS.values() for name in section}
    for words, text in shown.items():
        assert SECRET not in text, words
        assert not STEERING.search(text.replace("\r\n", "\n")), words
    assert "***" in "".join(shown.values())
    for data in everything_stored(canary.root, store_uri):
        assert SECRET.encode() not in data
        assert SECRET[:12].encode() not in data.replace(SECRET[:11].encode(), b"")


def everything_stored(root: Path, uri: str) -> list[bytes]:
    """Return the raw files of the project's state, and every cell of its database, decompressed."""
    url = sa.make_url(uri)
    folders = [root / ".flujo"]
    if url.get_backend_name() == "sqlite":
        folders.append(Path(str(url.database)).parent)
    found = [file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()]
    database = Database(uri)
    schema = "flujo" if database.is_postgres else None
    with database.connect() as connection:
        for table in sa.inspect(connection).get_table_names(schema):
            for row in connection.execute(sa.text(f"SELECT * FROM {database.table_prefix}{table}")):
                found += [_plain(cell) for cell in row]
    database.dispose()
    assert len(found) > 100
    return found


def _plain(cell: object) -> bytes:
    if not isinstance(cell, bytes):
        return str(cell).encode("utf-8", "replace")
    try:
        return cell + zstandard.decompress(cell)
    except zstandard.ZstdError:
        return cell


@pytest.mark.parametrize(
    "words",
    [["run", "named"], ["run", "hostile"], ["run", "fails"], ["validate"], ["ls"], ["graph", "named"]],
)
def test_a_terminal_gets_no_sequence_but_our_own(canary: Project, words: list[str]) -> None:
    ours, theirs = pty.openpty()
    process = warm.Popen(
        canary.command(*words),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    process.wait(timeout=60)
    os.close(ours)
    text = OWN_STYLE.sub("", shown.decode()).replace("\r\n", "\n")
    assert not STEERING.search(text.replace("\r", "")), repr(text)
    assert SECRET not in text
    assert "\x1b[31mred" not in shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux raises this when the other end is closed
        return b""


def test_a_text_cannot_imitate_one_of_our_styles(canary: Project, flujo: Flujo) -> None:
    result = flujo("run", "hostile")
    assert result.stdout.startswith("\x1b]8;;"), "a pipe gets the value as it is"
    assert "\\x1b]8;;" in flujo("run", "named").stderr, "a question is shown to a human"
