"""The OpenAPI document: every endpoint of the API is in it, and the server keeps to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from flujo import EventStep, Flujo, HumanInTheLoopStep, Pipeline, Step
from flujo.domain.queues import MAX_PRIORITY
from flujo.serve.api import health
from flujo.serve.api.openapi import document
from flujo.serve.routes import ENDPOINTS

if TYPE_CHECKING:
    from httpx2 import Response
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace

DOCUMENT = document(ENDPOINTS)
OPERATIONS = [
    found.ok()
    for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
    if isinstance(found, Ok)
]


def test_every_endpoint_of_the_api_is_described(browser: TestClient) -> None:
    described = browser.get("/api/v1/openapi.json").json()
    assert described == document(ENDPOINTS)
    listed = {(each.method.lower(), each.path) for each in ENDPOINTS if each.is_api}
    assert {(verb, path) for path, verbs in described["paths"].items() for verb in verbs} == listed
    assert len(OPERATIONS) == len(listed)
    unlisted = [each.path for each in health.ENDPOINTS]
    assert all(f"`GET {path}`" in described["info"]["description"] for path in unlisted)
    status = next(
        each for each in described["paths"]["/api/v1/runs"]["get"]["parameters"] if each["name"] == "status"
    )
    assert status["schema"] == {"type": "array", "items": {"type": "string"}}
    new = described["paths"]["/api/v1/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {key: new["properties"]["priority"][key] for key in ("minimum", "maximum")} == {
        "minimum": -MAX_PRIORITY,
        "maximum": MAX_PRIORITY,
    }


def test_the_server_keeps_to_its_document(browser: TestClient) -> None:
    for operation in OPERATIONS:

        @settings(
            max_examples=2,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            derandomize=True,
            suppress_health_check=[*HealthCheck],
        )
        @given(case=operation.as_strategy())
        def called(case: Any) -> None:
            sent = {name: each for name, each in case.as_transport_kwargs().items() if name != "cookies"}
            if "data" in sent:
                sent["content"] = sent.pop("data")
            answer = browser.request(**sent)
            assert answer.status_code < 500, f"{case.operation.label}: {answer.text}"
            kind = answer.headers["content-type"].partition(";")[0]
            is_refused = answer.status_code >= 400
            assert kind == ("application/problem+json" if is_refused else "application/json")
            assert isinstance(answer.json(), dict)
            check(case.operation.method, case.operation.path, answer)

        called()


def check(method: str, path: str, answer: Response) -> Any:
    """Return the data of an answer, which has the shape that the document describes."""
    responses = DOCUMENT["paths"][path][method.lower()]["responses"]
    described = responses.get(str(answer.status_code), responses["default"])
    [content] = described["content"].values()
    data = answer.json()
    jsonschema.validate(data, {**content["schema"], "components": DOCUMENT["components"]})
    return data


def _fails(_: Any) -> Any:
    raise ValueError("no")


def test_answers_have_the_described_shapes(browser: TestClient, workspace: Workspace) -> None:
    async def executed() -> None:
        store = await workspace.store()
        schema = {"type": "boolean"}
        trees = {
            "done": Pipeline(Step("use", lambda data: data), name="done"),
            "asks": Pipeline(HumanInTheLoopStep("ask", "Well?", answer_schema=schema), name="asks"),
            "fails": Pipeline(Step("use", _fails), name="fails"),
            "waits": Pipeline(EventStep("wait", event="paid"), name="waits"),
        }
        for name, tree in trees.items():
            async with Flujo(tree, store=store, recovery=False) as runner:
                await runner.run_result_async("x", run_id=name, metadata={"n": 1})

    def got(path: str, of: str = "", **parameters: Any) -> Any:
        answer = browser.get(f"/api/v1/{path}".format(run_id=of), params=parameters)
        assert answer.status_code == 200, answer.text
        return check("get", f"/api/v1/{path}", answer)

    def sent(path: str, of: str = "", **fields: Any) -> Any:
        answer = browser.post(f"/api/v1/{path}".format(run_id=of), json=fields)
        assert answer.status_code in (200, 202), answer.text
        return check("post", f"/api/v1/{path}", answer)

    assert browser.portal is not None
    browser.portal.call(executed)
    assert len(got("runs")["runs"]) == 4
    for run_id in ("done", "asks", "fails"):
        for part in ("", "/trace", "/log", "/result"):
            got(f"runs/{{run_id}}{part}", run_id)
    assert got("runs/{run_id}", "waits")["waits"][0]["event"] == "paid"
    assert got("runs/{run_id}", "fails")["error"]["frame"]["function"] == "_fails"
    [question] = got("questions")["questions"]
    assert question["answer_schema"] == {"type": "boolean"}
    sent("runs/{run_id}/answer", "asks", answer=True, digest=question["digest"])
    assert got("runs/{run_id}", "asks")["answer"]["pause_id"] == "ask"
    assert sent("events", event="paid", run_id="waits")["taken"] == [{"run_id": "waits", "path": "wait"}]
    sent("runs/{run_id}/rate", "done", score=0.5)
    sent("runs/{run_id}/cancel", "waits")
    assert got("runs/{run_id}", "waits")["acts"][-1]["verb"] == "cancel"
    got("messages")
    assert sent("messages/redeliver", given_up=True) == {"redelivered": 0}
