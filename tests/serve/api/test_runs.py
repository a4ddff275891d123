"""`GET /api/v1/runs` and what is below it: the same data as `--json` writes, page by page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, HumanInTheLoopStep, Pipeline, Step, TaskClient
from flujo.services.inspection.trace_views import detail_data, task_data
from flujo.services.inspection.views import line_data, result_data, run_data

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace

API = "/api/v1"


@pytest.fixture
def three(browser: TestClient, workspace: Workspace) -> list[str]:
    """Three runs on the server's database: two have ended, the last one asks."""

    async def made() -> list[str]:
        store = await workspace.store()
        plain = Pipeline(Step("use", lambda data: f"got {data}"), name="plain")
        asking = Pipeline(HumanInTheLoopStep("ask", "Well?"), name="asking")
        for number, tree in enumerate([plain, plain, asking], start=1):
            async with Flujo(tree, store=store, recovery=False) as runner:
                await runner.run_result_async("x", run_id=f"r{number}", metadata={"number": number})
        return ["r1", "r2", "r3"]

    assert browser.portal is not None
    return browser.portal.call(made)


def test_a_list_has_the_conditions_and_pages_of_the_client(browser: TestClient, three: list[str]) -> None:
    def listed(**given: Any) -> list[str]:
        return [each["run_id"] for each in browser.get(f"{API}/runs", params=given).json()["runs"]]

    first = browser.get(f"{API}/runs", params={"limit": 2}).json()
    assert [each["run_id"] for each in first["runs"]] == ["r3", "r2"]
    assert listed(limit=2, cursor=first["cursor"]) == ["r1"]
    assert listed(status="paused") == listed(blueprint="asking") == listed(pause="ask") == ["r3"]
    assert listed(status=["paused", "completed"], order="oldest") == three
    assert listed(metadata=json.dumps({"number": {">=": 2}})) == ["r3", "r2"]
    assert listed(until="2020-01-01T00:00:00Z") == listed(since="4102444800") == []


def test_a_run_is_the_json_of_the_command_line(
    browser: TestClient, workspace: Workspace, three: list[str]
) -> None:
    async def written() -> list[Any]:
        client = TaskClient(workspace)
        detail = await client.get_task("r3")
        return [
            run_data((await client.list_tasks())[0]),
            task_data(detail),
            detail_data(detail, detail.trace.at("ask")),
            [line_data(each) for each in await client.get_log("r3", after=1)],
            result_data(await client.wait("r1")),
        ]

    assert browser.portal is not None
    same = [
        browser.get(f"{API}/runs").json()["runs"][0],
        browser.get(f"{API}/runs/r3").json(),
        browser.get(f"{API}/runs/r3/trace", params={"step": "ask"}).json(),
        browser.get(f"{API}/runs/r3/log", params={"after": 1}).json()["lines"],
        browser.get(f"{API}/runs/r1/result").json(),
    ]
    assert same == json.loads(json.dumps(browser.portal.call(written)))


def test_an_open_question_says_whose_it_is_and_has_a_digest(browser: TestClient, three: list[str]) -> None:
    [question] = browser.get(f"{API}/questions").json()["questions"]
    assert (question["run_id"], question["pause_id"], question["message"]) == ("r3", "ask", "Well?")
    assert (len(question["digest"]), question["metadata"], question["risk"]) == (16, {"number": 3}, "low")


WRONG = [
    ("runs?statsu=paused", 400, "FLJ663", "'statsu' is unknown"),
    ("runs?limit=many", 400, "FLJ663", "'limit' cannot be used"),
    ("runs?limit=2000", 400, "FLJ663", "'limit' cannot be used"),
    ("runs?limit=1&limit=2", 400, "FLJ663", "'limit' comes 2 times"),
    ("runs?metadata={", 400, "FLJ663", "'metadata' cannot be used"),
    ("runs?since=yesterday", 400, "FLJ663", "'since' cannot be used"),
    ("runs?status=bogus", 400, "FLJ600", "'bogus' is not the status of a run"),
    ("runs?cursor=next", 400, "FLJ600", "'next' is not a cursor"),
    ("questions?order=bogus", 400, "FLJ600", "`order` is 'bogus'"),
    ("questions?cursor=next", 400, "FLJ600", "'next' is not a cursor"),
    ("questions?unclaimed=perhaps", 400, "FLJ663", "'unclaimed' cannot be used"),
    ("questions?run_id=nobody", 404, "FLJ506", "nobody"),
    ("runs/nobody", 404, "FLJ506", "nobody"),
    ("runs/a%00b", 400, "FLJ663", "no zero byte"),
    ("runs/nobody/trace?step=x", 404, "FLJ506", "nobody"),
]
"""Paths, with the status and the code of their problems and a part of what these say."""


def test_what_cannot_be_used_is_named(browser: TestClient) -> None:
    for path, status, code, named in WRONG:
        answer = browser.get(f"{API}/{path}")
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status), path
        assert named in problem["title"]
