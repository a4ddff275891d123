"""A deployed project: blueprints against the lock, agents, schedules, workers, queues, budgets, the outbox."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from flujo.domain.access import Principal, Role
from flujo.domain.reach import Reach
from flujo.exceptions import AccessDenied
from flujo.services.checks.locking import LOCK_FILE
from flujo.services.deployed import Deployed
from flujo.services.inspection.schedule_client import ScheduleClient
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.deliveries import Deliveries
from receiver import SECRET, receiving
from serve.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TELL = """\
version: "1"
name: tell
agents:
  writer: {model: "openai:gpt-5-mini", instructions: "Write."}
schedule: {cron: "0 6 * * *"}
steps:
  - {kind: hitl, name: ask, message: "Begin?"}
  - {name: write, agent: writer, input: "{{ steps.ask.output }}"}
"""

PLAIN = """\
version: "1"
name: plain
steps:
  - {kind: hitl, name: ask, message: "Begin?"}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("deployed")
    (root / "blueprints").mkdir()
    (root / "blueprints/tell.yaml").write_text(TELL)
    (root / "blueprints/broken.yaml").write_text("version: '1'\nname: broken\nsteps: 7\n")
    (root / "blueprints/plain.yaml").write_text(PLAIN)
    with served(root) as client:
        yield client


def rows(shown: str, title: str) -> list[str]:
    """Return the rows of the table under a heading as texts."""
    table = re.search(rf"<h2[^>]*>{title}</h2>.*?<tbody>(.*?)</tbody>", shown, re.DOTALL)
    assert table is not None, title
    found = re.findall(r"<tr>(.*?)</tr>", table[1], re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in found]


def test_each_table_has_what_the_project_and_its_database_have(browser: Served) -> None:
    browser.here(ScheduleClient(browser.workspace).apply)
    browser.here(TaskClient(browser.workspace).start_task, "plain", queue="default")
    shown = browser.get("/deployed").text
    broken, _, tell = rows(shown, "Blueprints")
    assert re.search(r"broken .*invalid .*error", broken)
    assert tell == "tell blueprints/tell.yaml no lock"
    assert rows(shown, "Agents") == ["writer openai:gpt-5-mini 1"]
    assert re.search(r"tell tell active 0 6 \* \* \* .*06:00", rows(shown, "Schedules")[0])
    assert rows(shown, "Workers") == ["No worker is alive: flujo worker starts one."]
    assert rows(shown, "Queues") == ["default 1 0 0 0 0"]
    assert rows(shown, "Outbox") == ["No messages."]


def test_a_blueprint_that_the_lock_does_not_hold_differs(browser: Served) -> None:
    lock = browser.workspace.project.root / LOCK_FILE
    lock.write_text("{}")
    assert " differs" in rows(browser.get("/deployed").text, "Blueprints")[2]
    lock.unlink()


def test_a_limited_principal_sees_only_its_blueprints(browser: Served) -> None:
    limited = Deployed(browser.workspace, Principal("ada", Role.ADMIN, Reach(blueprints=("other",))))
    assert not limited.blueprints()
    assert not limited.names()
    assert not limited.sees_everything
    for read in (limited.workers, limited.queues, limited.budgets, limited.outbox, limited.schedules):
        with pytest.raises(AccessDenied):
            browser.here(read)
    with pytest.raises(AccessDenied):
        limited.pipeline("tell")


@pytest.mark.parametrize("message", ["7", "x", "9" * 30])
def test_a_message_that_does_not_exist_is_refused(browser: Served, message: str) -> None:
    assert browser.post(f"/deployed/outbox/{message}").status_code == 404


def test_a_message_is_sent_again_from_the_page_and_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints/plain.yaml").write_text(PLAIN)
    monkeypatch.setenv("OPS_SECRET", SECRET)
    with receiving() as receiver:
        (tmp_path / "flujo.toml").write_text(
            f'[notify.ops]\nurl = "{receiver.url}"\nsecret = "${{OPS_SECRET}}"\n'
        )
        with served(tmp_path) as browser:

            async def send() -> None:
                sending = Deliveries(browser.workspace, browser.workspace.store)
                await sending.look()
                await sending.settled()
                await sending.aclose()

            run_id = browser.post("/api/v1/runs", json={"blueprint": "plain"}).json()["run_id"]
            browser.post(f"/api/v1/runs/{run_id}/resume", json={"wait": 60})
            browser.here(send)
            [row] = rows(browser.get("/deployed").text, "Outbox")
            assert " delivered 1 " in row
            [action] = re.findall(r'action="(/deployed/outbox/\d+)"', browser.get("/deployed").text)
            again = browser.post(action, follow_redirects=False)
            assert (again.status_code, again.headers["location"]) == (303, "/deployed#outbox")
            assert " pending " in rows(browser.get("/deployed").text, "Outbox")[0]
            browser.here(send)
            assert " delivered " in rows(browser.get("/deployed").text, "Outbox")[0]
        [first, second] = receiver.arrived
        assert first == second, "the receiver knows it again by its id"
