"""The events of a run: in the order of its log, resumable, and ended with the run, the client or the server."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from httpx2 import AsyncClient

from flujo import Flujo, HumanInTheLoopStep, Pipeline, Step
from flujo.serve.api import events
from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.settings_serve import ServeTable
from serve.server_process import server_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping
    from pathlib import Path

    from flujo.services.workspace import Workspace

PATH = "/api/v1/runs/s1/events"


class Client:
    """A connection to the server, whose application is called as a server of HTTP calls it."""

    def __init__(self, serving: Serving, path: str = PATH, **headers: str) -> None:
        self._app = application(serving)
        self._parts: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._gone = asyncio.Event()
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        given.append((b"host", b"127.0.0.1:8400"))
        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": given,
            "root_path": "",
            "client": ("127.0.0.1", 50_000),
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.task = asyncio.create_task(self._app(scope, self._receive, self._parts.put))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def leave(self) -> None:
        """Close the connection."""
        self._gone.set()
        await self.task

    async def status(self) -> int:
        """Return the status of the answer."""
        return int((await self._parts.get())["status"])

    async def texts(self) -> AsyncIterator[str]:
        """Yield each event or comment as it arrives, until the answer ends."""
        while (part := await self._parts.get()).get("more_body"):
            yield part["body"].decode()

    async def rest(self) -> list[str]:
        return [each async for each in self.texts()]


def fields(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines() if line)


@pytest.fixture
async def serving(workspace: Workspace) -> AsyncIterator[Serving]:
    async with workspace:
        yield Serving(workspace, ServeTable())


def followers() -> list[asyncio.Task[Any]]:
    """Return the tasks that ask the owner of the run for its feed, one for each stream."""
    return [each for each in asyncio.all_tasks() if each.get_name() == "flujo-follow-s1"]


async def executed(workspace: Workspace, *steps: Any) -> None:
    async with Flujo(Pipeline(steps, name="tree"), store=await workspace.store(), recovery=False) as runner:
        await runner.run_result_async("x", run_id="s1")


async def test_events_are_the_log_and_continue_behind_the_last_known_one(serving: Serving) -> None:
    await executed(serving.workspace, Step("one", lambda data: data), Step("two", lambda data: data))
    client = Client(serving)
    assert await client.status() == 200
    *lines, end = [fields(each) for each in await client.rest()]
    assert [each["event"] for each in lines] == ["accepted", "completed", "completed", "status"]
    assert end == {"event": "end", "data": "{}"}
    assert [json.loads(each["data"])["path"] for each in lines[1:3]] == ["one", "two"]
    again = Client(serving, last_event_id=lines[1]["id"])
    assert await again.status() == 200
    assert [fields(each).get("id") for each in await again.rest()] == [each["id"] for each in lines[2:]] + [
        None
    ]
    known = Client(serving, f"{PATH}?after=2")
    assert await known.status() == 200
    assert len(await known.rest()) == 2, "the status, and the end"


async def test_a_stream_ends_with_its_client_and_with_the_server(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.01)
    await executed(serving.workspace, HumanInTheLoopStep("ask", "Well?"))
    leaving, staying = Client(serving), Client(serving)
    assert (await leaving.status(), await staying.status()) == (200, 200)
    async for text in leaving.texts():
        if text == ": waiting\n\n":
            break
    await leaving.leave()
    await asyncio.sleep(0)  # a task that is cancelled ends in its next turn
    assert len(followers()) == 1
    serving.ending.set()
    seen = await staying.rest()
    await staying.task
    assert "asked" in {fields(each).get("event") for each in seen if each[0] != ":"}
    await asyncio.sleep(0)
    assert followers() == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [(PATH, {}, 404), (f"{PATH}?after=-1", {}, 400), (PATH, {"last_event_id": "x"}, 400)],
)
async def test_what_cannot_be_followed_is_a_problem(
    serving: Serving, path: str, headers: dict[str, str], status: int
) -> None:
    assert await Client(serving, path, **headers).status() == status


async def test_a_server_that_is_terminated_ends_its_streams_at_once(root: Path, serving: Serving) -> None:
    await executed(serving.workspace, HumanInTheLoopStep("ask", "Well?"))
    with server_process(root) as (process, port):
        url = f"http://127.0.0.1:{port}{PATH}"
        async with AsyncClient() as client, client.stream("GET", url) as answer:
            lines = answer.aiter_lines()
            assert [each async for each in until_status(lines)][-1] == "event: status"
            process.send_signal(signal.SIGTERM)
            rest = [each async for each in lines if each.startswith("event:")]
        assert rest == [], "no event says that the run has ended"
        assert (process.stderr.read(), process.wait()) == ("", -signal.SIGTERM)


async def until_status(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the lines of a stream up to the event of the status of the run."""
    async for line in lines:
        yield line
        if line == "event: status":
            return
