"""Restate: its server with RocksDB in a folder, with the handler in this process.

A step is `ctx.run_typed`. The server syncs its log before it acknowledges an entry, as it does by default.
"""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from server import Ports, running  # isort: skip - adds the harness to the path
import httpx
import hypercorn.asyncio
import restate
from common.harness import Run, bounded, main, payload
from hypercorn import Config

RECOVERED = "recover"
REGISTER_S = 30
RUN_S = 300

current: dict[str, Run] = {}
chain = restate.Service("chain")


@chain.handler()
async def steps(ctx: restate.Context, count: int) -> int:
    """Run steps, one after another."""
    for number in range(count):
        await ctx.run_typed("step", step, number=number)
    return count


@chain.handler()
async def logged_steps(ctx: restate.Context, count: int) -> int:
    """Run steps of which each is noted in the log of W9."""
    for number in range(count):
        await ctx.run_typed("step", logged, number=number)
    return count


async def step(number: int) -> dict[str, Any]:
    return payload(number)


async def logged(number: int) -> dict[str, Any]:
    current["run"].log_step(number)
    return payload(number)


@asynccontextmanager
async def ingress(run: Run, ports: Ports) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the handlers, register them, and yield a client that calls them."""
    config, stop = Config(), asyncio.Event()
    config.bind = [f"127.0.0.1:{ports['handlers']}"]
    config.h2_max_concurrent_streams = 2**31 - 1
    config.loglevel = "ERROR"
    app: Any = restate.app([chain])
    serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
    limits = httpx.Limits(max_connections=run.concurrency)
    address = f"http://127.0.0.1:{ports['ingress']}"
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=RUN_S) as client:
        if run.phase != "resume":
            await _register(client, ports)
        yield client
    stop.set()
    await serving


async def _register(client: httpx.AsyncClient, ports: Ports) -> None:
    """Register the handlers, when the server is ready, and wait until they can be called."""
    deployment = {"uri": f"http://127.0.0.1:{ports['handlers']}", "force": True}
    calls = (
        (f"http://127.0.0.1:{ports['admin']}/deployments", deployment),
        ("/chain/steps", 0),
    )
    for url, body in calls:
        deadline = asyncio.get_running_loop().time() + REGISTER_S
        while True:
            try:
                response = await client.post(url, json=body)
            except httpx.TransportError as error:
                answer = str(error)
            else:
                if response.is_success:
                    break
                answer = response.text
            if asyncio.get_running_loop().time() > deadline:
                raise SystemExit(f"POST {url} fails for {REGISTER_S} s: {answer}")
            await asyncio.sleep(0.1)


async def _called(client: httpx.AsyncClient, handler: str, count: int, key: str) -> None:
    """Call a handler; a call with a key that is known waits for the same invocation."""
    response = await client.post(f"/chain/{handler}", json=count, headers={"idempotency-key": key})
    response.raise_for_status()
    assert response.json() == count


async def w1(run: Run, ports: Ports) -> None:
    async with ingress(run, ports) as client:
        with run.timed():
            await _called(client, "steps", run.n, uuid.uuid4().hex)


async def w2(run: Run, ports: Ports) -> None:
    async with ingress(run, ports) as client:

        async def one() -> None:
            await _called(client, "steps", 3, uuid.uuid4().hex)

        with run.timed():
            await bounded(run.concurrency, (one for _ in range(run.n)))


async def w9(run: Run, ports: Ports) -> None:
    current["run"] = run
    async with ingress(run, ports) as client:
        with run.timed():
            await _called(client, "logged_steps", run.n, RECOVERED)


def command(folder: Path, ports: Ports) -> list[str]:
    """Return the command line of the server."""
    addresses = {"ADMIN": "admin", "INGRESS": "ingress"}
    for section, name in addresses.items():
        os.environ[f"RESTATE_{section}__BIND_ADDRESS"] = f"127.0.0.1:{ports[name]}"
    os.environ["RESTATE_DISABLE_TELEMETRY"] = os.environ["RESTATE_ADMIN__DISABLE_WEB_UI"] = "true"
    server = Path(sys.prefix, "node_modules", "@restatedev", "restate-server", "lib", "index.js")
    return [
        *("node", str(server), "--no-logo", "--listen-mode", "tcp", "--log-filter", "warn"),
        *("--base-dir", str(folder / "restate"), "--bind-address", f"127.0.0.1:{ports['node']}"),
    ]


if __name__ == "__main__":
    with running(("ingress", "admin", "node", "handlers"), command) as found:
        workloads = {
            name: lambda run, measured=measured: measured(run, found)
            for name, measured in {"W1": w1, "W2": w2, "W9": w9}.items()
        }
        main("restate", "restate-sdk", workloads, backends=("file",), hard_exit=False)
