"""The service from outside, with a database of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from app import app
from fastapi.testclient import TestClient

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the running service."""
    monkeypatch.setenv("FLUJO_STATE_URI", f"sqlite:///{tmp_path}/state.db")
    monkeypatch.chdir(PROJECT)
    with TestClient(app) as client:
        yield client


def test_a_small_refund_is_paid_once(client: TestClient) -> None:
    headers = {"Idempotency-Key": "r-1"}
    first = client.post("/refunds", json={"order": "A-1", "amount": 5}, headers=headers).json()
    again = client.post("/refunds", json={"order": "A-1", "amount": 5}, headers=headers).json()
    assert first["status"] == "completed"
    assert again["output"] == first["output"]


def test_a_large_refund_waits_for_a_human(client: TestClient) -> None:
    waiting = client.post("/refunds", json={"order": "A-2", "amount": 500}).json()
    assert waiting["status"] == "paused"
    assert waiting["questions"] == ["Refund 500 EUR for order A-2?"]
    run = f"/refunds/{waiting['run_id']}"
    assert client.get(run).json()["status"] == "paused"
    assert client.post(f"{run}/answer", json={"ok": True}).json()["status"] == "completed"
    events = client.get(f"{run}/events").text
    assert [line for line in events.splitlines() if line.startswith("event: a")] == [
        "event: accepted",
        "event: asked",
        "event: answered",
    ]


def test_errors_have_a_status(client: TestClient) -> None:
    assert client.get("/refunds/missing").status_code == 404
    assert client.get("/refunds/missing/events").status_code == 404
    assert client.post("/refunds", json={"order": "A-3", "amount": -1}).status_code == 422
    assert client.get("/health").json() == {"status": "ok"}
