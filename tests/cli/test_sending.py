"""`flujo tasks send`: an event reaches the run that waits for it, or is refused and nothing changes."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

PAY = """\
version: "1"
name: pay
input_schema: {type: object, required: [order], properties: {order: {type: string}}}
steps:
  - kind: event
    name: paid
    event: order.paid
    key: input.order
    event_schema: {type: object, required: [amount], properties: {amount: {type: integer}}}
    deadline_s: 3d
output: "{{ steps.paid.output.amount }}"
"""


@pytest.fixture(autouse=True)
def _blueprint(project: Project) -> None:
    project.blueprint("pay", PAY)


def begun(flujo: Flujo, order: str = "A7") -> str:
    """Start a run that waits, and return its id."""
    run_id = f"run-{order}"
    result = flujo("run", "pay", "--field", f"order={order}", "--run-id", run_id)
    assert result.exit_code == 5, result.output
    assert "waits for the event order.paid with the key A7" in result.stderr or order != "A7"
    return run_id


def listed(flujo: Flujo, run: str) -> dict[str, Any]:
    """Return a run as `tasks show --json` shows it."""
    shown: dict[str, Any] = json.loads(flujo("tasks", "show", run, "--json").stdout)
    return shown


@pytest.mark.parametrize("address", [["run-A7"], ["--key", "A7"]])
def test_an_event_is_taken_and_the_run_resumes_with_its_payload(flujo: Flujo, address: list[str]) -> None:
    run = begun(flujo)
    sent = flujo("tasks", "send", *address, "order.paid", "--field", "amount=12", "--by", "ada")
    assert (sent.exit_code, sent.stdout) == (0, f"taken by {run} at paid\n")
    assert "flujo resume run-A7" in sent.stderr
    shown = flujo("tasks", "show", run)
    assert "no process has resumed it yet" in shown.stdout
    assert "ada (cli)  send  paid" in shown.stdout
    assert "event order.paid came to `paid` by ada" in flujo("tasks", "list", "--status", "waiting").stdout
    assert flujo("resume", run).stdout == "12\n"


def test_an_event_that_comes_first_is_kept_and_taken(flujo: Flujo) -> None:
    sent = flujo("tasks", "send", "--key", "A7", "order.paid", "--input", '{"amount": 3}', "--json")
    assert sent.exit_code == 0
    assert json.loads(sent.stdout)["taken"] == []
    assert "kept for 7 days" in sent.stderr
    assert flujo("run", "pay", "--field", "order=A7").stdout == "3\n"


def test_what_a_run_waits_for_is_shown(flujo: Flujo) -> None:
    run = begun(flujo)
    shown = flujo("tasks", "show", run)
    assert "waiting for the event `order.paid` with the key `A7` at `paid` since " in shown.stdout
    assert "flujo tasks send run-A7 order.paid --field amount=AMOUNT" in shown.stderr
    [wait] = listed(flujo, run)["waits"]
    assert (wait["kind"], wait["event"], wait["key"]) == ("event", "order.paid", "A7")
    waiting = flujo("tasks", "list", "--status", "waiting").stdout
    assert "paid: waits for the event order.paid with the key A7" in waiting
    assert "paid  event  waiting" in flujo("trace", run).stdout
    explained = flujo("explain", "blueprints/pay.yaml").stdout
    assert "waits for the event order.paid with the key input.order, at most 3d" in explained
    assert "paid [event]" in flujo("graph", "pay").stdout


def test_a_kept_event_that_does_not_fit_is_shown_with_the_reason(flujo: Flujo) -> None:
    flujo("tasks", "send", "--key", "A7", "order.paid", "--input", "soon", "--id", "w1")
    run = begun(flujo)
    shown = flujo("tasks", "show", run).stdout
    assert "kept event w1: order.paid by " in shown
    assert "it does not fit: the value must be `object`" in shown
    [kept] = listed(flujo, run)["events"]
    assert (kept["event_id"], kept["payload"]) == ("w1", "soon")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run-A7", "order.payd"], 8, "did you mean `order.paid`?"),
        (["run-A7", "order.paid", "--field", "amount=many"], 2, "is not a whole number"),
        (["run-A7", "order.paid"], 2, "is missing"),
        (["--key", "A7", "order.paid", "--input", "[]"], 2, "FLJ601"),
        (["run-Z9", "order.paid"], 8, "FLJ506"),
        (["order.paid"], 2, "flujo tasks send RUN EVENT"),
        (["--key", "A7", "run-A7", "order.paid"], 2, "flujo tasks send --key KEY EVENT"),
        (["run-A7", "order.paid", "--all", "--field", "amount=1"], 2, "has no key"),
        (["--key", "", "order.paid"], 2, "1 to 1000"),
        (["--key", "A7", "order paid"], 2, "not the name of an event"),
        (["--key", "A7", "order.paid", "--id", "a b", "--field", "amount=1"], 2, "the id of an event"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_refused_and_nothing_changes(
    flujo: Flujo, words: list[str], code: int, said: str
) -> None:
    run = begun(flujo)
    before = listed(flujo, run)
    result = flujo("tasks", "send", *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert listed(flujo, run) == before


def test_an_id_is_used_once(flujo: Flujo) -> None:
    run = begun(flujo)
    words = ["tasks", "send", run, "order.paid", "--id", "w1"]
    assert flujo(*words, "--field", "amount=1").exit_code == 0
    again = flujo(*words, "--field", "amount=1")
    assert (again.exit_code, again.stdout) == (0, f"taken by {run} at paid\n")
    assert "sent before; nothing has changed" in again.stderr
    other = flujo(*words, "--field", "amount=2")
    assert other.exit_code == 8
    assert "FLJ525" in other.stderr


def test_an_event_to_a_run_that_has_ended_is_refused(flujo: Flujo) -> None:
    run = begun(flujo)
    flujo("tasks", "send", run, "order.paid", "--field", "amount=1")
    flujo("resume", run)
    late = flujo("tasks", "send", run, "order.paid", "--field", "amount=1")
    assert late.exit_code == 8
    assert "is completed and takes no event 'order.paid' [FLJ526]" in late.stderr


def test_an_event_to_all_reaches_every_waiting_run(flujo: Flujo, project: Project) -> None:
    project.blueprint(
        "every", PAY.replace("key: input.order", "key: '\"all\"'").replace("name: pay", "name: every")
    )
    for order in ("A", "B"):
        flujo("run", "every", "--field", f"order={order}", "--run-id", order)
    sent = flujo("tasks", "send", "--key", "all", "--all", "order.paid", "--field", "amount=1")
    assert sent.stdout == "taken by A at paid\ntaken by B at paid\n"
    none = flujo("tasks", "send", "--key", "all", "--all", "order.paid", "--input", '{"amount": 1}')
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no run waits for this event now" in none.stderr


def _until(project: Project, status: str) -> None:
    file, deadline = f"file:{project.root}/.flujo/state.db?mode=ro", time.monotonic() + 60
    asked = "SELECT 1 FROM runs WHERE status = ?"
    while time.monotonic() < deadline:
        # Before the first run there is no file.
        with suppress(sqlite3.OperationalError), sqlite3.connect(file, uri=True) as database:
            if database.execute(asked, (status,)).fetchone():
                return
        time.sleep(0.05)
    raise AssertionError(f"no run became {status}")


@pytest.mark.parametrize(
    "words", [["run", "pay", "--field", "order=A7", "--run-id", "run-A7"], ["resume", "run-A7"]]
)
def test_with_wait_a_command_stays_until_the_event_has_come(
    flujo: Flujo, project: Project, words: list[str]
) -> None:
    if words[0] == "resume":
        begun(flujo)
    process = project.start(*words, "--wait")
    _until(project, "waiting")
    flujo("tasks", "send", "--key", "A7", "order.paid", "--input", '{"amount": 5}')
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "5\n"), said


def test_ctrl_c_during_the_wait_leaves_the_run_waiting(flujo: Flujo, project: Project) -> None:
    process = project.start("run", "pay", "--field", "order=A7", "--run-id", "run-A7", "--wait")
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run itself still waits" in said
    assert listed(flujo, "run-A7")["status"] == "waiting"
