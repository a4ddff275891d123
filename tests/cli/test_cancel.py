"""A cancel from another process: the process that executes the run ends it, and both say what happened."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.steps import HumanInTheLoopStep
from flujo.state.store import SqlStateStore
from support import NOTHING, call, pipeline
from support import start as run_tree

if TYPE_CHECKING:
    from pathlib import Path

    import warm
    from cli.conftest import Flujo, Project

BLUEPRINT = """\
version: "1"
name: held
steps:
  - kind: step
    name: first
    call: skills.work:note
    with: {text: first}
%s
  - name: last
    call: skills.work:note
    with: {text: last}
"""

STEPS = {
    "await": "  - {name: hold, call: 'skills.held:waits'}",
    "thread": "  - {name: hold, call: 'skills.held:sleeps'}",
    "swallows": "  - {name: hold, call: 'skills.held:swallows'}",
    "ignores": "  - {name: hold, call: 'skills.held:ignores'}",
    "retry": (
        "  - {name: hold, call: 'skills.held:fails', config: {max_retries: 5, retry: {initial_s: 30, jitter: 0}}}"
    ),
    "map": """\
  - kind: map
    name: hold
    over: "range"
    max_concurrency: 4
    steps:
      - {name: item, call: 'skills.held:item', with: {number: "{{ item }}"}}
""".replace('"range"', json.dumps(str(list(range(200))))),
    "call": (
        "  - {name: hold, call: 'skills.held:charges', effect: unsafe, enforce_idempotency: true, with: {amount: 5}}"
    ),
}

CALLABLES = '''\
"""Steps that do not end by themselves."""

import asyncio
import time
from pathlib import Path

HERE = Path(__file__).parent.parent


def begun() -> None:
    (HERE / "waiting").touch()


async def waits() -> None:
    begun()
    await asyncio.sleep(600)


def sleeps() -> None:
    begun()
    time.sleep(120)


async def swallows() -> str:
    begun()
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        pass
    return "swallowed"


async def ignores() -> None:
    begun()
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass


def fails() -> None:
    begun()
    raise ValueError("not now")


async def item(number: int) -> int:
    with (HERE / "items.txt").open("a") as items:
        items.write(f"{number}\\\\n")
    if number == 10:
        begun()
    await asyncio.sleep(600 if number >= 10 else 0)
    return number


async def charges(amount: int, *, idempotency_key: str) -> None:
    begun()
    await asyncio.sleep(600)
'''.replace("\\\\n", "\\n")


@pytest.fixture
def held(project: Project, store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    (project.root / "skills/held.py").write_text(CALLABLES, "utf-8")
    return project


def start(held: Project, flujo: Flujo, how: str) -> warm.Popen:
    """Run a blueprint whose second step is held, in a process of its own, until that step has begun."""
    held.blueprint("held", BLUEPRINT % STEPS[how])
    assert flujo("migrate").exit_code == 0
    process = held.start("run", "held")
    begin(held, process)
    return process


def begin(held: Project, process: warm.Popen) -> None:
    """Wait until the held step of a process has begun."""
    until = time.monotonic() + 60
    waiting: Path = held.root / "waiting"
    while not waiting.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("how", ["await", "thread", "swallows", "ignores", "retry", "map"])
def test_the_process_that_executes_the_run_ends_it(held: Project, flujo: Flujo, how: str) -> None:
    process = start(held, flujo, how)
    began = time.monotonic()
    result = flujo("tasks", "cancel", "@last", "--by", "ada")
    assert result.exit_code == 0
    assert result.stderr.startswith("cancelled; completed steps are kept, the run cannot be resumed")
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert (process.returncode, out) == (1, "")
    assert "cancelled: cancelled by ada" in err
    assert "already exists" not in err
    assert "Traceback" not in err
    assert held.notes() == ["first"], "no further step began"
    (run,) = json.loads(flujo("tasks", "list", "--status", "cancelled", "--json").stdout)
    assert run["status"] == "cancelled"
    if how == "map":
        items = (held.root / "items.txt").read_text().split()
        assert len(items) <= 10 + 4, "no further item began"


def test_a_call_that_was_sent_is_listed_as_in_doubt(held: Project, flujo: Flujo) -> None:
    process = start(held, flujo, "call")
    result = flujo("tasks", "cancel", "@last", "--by", "ada")
    assert result.exit_code == 0
    assert "in doubt: `hold` called `skills.held:charges`; its outcome is not recorded" in result.stderr
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled by ada" in err
    assert "in doubt: `hold` called `skills.held:charges`" in err
    shown: Any = json.loads(flujo("tasks", "show", "@last", "--json").stdout)
    assert [call["path"] for call in shown["in_doubt"]] == ["hold"]


@pytest.mark.parametrize("verb", ["run", "resume"])
def test_the_json_of_the_cancelled_process_lists_the_calls_in_doubt(
    verb: str, held: Project, flujo: Flujo
) -> None:
    asks = "  - {kind: hitl, name: ask, message: 'go on?'}\n" if verb == "resume" else ""
    held.blueprint("held", BLUEPRINT % (asks + STEPS["call"]))
    assert flujo("migrate").exit_code == 0
    if verb == "run":
        process = held.start("run", "held", "--json")
    else:
        assert flujo("run", "held", "--paused-ok").exit_code == 0
        assert flujo("tasks", "resume", "@last", "--input", "yes", "--detach").exit_code == 0
        process = held.start("resume", "@last", "--json")
    begin(held, process)
    cancelled: Any = json.loads(flujo("tasks", "cancel", "@last", "--json").stdout)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    shown: Any = json.loads(flujo("tasks", "show", "@last", "--json").stdout)
    assert [call["tool"] for call in shown["in_doubt"]] == ["skills.held:charges"]
    assert json.loads(out)["in_doubt"] == cancelled["in_doubt"] == shown["in_doubt"]
    assert json.loads(out)["status"] == "cancelled"
    again: Any = json.loads(flujo("run", "held", "--run-id", shown["run_id"], "--json").stdout)
    assert again["in_doubt"] == shown["in_doubt"]


def test_the_json_of_a_failed_run_and_of_a_completed_one_lists_calls_in_doubt(
    held: Project, flujo: Flujo
) -> None:
    held.blueprint("held", BLUEPRINT % STEPS["call"].replace("effect:", "config: {timeout_s: 0.2}, effect:"))
    stopped: Any = json.loads(flujo("run", "held", "--json").stdout)
    shown: Any = json.loads(flujo("tasks", "show", "@last", "--json").stdout)
    assert [call["path"] for call in shown["in_doubt"]] == ["hold"]
    assert stopped["in_doubt"] == shown["in_doubt"]
    held.blueprint("held", BLUEPRINT % "  - {name: plain, call: 'skills.work:note', with: {text: plain}}")
    assert json.loads(flujo("run", "held", "--json").stdout)["in_doubt"] == []


FINALLY = "finally:\n  - {name: close, call: 'skills.work:note', with: {text: '{{ ended.status }}'}}\n"
ASKS = "  - {kind: hitl, name: ask, message: 'go on?'}\n"


def test_the_command_executes_finally_of_a_run_that_waits(held: Project, flujo: Flujo) -> None:
    held.blueprint("held", BLUEPRINT % ASKS + FINALLY)
    assert flujo("migrate").exit_code == 0
    assert flujo("run", "held", "--paused-ok").exit_code == 0
    result = flujo("tasks", "cancel", "@last")
    assert (result.exit_code, held.notes()) == (0, ["first", "cancelled"])
    assert result.stderr.startswith("cancelled; completed steps are kept")


def test_the_command_leaves_finally_of_a_pipeline_in_python_to_its_process(
    held: Project, flujo: Flujo, store_uri: str
) -> None:
    assert flujo("migrate").exit_code == 0

    async def begin() -> None:
        async with aclosing(await SqlStateStore.open(store_uri)) as store:
            ask = HumanInTheLoopStep("ask", message="?")
            await run_tree(pipeline(ask, finally_=call("close", NOTHING)), store)

    asyncio.run(begin())
    result = flujo("tasks", "cancel", "run")
    assert result.exit_code == 0
    assert "the process that resumes the run executes its `finally`" in result.stderr
    assert "flujo resume run" in result.stderr
    assert "orphaned" in flujo("tasks", "list").stdout
