"""The lifespan of section 7 under a real uvicorn: SIGTERM during two hundred requests."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import flujo
import warm
from flujo import RecoveryPolicy, TaskClient
from flujo.settings import Settings
from manual.application import TREE, connections

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_FLIGHT = 200
PAUSED = 20


@contextmanager
def serving() -> Iterator[tuple[warm.Popen, str]]:
    """Serve in a separate process; yield the process and its URL."""
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "manual.application"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with warm.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture
def production(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    monkeypatch.chdir(tmp_path)
    return store_uri


def noted() -> Counter[str]:
    notes = Path("notes")
    return Counter(notes.read_text("utf-8").splitlines() if notes.exists() else [])


async def test_7_sigterm_under_load_leaks_nothing_and_loses_nothing(production: str) -> None:
    with serving() as (process, url):
        async with httpx2.AsyncClient(
            base_url=url, timeout=None, limits=httpx2.Limits(max_connections=None)
        ) as http:
            asked = await asyncio.gather(*(http.post(f"/runs/ask/{n}") for n in range(PAUSED)))
            assert {reply.json()["status"] for reply in asked} == {"paused"}
            waiting = [asyncio.create_task(http.post(f"/runs/wait/{n}")) for n in range(IN_FLIGHT)]
            while noted().total() < PAUSED + IN_FLIGHT:
                assert process.poll() is None
                await asyncio.sleep(0.05)
            held = (await http.get("/connections")).json()
            process.send_signal(signal.SIGTERM)
            replies = await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(process.wait)
    assert process.returncode in (0, -signal.SIGTERM)
    assert (
        held <= most_connections()
    )  # two hundred runs share the pool, and hold no connection while they wait
    assert not [reply for reply in replies if isinstance(reply, httpx2.Response) and reply.is_success]
    assert (await asyncio.to_thread(Path("left-open").read_text, "utf-8")) == "0"

    await asyncio.to_thread(Path("go").touch)
    policy = RecoveryPolicy(every_s=0.1, at_once=50)
    async with (
        flujo.Flujo[str, Any, Any](TREE, recovery=policy) as runner,
        TaskClient(runners=[runner]) as client,
    ):
        paused = await client.list_tasks(status="paused", limit=IN_FLIGHT + PAUSED)
        answered = [await client.resume_task(task.run_id, "yes") for task in paused]
        while await client.list_tasks(status="running"):  # noqa: ASYNC110 - the new process recovers them
            await asyncio.sleep(0.1)
        recovered = await client.list_tasks(status="completed", limit=IN_FLIGHT + PAUSED)
        details = await asyncio.gather(*(client.get_task(task.run_id) for task in recovered))
    assert [result.output for result in answered] == ["yes"] * PAUSED
    assert {each.output for each in details} == {f"wait {n}" for n in range(IN_FLIGHT)} | {"yes"}
    assert set(noted().values()) == {1}  # steps completed before the signal did not run again
    async with asyncio.timeout(10):  # Postgres ends the processes of closed connections a moment later
        while connections(production):  # noqa: ASYNC110 - it changes in another process
            await asyncio.sleep(0.05)


def most_connections() -> int:
    """Return the size of the pool plus the writer's connection (SQLite: three files each)."""
    return 3 * (Settings().settings.postgres_pool_max + 1)
