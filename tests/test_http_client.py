"""`FlujoHTTPClient` does what `TaskClient` does: one suite for both, on the same project."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from flujo import FlujoHTTPClient, TaskClient
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.questions import seen_digest
from flujo.domain.run import Pause, PauseKind, RunStatus, Write
from flujo.exceptions import (
    InputRejected,
    ProviderNotGiven,
    ReferenceMissing,
    ResumeConflict,
    RunConflict,
    RunNotFound,
    ServerUnavailable,
    SettingsError,
    WaitTimedOut,
)
from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.services.project.project import find_project
from flujo.services.runs.forks import Fork
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Client = TaskClient | FlujoHTTPClient
ASKING = """\
version: "1"
name: publish
input_schema: {type: string}
steps:
  - {kind: hitl, name: approve, message: "Publish {{ input }}?", answer_schema: {type: boolean}}
  - {kind: event, name: paid, event: order.paid}
output: "{{ steps.paid.output }}"
"""


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    (tmp_path / "flujo.toml").write_text(
        'state_uri = "sqlite:///state.db"\n[state_providers]\ndocs = "file:documents"\n'
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "publish.yaml").write_text(ASKING)
    async with Workspace(find_project(tmp_path)) as opened:
        yield opened


@pytest.fixture(params=["database", "server"])
async def client(request: pytest.FixtureRequest, workspace: Workspace) -> AsyncIterator[Client]:
    if request.param == "database":
        async with TaskClient(workspace) as database:
            yield database
    else:
        app = application(Serving(workspace, ServeTable()))
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with FlujoHTTPClient("http://127.0.0.1:8400/", transport=transport) as server:
            yield server


async def answered(client: Client, run_id: str, answer: bool) -> None:
    """Record an answer; a server leaves the rest to workers, and this `TaskClient` does so too."""
    if isinstance(client, TaskClient):
        await client.resume_task(run_id, answer, "approve", detach=True)
    else:
        await client.resume_task(run_id, answer, "approve")


async def test_the_life_of_a_run(client: Client) -> None:
    new: dict[str, Any] = {"metadata": {"tag": "a"}, "idempotency_key": "order-1"}
    started = await client.start_task("publish", "news", **new)
    assert (await client.start_task("publish", "news", **new)).run_id == started.run_id
    assert [each.run_id for each in await client.list_tasks("accepted", {"tag": "a"})] == [started.run_id]
    with pytest.raises(WaitTimedOut):
        await client.wait(started.run_id, timeout=0)
    paused = await client.continue_task(started.run_id)
    assert (str(paused.status), [each.message for each in paused.pauses]) == ("paused", ["Publish news?"])
    await answered(client, started.run_id, True)
    waiting = await client.continue_task(started.run_id)
    assert (str(waiting.status), [each.event for each in waiting.pauses]) == ("waiting", ["order.paid"])
    sent = await client.send_event("order.paid", {"eur": 5}, run_id=started.run_id, event_id="e1")
    assert [each.path for each in sent.taken] == ["paid"]
    ended = await client.continue_task(started.run_id)
    assert (ended.success, ended.output) == (True, {"eur": 5})
    assert (await client.wait(started.run_id)).output == {"eur": 5}
    rated = await client.rate(started.run_id, 0.5, path="paid")
    assert (rated.score, rated.path, rated.evaluator) == (0.5, "paid", "rating")
    fork = await client.fork_task(started.run_id, Fork(at="paid", run_id="forked"))
    assert (fork.run_id, str(fork.status)) == ("forked", "waiting")
    assert str((await client.cancel_task("forked")).status) == "cancelled"


async def test_a_question_is_claimed_released_and_left_to_others(client: Client) -> None:
    run_id = (await client.start_task("publish", "news")).run_id
    await client.continue_task(run_id)
    claim = await client.claim_question(run_id, "approve")
    assert (await client.claim_question(run_id, "approve", take=True)).by == claim.by
    assert claim.until > claim.at
    assert await client.release_question(run_id, "approve")
    assert not await client.release_question(run_id, "approve")
    with pytest.raises(SettingsError, match="`reason` is empty"):
        await client.escalate_question(run_id, "approve", " ")
    await client.escalate_question(run_id, "approve", "above my limit")
    with pytest.raises(RunNotFound, match="has no question"):
        await client.claim_question(run_id, "paid")
    await answered(client, run_id, True)
    with pytest.raises(ResumeConflict, match="is not open"):
        await client.claim_question(run_id, "approve")


async def test_open_questions_are_listed_by_urgency_or_risk_page_by_page(
    client: Client, workspace: Workspace
) -> None:
    store = await workspace.store()
    for run_id, kind in (("a", PauseKind.QUESTION), ("b", PauseKind.DOUBT), ("c", PauseKind.BUDGET)):
        run = await store.accept(new_run(run_id, metadata={"desk": run_id}), {})
        pause = Pause(pause_id=StepPath("ask"), message=f"Pay {run_id} now?", kind=kind)
        await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,)))
        await store.write(move(run, RunStatus.PAUSED))

    async def listed(**conditions: Any) -> list[str]:
        return [each.run_id for each in await client.questions(**conditions)]

    assert await listed() == ["a", "b", "c"]
    assert await listed(order="risk") == ["b", "c", "a"]
    for order, names in (("urgency", ["a", "b", "c"]), ("risk", ["b", "c", "a"])):
        first, second = await client.questions(order=order, limit=2)
        assert [first.run_id, second.run_id] == names[:2]
        await client.claim_question(names[0], "ask")  # a claim between two pages moves nothing
        assert await listed(order=order, cursor=second.cursor) == names[2:]
    assert await listed(kind=["doubt", "budget"], words="pay NOW") == ["b", "c"]
    assert await listed(metadata_filter={"desk": "c"}) == await listed(unclaimed=True) == ["c"]
    assert await listed(run_id="@last") == ["c"]
    [low] = await client.questions(run_id="a")
    [high] = await client.questions(kind="doubt")
    assert (low.claim is not None, low.risk, high.risk, high.pause.kind) == (True, "low", "high", "doubt")
    assert low.digest == seen_digest("a", (await store.pauses(RunId("a")))[0])
    for wrong in ({"order": "oldest"}, {"cursor": low.cursor, "order": "risk"}, {"kind": "sleep"}):
        with pytest.raises(SettingsError) as refused:
            await listed(**wrong)
        assert refused.value.hint is not None
    with pytest.raises(RunNotFound):
        await listed(run_id="nobody")
    await client.escalate_question("c", "ask", "above my limit")
    first = (await client.questions(order="risk"))[0]
    assert (first.run_id, first.escalation and first.escalation.reason) == ("c", "above my limit")
    assert await client.reveal_question("a", "ask") == "Pay a now?"
    assert [str(each.verb) for each in (await client.get_task("a")).acts] == ["reveal"]


async def test_what_is_known_of_a_run(client: Client) -> None:
    run_id = (await client.start_task("publish", "news")).run_id
    await client.continue_task(run_id)
    detail = await client.get_task(run_id)
    [question] = detail.pauses
    assert (detail.input, detail.task.display_status, question.is_open) == ("news", "paused", True)
    assert next((each.path, str(each.status)) for each in detail.trace.children) == ("approve", "paused")
    assert [str(each.verb) for each in detail.acts] == []
    lines = await client.get_log(run_id)
    assert [str(each.kind) for each in lines] == ["accepted", "asked", "status"]
    await client.cancel_task(run_id)
    assert [str(each.kind) async for each in client.follow(run_id, after=lines[-1].offset)][-1] == "status"
    assert [str(each.verb) for each in (await client.get_task(run_id)).acts] == ["cancel"]


async def test_a_large_value_is_stored_once(client: Client) -> None:
    reference = await client.store_blob(b"a long text", "docs")
    assert (await client.store_blob(b"a long text", "docs"), reference.size) == (reference, 11)
    assert await client.read_blob(reference) == b"a long text"
    with pytest.raises(ReferenceMissing):
        await client.read_blob(reference.model_copy(update={"key": f"sha256/{'0' * 64}"}))
    with pytest.raises(ProviderNotGiven):
        await client.store_blob(b"x", "other")


def test_each_method_takes_arguments_of_task_client_with_their_defaults() -> None:
    def arguments(of: type, name: str) -> dict[str, Any]:
        found = inspect.signature(getattr(of, name)).parameters
        return {each.name: (each.kind, each.default) for each in found.values()}

    names = [name for name in vars(FlujoHTTPClient) if not name.startswith("_")]
    assert {"questions", "reveal_question", "list_tasks"} <= set(names)
    for name in names:
        assert arguments(FlujoHTTPClient, name).items() <= arguments(TaskClient, name).items(), name


async def test_errors_are_the_same(client: Client) -> None:
    run_id = (await client.start_task("publish", "news", idempotency_key="k")).run_id
    with pytest.raises(RunConflict):
        await client.start_task("publish", "other", idempotency_key="k")
    with pytest.raises(InputRejected):
        await client.start_task("publish", 5)
    with pytest.raises(SettingsError, match="publihs"):
        await client.start_task("publihs", "x")
    for missing in ("nobody", "a?b"):
        with pytest.raises(RunNotFound, match="there is no run"):
            await client.get_task(missing)
        with pytest.raises(RunNotFound):
            await anext(client.follow(missing))
    with pytest.raises(SettingsError, match="'bogus' is not the status of a run") as refused:
        await client.list_tasks("bogus")
    assert refused.value.hint is not None
    await client.continue_task(run_id)
    with pytest.raises(ResumeConflict, match="is not the one that was answered"):
        await client.resume_task(run_id, True, digest="0")
    await answered(client, run_id, True)
    with pytest.raises(ResumeConflict) as late:
        await answered(client, run_id, False)
    assert (late.value.won, late.value.facts["answer"], late.value.run_id) == ("answer", True, run_id)


async def test_a_stream_that_breaks_off_continues_behind_its_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flujo.http_client._AGAIN_S", 0)
    asked: list[str | None] = []
    event = 'id: {0}-0\nevent: completed\ndata: {{"offset": {0}, "at": 1.0, "attempt": 1, "seconds": 0.0, '
    event += (
        '"value": null, "text": "", "provisional": false, "number": 0, "kind": "completed", "path": "a", '
    )
    event += (
        '"error": null, "usage": {{"input_tokens": 0, "output_tokens": 0, "requests": 0, "tool_calls": 0, '
    )
    event += '"cost_usd": null}}}}\n\n'

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 2:
            return httpx2.Response(502, text="<h1>Bad gateway</h1>")
        text = event.format(len(asked)) + ("event: end\ndata: {}\n\n" if len(asked) == 3 else "")
        return httpx2.Response(200, text=text)

    async with FlujoHTTPClient(
        "http://host", token="t" * 20, transport=httpx2.MockTransport(answer)
    ) as client:
        assert [each.offset async for each in client.follow("r")] == [1, 3]
    assert asked == [None, "1-0", "1-0"]


async def test_a_server_that_is_not_there_or_not_flujo_is_an_error_with_a_hint() -> None:
    def page(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text="<h1>Welcome</h1>")

    def broken(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    for handler, message in (
        (page, "host answered 200, and not as Flujo does"),
        (broken, "cannot be reached"),
    ):
        async with FlujoHTTPClient("http://host", transport=httpx2.MockTransport(handler)) as client:
            with pytest.raises(ServerUnavailable, match=message) as refused:
                await asyncio.wait_for(client.list_tasks(), 5)
            assert refused.value.hint
    with pytest.raises(SettingsError, match="`url` is 'localhost:8400'"):
        FlujoHTTPClient("localhost:8400")
