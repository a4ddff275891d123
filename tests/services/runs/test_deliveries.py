"""Messages of the outbox arrive at least once, signed, and only where the settings say."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Pipeline
from flujo.domain.outbox import MessageState
from flujo.domain.steps import HumanInTheLoopStep, Step
from flujo.services.project.project import find_project
from flujo.services.runs import deliveries, webhooks
from flujo.services.runs.deliveries import Deliveries, wait_s
from flujo.services.workspace import Workspace
from receiver import SECRET, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flujo.domain.store import StateStore

HOOKED = """
[notify.ops]
url = "${OPS_URL}"
secret = "${OPS_SECRET}"
on = ["completed", "failed"]
"""
CALLED = """
[notify.here]
callable = "heard:%s"
"""


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(deliveries, "_FIRST_WAIT_S", 0.0)
    with receiving() as receiver:
        monkeypatch.setenv("OPS_URL", receiver.url)
        monkeypatch.setenv("OPS_SECRET", SECRET)
        yield receiver


async def completed(store: StateStore, run_id: str = "run") -> None:
    tree = Pipeline(Step("double", lambda data: data * 2), name="doubles")
    async with Flujo(tree, store=store, recovery=False) as runner:
        assert (await runner.run_result_async(2, run_id=run_id)).success


async def delivered(store: StateStore, tmp_path: Path, settings: str, *, looks: int = 1) -> None:
    """Run a pipeline, and look for messages as a worker does."""
    (tmp_path / "flujo.toml").write_text(settings)
    await completed(store)
    await look(store, tmp_path, looks=looks)


async def look(store: StateStore, tmp_path: Path, *, looks: int = 1) -> None:
    async def the_store() -> StateStore:
        return store

    sending = Deliveries(Workspace(find_project(tmp_path)), the_store)
    for _ in range(looks):
        await sending.look()
        await sending.settled()
    await sending.aclose()


async def states(store: StateStore) -> list[tuple[MessageState, int, str | None]]:
    return [(each.state, each.tries, each.error) for each in reversed(await store.messages())]


async def test_a_webhook_is_signed_and_says_what_happened_without_values(
    store: StateStore, receiver: Receiver, tmp_path: Path
) -> None:
    await delivered(store, tmp_path, HOOKED)
    [(key, body)] = receiver.arrived
    assert key == (await store.messages())[0].key
    assert body.pop("timestamp").endswith("Z")
    data: dict[str, Any] = {
        "run_id": "run",
        "pipeline": "doubles",
        "status": "completed",
        "parent_run_id": None,
        "pauses": [],
        "error": None,
    }
    assert body == {"type": "run.completed", "data": data}
    assert await states(store) == [(MessageState.DELIVERED, 1, None)]


async def test_a_message_that_was_not_taken_is_sent_again_with_the_same_id(
    store: StateStore, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [500, 302]
    await delivered(store, tmp_path, HOOKED, looks=5)
    assert len(receiver.ids) == 3
    assert len(set(receiver.ids)) == 1
    assert await states(store) == [(MessageState.DELIVERED, 3, None)]


async def test_a_receiver_that_does_not_answer_is_tried_again(
    store: StateStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_S", 0.05)
    monkeypatch.setattr(deliveries, "_FIRST_WAIT_S", 1e6)
    go_on = threading.Event()
    receiver.on_request = go_on.wait
    await delivered(store, tmp_path, HOOKED)
    [(state, tries, error)] = await states(store)
    assert (state, tries) == (MessageState.PENDING, 1)
    assert error == "no answer within 0.05 s"
    go_on.set()
    await store.redeliver([each.id for each in await store.messages()])
    await look(store, tmp_path)
    assert (await states(store))[0][0] is MessageState.DELIVERED
    assert len(set(receiver.ids)) == 1


async def test_a_receiver_that_wants_no_more_messages_gets_no_more_tries(
    store: StateStore, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [410]
    await delivered(store, tmp_path, HOOKED, looks=3)
    assert len(receiver.ids) == 1
    assert await states(store) == [(MessageState.GIVEN_UP, 1, "the receiver answered 410")]


async def test_a_message_is_given_up_after_the_last_try(
    store: StateStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_TRIES", 2)
    receiver.statuses = [500, 503]
    await delivered(store, tmp_path, HOOKED, looks=4)
    assert await states(store) == [(MessageState.GIVEN_UP, 2, "the receiver answered 503")]


def test_the_waits_grow_to_a_limit_and_the_last_try_comes_after_three_days() -> None:
    waits = [wait_s(tries, 0.0) for tries in range(1, deliveries.MOST_TRIES)]
    assert waits == sorted(waits)
    assert 3 < sum(waits) / 86400 < 3.2
    assert waits[0] * 0.8 < wait_s(1, 0.99) < waits[0]


async def test_a_secret_of_the_wrong_form_is_an_error_of_the_message(
    store: StateStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "_FIRST_WAIT_S", 1e6)
    monkeypatch.setenv("OPS_SECRET", "not-a-secret-of-this-form")
    await delivered(store, tmp_path, HOOKED)
    [(state, _, error)] = await states(store)
    assert state is MessageState.PENDING
    assert error == "the secret of [notify.ops] is not `whsec_` and the base64 of 24 to 64 bytes"
    monkeypatch.delenv("OPS_SECRET")
    await store.redeliver([each.id for each in await store.messages()])
    await look(store, tmp_path)
    assert "OPS_SECRET" in str((await states(store))[0][2])


@pytest.mark.parametrize("name", ["hears", "hears_later"])
async def test_a_callable_gets_each_message(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr("builtins.heard_by_test", heard, raising=False)
    module = "def hears(m): heard_by_test.append(m)\nasync def hears_later(m): heard_by_test.append(m)\n"
    (tmp_path / "heard.py").write_text(module)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    await delivered(store, tmp_path, CALLED % name)
    [message] = heard
    assert (message["type"], message["id"]) == ("run.completed", (await store.messages())[0].key)
    assert (await states(store))[0][0] is MessageState.DELIVERED


async def test_messages_to_targets_of_other_projects_are_left_alone(
    store: StateStore, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "flujo.toml").write_text(HOOKED)
    await completed(store)
    (tmp_path / "flujo.toml").write_text(HOOKED.replace("notify.ops", "notify.others"))
    await look(store, tmp_path)
    assert receiver.arrived == []
    assert await states(store) == [(MessageState.PENDING, 0, None)]


async def test_three_processes_send_each_message_once_without_another_look(
    store: StateStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flujo.toml").write_text(HOOKED)
    monkeypatch.setattr(deliveries, "_AT_ONCE", 1)
    for number in range(6):
        await completed(store, f"run-{number}")
    await asyncio.gather(*(look(store, tmp_path) for _ in range(3)))
    assert len(receiver.ids) == len(set(receiver.ids)) == 6


async def test_a_runner_delivers_by_itself(
    store: StateStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HOOKED.replace('on = ["completed", "failed"]', 'on = ["paused"]')
    (tmp_path / "flujo.toml").write_text(text + "[settings]\nrecovery_s = 0.01\n")
    arrived = threading.Event()
    receiver.on_request = arrived.set
    tree = Pipeline(HumanInTheLoopStep("ask", message="Ship it?"), name="asks")
    async with Flujo(tree) as runner:
        await runner.run_result_async(None, run_id="asked")
        assert await asyncio.to_thread(arrived.wait, 60)
    [(_, body)] = receiver.arrived
    assert body["data"]["pauses"] == [{"pause_id": "ask", "kind": "question", "message": "Ship it?"}]
