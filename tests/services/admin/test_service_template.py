"""The service of `flujo init --template service` as a process, stopped while its clients send and follow."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

import warm
from flujo.services.admin.scaffold import scaffold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUNDS, FOLLOWED = 12, 3


@contextmanager
def service(root: Path) -> Iterator[tuple[warm.Popen, str]]:
    """Serve the application in a folder; yield the process and its URL."""
    variables = {**os.environ, "PORT": "0", "FLUJO_STATE_URI": f"sqlite:///{root}/state.db"}
    command = [sys.executable, "app.py"]
    with warm.Popen(command, cwd=root, env=variables, stderr=subprocess.PIPE) as process:
        try:
            said = ""
            while (found := re.search(r"http://127\.0\.0\.1:\d+", said)) is None:
                line = process.stderr.readline()
                assert line, said
                said += line
            yield process, found[0]
        finally:
            process.kill()


async def refunded(http: httpx2.AsyncClient, number: int) -> dict[str, Any] | None:
    """Ask for a refund under its key; every second one needs a human. Return None when there is no answer."""
    body = {"order": f"A-{number}", "amount": 500 if number % 2 else 5}
    try:
        answer = await http.post("/refunds", json=body, headers={"Idempotency-Key": f"r-{number}"})
    except httpx2.TransportError:
        return None
    result: dict[str, Any] = answer.json()
    return result


async def test_sigterm_ends_streams_and_a_repeated_request_finds_its_run(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    scaffold(root, template="service")
    with service(root) as (process, url):
        async with httpx2.AsyncClient(base_url=url, timeout=None) as http:
            await asyncio.gather(*(refunded(http, number) for number in range(1, 2 * FOLLOWED, 2)))
            ready = [asyncio.Event() for _ in range(FOLLOWED)]

            async def follow(place: int) -> None:
                text = ""
                async with http.stream("GET", f"/refunds/r-{2 * place + 1}/events") as stream:
                    async for part in stream.aiter_text():
                        text += part
                        if "event: asked" in text:
                            ready[place].set()

            following = [asyncio.create_task(follow(place)) for place in range(FOLLOWED)]
            await asyncio.gather(*(each.wait() for each in ready))
            sending = [asyncio.create_task(refunded(http, number)) for number in range(REFUNDS)]
            await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            process.send_signal(signal.SIGTERM)
            await asyncio.gather(*following)  # an error if a stream does not end as HTTP says
            before = await asyncio.gather(*sending)
        said = await asyncio.to_thread(process.stderr.read)
        assert await asyncio.to_thread(process.wait) in (0, -signal.SIGTERM)
    assert "Application shutdown complete" in said
    assert "Traceback" not in said, said
    assert [path.name for path in root.glob("state.db*")] == ["state.db"], "a connection was left open"

    with service(root) as (_, url):
        async with httpx2.AsyncClient(base_url=url, timeout=None) as http:
            after = await asyncio.gather(*(refunded(http, number) for number in range(REFUNDS)))
    assert [each and each["status"] for each in after] == ["completed", "paused"] * (REFUNDS // 2)
    assert not [one for one, two in zip(before, after, strict=True) if one is not None and one != two]
