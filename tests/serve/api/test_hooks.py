"""Webhooks of other services: a message that is signed becomes one event, and any other changes nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.steps import EventStep
from flujo.exceptions import SettingsError
from flujo.services.runs.incoming_webhooks import hook_keys
from flujo.settings import load
from flujo.settings_serve import ServeTable
from receiver import KEY, SECRET
from serve.served import Served, served
from support import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from httpx2 import Response
    from starlette.testclient import TestClient

PAY = "/api/v1/hooks/pay"
HOOK = '[serve.hooks.pay]\nevent = "order.paid"\nkey = "data.order"\nsecret = "${PAY_SECRET}"\n'
AMOUNT = {
    "type": "object",
    "properties": {"data": {"type": "object", "properties": {"amount": {"type": "integer"}}}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hooks")
    (made / "flujo.toml").write_text(HOOK)
    return made


@pytest.fixture(scope="module")
def sender(folder: Path) -> Iterator[Served]:
    """A client without a token, as the service that sends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAY_SECRET", SECRET)
        with served(folder, load(folder / "flujo.toml").serve) as client:
            client.headers.clear()
            client.cookies.clear()
            yield client


def headers(
    body: bytes, message_id: str = "msg_1", *, at: float | str = 0, key: bytes = KEY
) -> dict[str, str]:
    """Return the headers of a message, signed as the specification says; `at` is seconds from now, or a text."""
    when = at if isinstance(at, str) else str(int(time.time() + at))
    digest = hmac.new(key, f"{message_id}.{when}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": when,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def paid(order: Any = "A7", amount: Any = 12) -> bytes:
    return json.dumps({"type": "paid", "data": {"order": order, "amount": amount}}).encode()


def send(sender: TestClient, body: bytes, changes: Mapping[str, str | None], path: str = PAY) -> Response:
    """Send a signed message with other headers; one that is None is left out."""
    given = {**headers(body), **changes}
    return sender.post(
        path, content=body, headers={name: each for name, each in given.items() if each is not None}
    )


def events(folder: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "state.db") as connection:
        return connection.execute("SELECT event_id, name, key FROM events ORDER BY event_id").fetchall()


def test_a_signed_message_is_one_event_however_often_it_is_sent(sender: Served, folder: Path) -> None:
    tree = pipeline(EventStep("paid", event="order.paid", key="input", event_schema=AMOUNT), name="orders")
    waiting = sender.run(tree, "A7")
    for at in (0, 1):  # each try has its own timestamp
        answer = sender.post(PAY, content=paid(), headers=headers(paid(), at=at))
        assert (answer.status_code, answer.json()) == (202, {"event_id": "pay:msg_1"})
    store = sender.here(sender.workspace.store)
    [wait] = sender.here(store.pauses, waiting.run_id)
    assert json.loads(wait.answer) == json.loads(paid())
    assert wait.by == "webhook pay"
    other = paid(amount=13)
    assert sender.post(PAY, content=other, headers=headers(other)).json()["code"] == "FLJ525"
    number = paid(order=17)
    rotated = headers(number, "msg_2")
    rotated["webhook-signature"] = f"v1,b2xk v2,x {rotated['webhook-signature']}"
    assert sender.post(PAY, content=number, headers=rotated).status_code == 202
    assert events(folder) == [("pay:msg_1", "order.paid", "A7"), ("pay:msg_2", "order.paid", "17")]


def test_what_is_not_signed_changes_nothing_and_gets_no_reason(sender: Served, folder: Path) -> None:
    before, body = events(folder), paid("B2")
    good = headers(body)
    wrong: list[dict[str, str | None]] = [
        {"webhook-id": None},
        {"webhook-timestamp": None},
        {"webhook-signature": None},
        {"webhook-signature": ""},
        {"webhook-signature": headers(body, key=b"x" * 32)["webhook-signature"]},
        {"webhook-signature": headers(paid("B3"))["webhook-signature"]},
        {"webhook-signature": good["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": good["webhook-signature"].lower()},
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "1"},
        {**headers(body, "")},
    ]
    wrong += [{**headers(body, at=text)} for text in ("soon", "-5", "1e9", "9" * 40)]
    answers = [send(sender, body, changes) for changes in wrong]
    twice = [*good.items(), ("webhook-signature", good["webhook-signature"])]
    answers.append(sender.post(PAY, content=body, headers=twice))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["code"] == "FLJ666"
    assert "www-authenticate" not in answers[0].headers
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert events(folder) == before


def test_a_signed_message_that_cannot_be_an_event_changes_nothing(sender: Served, folder: Path) -> None:
    tree = pipeline(EventStep("paid", event="order.paid", key="input", event_schema=AMOUNT), name="strict")
    sender.run(tree, "C3", run_id="strict")
    before = events(folder)
    cases: tuple[tuple[bytes, dict[str, Any], int, str], ...] = (
        (paid(), {"at": -301}, 400, "FLJ668"),
        (paid(), {"at": 302}, 400, "FLJ668"),
        (b"paid", {}, 400, "not JSON"),
        (b"\xff", {}, 400, "not UTF-8"),
        (b"[]", {}, 400, "not a JSON object"),
        (b"", {}, 400, "not JSON"),
        (b'{"data": "A7"}', {}, 400, "body.data.order"),
        (paid(order=True), {}, 400, "body.data.order"),
        (paid(order=""), {}, 400, "a key has 1 to"),
        (paid("C3", "much"), {}, 422, "does not fit"),
        (paid(), {"message_id": "a b"}, 400, "webhook-id"),
        (b" " * 262_145, {}, 413, "FLJ664"),
    )
    for body, changes, status, says in cases:
        answer = sender.post(PAY, content=body, headers=headers(body, **{"message_id": "new", **changes}))
        assert (answer.status_code, says in answer.text) == (status, True), answer.text
    plain = {**headers(paid()), "content-type": "text/plain"}
    assert sender.post(PAY, content=paid(), headers=plain).status_code == 415
    unknown = send(sender, paid(), {}, "/api/v1/hooks/other")
    assert (unknown.status_code, unknown.json()["code"], "pay" in unknown.text) == (404, "FLJ669", False)
    assert events(folder) == before


def test_an_address_that_guesses_has_to_wait(serve: Callable[..., TestClient]) -> None:
    client = serve(ServeTable(changes_per_minute=2))
    answers = [client.post(f"/api/v1/hooks/{name}", json={}) for name in ("a", "b", "c")]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert answers[-1].headers["retry-after"]


def test_a_server_does_not_begin_without_the_secret_of_a_webhook(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(folder / "flujo.toml")
    monkeypatch.delenv("PAY_SECRET", raising=False)
    with pytest.raises(SettingsError, match=r"flujo.toml:\d: `serve.hooks.pay.secret` uses \$\{PAY_SECRET\}"):
        hook_keys(settings)
    monkeypatch.setenv("PAY_SECRET", "open sesame")
    with pytest.raises(SettingsError, match=r"the secret of \[serve.hooks.pay\] is not `whsec_`") as refused:
        hook_keys(settings)
    assert "sesame" not in str(refused.value)
