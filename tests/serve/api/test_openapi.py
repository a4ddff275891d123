"""The OpenAPI document: every endpoint of the API is in it, and the server keeps to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from flujo.serve.api.openapi import document
from flujo.serve.routes import ENDPOINTS

if TYPE_CHECKING:
    from starlette.testclient import TestClient

OPERATIONS = [
    found.ok()
    for found in schemathesis.openapi.from_dict(document(ENDPOINTS)).get_all_operations()
    if isinstance(found, Ok)
]


def test_every_endpoint_of_the_api_is_described(browser: TestClient) -> None:
    described = browser.get("/api/v1/openapi.json").json()
    assert described == document(ENDPOINTS)
    listed = {(each.method.lower(), each.path) for each in ENDPOINTS if each.is_api}
    assert {(verb, path) for path, verbs in described["paths"].items() for verb in verbs} == listed
    assert len(OPERATIONS) == len(listed)
    status = next(
        each for each in described["paths"]["/api/v1/runs"]["get"]["parameters"] if each["name"] == "status"
    )
    assert status["schema"] == {"type": "array", "items": {"type": "string"}}


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

        called()
