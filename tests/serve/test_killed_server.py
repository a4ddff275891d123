"""The server is killed in the middle of answers: each is recorded once or not at all, and the next server says which."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx

from flujo.domain.acts import Verb
from flujo.domain.paths import StepPath
from flujo.domain.questions import seen_digest
from flujo.domain.run import Pause, Write
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run
from serve.server_process import server_process

if TYPE_CHECKING:
    from pathlib import Path

RUNS = [f"r{number}" for number in range(12)]


async def _ask(uri: str) -> dict[str, str]:
    """Open a question in each run; return the digests by run."""
    store = await SqlStateStore.open(uri)
    digests = {}
    for run_id in RUNS:
        run = await store.accept(new_run(run_id), {})
        pause = Pause(pause_id=StepPath("ask"), message="Well?", answer_schema=b'{"type":"string"}')
        await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,)))
        [asked] = await store.pauses(run.run_id)
        digests[run_id] = seen_digest(run_id, asked)
    await store.aclose()
    return digests


async def _answers(uri: str) -> dict[str, tuple[Any, int]]:
    """Return by run its answer, and how often an answer was recorded."""
    store = await SqlStateStore.open(uri)
    found = {}
    for run_id in RUNS:
        run = await store.find(run_id)
        [pause] = await store.pauses(run.run_id)
        acts = [act for act in await store.acts(run.run_id) if act.verb is Verb.ANSWER]
        found[run_id] = (None if pause.answer is None else json.loads(pause.answer), len(acts))
    await store.aclose()
    return found


def _request(run_id: str, answer: str, digest: str, port: int) -> bytes:
    body = json.dumps({"answer": answer, "digest": digest})
    head = f"POST /api/v1/runs/{run_id}/answer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_an_answer_is_recorded_once_or_not_at_all_when_its_server_is_killed(
    tmp_path: Path, store_uri: str
) -> None:
    (tmp_path / "flujo.toml").write_text(f'state_uri = "{store_uri}"\n')
    digests = asyncio.run(_ask(store_uri))
    confirmed = []
    with server_process(tmp_path) as (process, port), ExitStack() as connections:
        sent = {}
        for run_id in RUNS:
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(_request(run_id, "first", digests[run_id], port))
            sent[connection] = run_id
        ready, _, _ = select.select(list(sent), [], [], 30)
        process.kill()
        process.wait(60)
        for connection in ready:
            if connection.recv(100).startswith(b"HTTP/1.1 200 "):
                confirmed.append(sent[connection])
    assert confirmed
    recorded = asyncio.run(_answers(store_uri))
    assert set(recorded.values()) <= {("first", 1), (None, 0)}
    assert {recorded[run_id] for run_id in confirmed} == {("first", 1)}
    with server_process(tmp_path) as (_, port):
        for run_id, (answer, _) in recorded.items():
            again = {"answer": "second", "digest": digests[run_id]}
            said = httpx.post(f"http://127.0.0.1:{port}/api/v1/runs/{run_id}/answer", json=again)
            assert (said.status_code == 409) == (answer is not None), said.text
    assert asyncio.run(_answers(store_uri)) == {
        run_id: (answer or "second", 1) for run_id, (answer, _) in recorded.items()
    }
