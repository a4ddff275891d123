"""Changes over HTTP: each is the one of `TaskClient`, once, and a late or stale answer says what is so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, HumanInTheLoopStep, Pipeline, Step
from flujo.domain.access import Role
from flujo.domain.acts import Via
from flujo.services.access import tokens
from flujo.services.project.system import actor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from httpx2 import Response
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace

API = "/api/v1"
ASKING = """\
version: "1"
name: publish
input_schema: {type: string}
context_schema: {type: object, properties: {user_id: {type: string}}}
steps:
  - {kind: hitl, name: approve, message: "Publish {{ input }}?", answer_schema: {type: boolean}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "publish.yaml").write_text(ASKING)
    return tmp_path


def posted(browser: TestClient, path: str, data: Any = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.post(f"{API}/{path}", json=data or {}, headers=named)


def awaited(browser: TestClient, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    assert browser.portal is not None
    return browser.portal.call(work)


def executed(browser: TestClient, workspace: Workspace, run_id: str, *steps: Any) -> None:
    """Execute a run of a pipeline in Python on the server's database."""

    async def work() -> None:
        tree = Pipeline(steps, name="python")
        async with Flujo(tree, store=await workspace.store(), recovery=False) as runner:
            await runner.run_result_async("x", run_id=run_id)

    awaited(browser, work)


def test_a_start_with_a_key_is_one_run(browser: TestClient) -> None:
    new = {"blueprint": "publish", "input": "news", "metadata": {"tag": "a"}, "user_id": "u1"}
    first = posted(browser, "runs", new, Idempotency_Key="order-1")
    again = posted(browser, "runs", new, Idempotency_Key="order-1")
    other = posted(browser, "runs", new)
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 202)
    run_id = first.json()["run_id"]
    assert (run_id[:2], len(run_id), again.json()["run_id"]) == ("k-", 28, run_id)
    assert other.json()["run_id"] != run_id
    facts = browser.get(first.headers["location"]).json()
    assert (facts["queue"], facts["user_id"], facts["input"]) == ("default", "u1", "news")
    conflict = posted(browser, "runs", {**new, "input": "other"}, Idempotency_Key="order-1")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "FLJ507")
    assert len(browser.get(f"{API}/runs").json()["runs"]) == 2


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"blueprint": "publihs", "input": "x"}, 400, "FLJ600", "publihs"),
    ({"blueprint": "../secret.yaml"}, 400, "FLJ600", "outside the project"),
    ({"blueprint": "publish", "input": 5}, 422, "FLJ601", "input"),
    ({"blueprint": "publish", "input": "x", "queue": "fast"}, 400, "FLJ521", "'fast'"),
    ({"blueprint": "publish", "input": "x", "priority": "1"}, 400, "FLJ663", "'priority' cannot be used"),
    (
        {"blueprint": "publish", "input": "x", "priority": 1_000_001},
        400,
        "FLJ600",
        "the run has the priority 1000001",
    ),
    ({"blueprint": "publish", "inputs": "x"}, 400, "FLJ663", "'inputs' is unknown"),
    ({}, 400, "FLJ663", "'blueprint' is missing"),
]
"""Bodies of a start, with the status and the code of their problems and a part of what these say."""


def test_a_start_that_cannot_be_is_refused(browser: TestClient) -> None:
    for new, status, code, named in WRONG:
        problem = posted(browser, "runs", new)
        assert (problem.status_code, problem.json()["code"]) == (status, code), problem.text
        assert named in problem.json()["title"]
    assert browser.get(f"{API}/runs").json()["runs"] == []


def test_a_body_is_json_of_a_limited_size(browser: TestClient) -> None:
    def sent(data: bytes, kind: str = "application/json") -> tuple[int, str, str]:
        answer = browser.post(f"{API}/runs", content=data, headers={"content-type": kind})
        return answer.status_code, answer.json()["code"], answer.json()["title"]

    assert sent(b'{"blueprint": }') == (
        400,
        "FLJ663",
        "the body is not JSON: Expecting value: line 1 column 15 (char 14)",
    )
    assert sent(b"[1]")[:2] == sent(b"\xff")[:2] == sent(b'{"a": 1, "a": 2}')[:2] == (400, "FLJ663")
    assert sent(b"{}", "text/plain")[:2] == sent(b"", "text/plain")[:2] == (415, "FLJ665")
    assert sent(b'"%s"' % (b"x" * 999_998))[:2] == (400, "FLJ663")
    assert sent(b'"%s"' % (b"x" * 999_999)) == (413, "FLJ664", "the body has more than 1,000,000 bytes")


def test_the_first_answer_wins_and_a_late_one_is_shown_it(browser: TestClient, workspace: Workspace) -> None:
    executed(browser, workspace, "q1", HumanInTheLoopStep("ask", "Well?", answer_schema={"type": "string"}))
    [question] = browser.get(f"{API}/questions").json()["questions"]
    digest = question["digest"]
    stale = posted(browser, "runs/q1/answer", {"answer": "yes", "digest": "0" * 15})
    assert (stale.status_code, stale.json()["code"]) == (409, "FLJ508")
    assert stale.json()["facts"]["open"] == [{"pause_id": "ask", "message": "Well?", "digest": digest}]
    unfit = posted(browser, "runs/q1/answer", {"answer": [5], "digest": digest})
    assert (unfit.status_code, unfit.json()["code"]) == (422, "FLJ601")
    for _ in range(2):  # the same answer twice is one answer
        taken = posted(browser, "runs/q1/answer", {"answer": "yes", "digest": digest, "pause_id": "ask"})
        assert (taken.status_code, taken.json()["status"]) == (200, "paused")
    late = posted(browser, "runs/q1/answer", {"answer": "no", "digest": digest, "pause_id": "ask"})
    won = late.json()["facts"]
    assert (late.status_code, won["won"], won["answer"], won["by"]) == (
        409,
        "answer",
        "yes",
        actor(None, Via.WEB).by,
    )
    assert won["answered_at"] >= question["asked_at"]
    [answered] = browser.get(f"{API}/runs/q1").json()["pauses"]
    assert (answered["answer"], answered["open"]) == ("yes", False)


def test_the_server_retries_forks_and_resumes_runs_of_blueprints(browser: TestClient) -> None:
    run_id = posted(browser, "runs", {"blueprint": "publish", "input": "news"}).json()["run_id"]
    resumed = posted(browser, f"runs/{run_id}/resume", {"wait": 60})
    assert (resumed.status_code, resumed.json()["status"]) == (200, "paused"), resumed.text
    fork = posted(browser, f"runs/{run_id}/fork", {"at": "approve", "answers": {"approve": True}, "wait": 60})
    assert (fork.status_code, fork.json()["status"]) == (200, "completed"), fork.text
    ended = posted(browser, f"runs/{fork.json()['run_id']}/retry", {"wait": 60})
    assert (ended.status_code, ended.json()["code"]) == (409, "FLJ508")
    cancelled = posted(browser, f"runs/{run_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert posted(browser, f"runs/{run_id}/cancel").status_code == 409
    acts = browser.get(f"{API}/runs/{run_id}").json()["acts"]
    assert {each["via"] for each in acts} == {"web"}


def test_scores_and_events_are_recorded(browser: TestClient, workspace: Workspace) -> None:
    executed(browser, workspace, "done", Step("use", lambda data: data))
    rated = posted(browser, "runs/done/rate", {"score": 0.5, "reason": "half"})
    assert (rated.status_code, rated.json()["score"], rated.json()["evaluator"]) == (200, 0.5, "rating")
    assert posted(browser, "runs/done/rate", {"score": 7}).status_code == 400
    event = {"event": "order.paid", "key": "o1", "payload": {"eur": 5}, "event_id": "e1"}
    assert posted(browser, "events", event).json() == {"event_id": "e1", "taken": [], "repeated": False}
    assert posted(browser, "events", event).json()["repeated"] is True
    assert posted(browser, "events", {**event, "payload": 6}).json()["code"] == "FLJ525"
    assert posted(browser, "events", {"event": "order.paid"}).status_code == 400


def test_rights_and_limits_of_a_token_hold(browser: TestClient, workspace: Workspace) -> None:
    async def made() -> list[str]:
        store, admin = await workspace.store(), actor("ada", Via.CLI)
        viewer = await tokens.create(store, "reader", Role.VIEWER, actor=admin)
        limited = await tokens.create(store, "bot", Role.OPERATOR, actor=admin, metadata={"tenant": "t1"})
        return [viewer.secret, limited.secret]

    viewer, limited = (f"Bearer {each}" for each in awaited(browser, made))
    new = {"blueprint": "publish", "input": "x"}
    assert posted(browser, "runs", new, authorization=viewer).status_code == 403
    refused = posted(browser, "runs", new, authorization=limited)
    assert (refused.status_code, refused.json()["code"]) == (403, "FLJ660")
    assert '{"metadata":{"tenant":"t1"}}' in refused.json()["hint"]
    own = posted(browser, "runs", {**new, "metadata": {"tenant": "t1"}}, authorization=limited)
    assert own.status_code == 202
    assert posted(browser, "events", {"event": "x", "key": "k"}, authorization=limited).status_code == 403
