"""Claims over HTTP: another person sees who works on a question, and may take it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.services.inspection.task_client import TaskClient
from serve.asked import call, opened, question

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace


def test_a_claim_of_another_person_is_named_and_taken_over(browser: TestClient, workspace: Workspace) -> None:
    def posted(verb: str, **given: Any) -> Any:
        return browser.post(f"/api/v1/runs/r/{verb}", json={"pause_id": "ask", **given})

    opened(browser, workspace, "r", question())
    bob = TaskClient(workspace, by="bob")
    call(browser, lambda: bob.claim_question("r", "ask"))
    refused = posted("claim")
    assert (refused.status_code, refused.json()["code"], refused.json()["facts"]["by"]) == (
        409,
        "FLJ677",
        "bob",
    )
    assert posted("release").json() == {"released": False}
    assert posted("claim", take=True).status_code == 200
    assert posted("release").json() == {"released": True}
    assert posted("escalate", reason="above my limit").json() == {"escalated": True}
    assert "above my limit" in browser.get("/").text
    assert posted("escalate").json()["code"] == "FLJ663"
    assert browser.post("/api/v1/runs/r/claim", json={"pause_id": "other"}).status_code == 404
