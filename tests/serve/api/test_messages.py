"""The messages about runs over HTTP: listed, and sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.domain.access import Role
from flujo.domain.acts import Via
from flujo.services.access import tokens
from flujo.services.project.system import actor

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace

API = "/api/v1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "flujo.toml").write_text(
        'state_uri = "sqlite:///state.db"\n[notify.team]\nurl = "http://127.0.0.1:9/hook"\nsecret = "${TEAM_SECRET}"\n'
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "ask.yaml").write_text(
        'version: "1"\nname: ask\nsteps:\n  - {kind: hitl, name: ask, message: "Well?"}\n'
    )
    return tmp_path


def test_messages_are_listed_and_sent_again(browser: TestClient, workspace: Workspace) -> None:
    run_id = browser.post(f"{API}/runs", json={"blueprint": "ask"}).json()["run_id"]
    browser.post(f"{API}/runs/{run_id}/resume", json={"wait": 60})
    [message] = browser.get(f"{API}/messages", params={"run_id": run_id, "target": "team"}).json()["messages"]
    assert (message["event"], message["run_id"]) == ("paused", run_id)
    assert browser.get(f"{API}/messages", params={"state": "delivered"}).json() == {"messages": []}
    again = browser.post(f"{API}/messages/redeliver", json={"ids": [message["id"]]})
    assert (again.status_code, again.json()) == (200, {"redelivered": 1})
    unknown = browser.post(f"{API}/messages/redeliver", json={"ids": [message["id"], 99]})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "FLJ532")
    neither = browser.post(f"{API}/messages/redeliver", json={})
    assert (neither.status_code, neither.json()["title"], neither.json()["hint"]) == (
        400,
        "neither `ids` nor `given_up` is given, so it is not clear which messages to send again",
        "use one of them; `GET /api/v1/messages` lists them",
    )

    async def secret() -> str:
        limits, who = {"tenant": "t1"}, actor("ada", Via.CLI)
        made = await tokens.create(await workspace.store(), "bot", Role.ADMIN, actor=who, metadata=limits)
        return made.secret

    assert browser.portal is not None
    limited = {"authorization": f"Bearer {browser.portal.call(secret)}"}
    assert browser.get(f"{API}/messages", headers=limited).status_code == 403
    assert browser.get(f"{API}/messages", params={"run_id": run_id}, headers=limited).status_code == 404
