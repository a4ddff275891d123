"""Measures what telemetry adds to a step: with a good, a slow, a broken and an absent collector.

The step does nothing and nothing is persisted, so that the difference is telemetry. Each figure comes from
its own process, which prints the latency of one step: from its start to the start of the next one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from flujo import Flujo, Pipeline, Step
from flujo.domain.values import CallableRef
from flujo.testing import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS, RUNS = 200, 20
LIMIT_MS = 5.0
"""What telemetry may add to a step at the 95th percentile."""
COLLECTORS = ("none", "good", "slow", "broken", "absent")


@contextmanager
def collector(status: int, delay_s: float) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(delay_s)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def measure() -> None:
    """Print the sorted latencies of steps in milliseconds, as JSON."""
    began: list[float] = []

    async def note(_: Any) -> None:
        began.append(time.perf_counter())

    steps = [Step(f"s{number}", CallableRef("bench:note", note)) for number in range(STEPS)]
    latencies: list[float] = []

    async def run() -> None:
        async with Flujo(Pipeline(steps, name="bench"), store=MemoryStateStore()) as runner:
            for _ in range(RUNS):
                began.clear()
                await runner.run_result_async(None)
                latencies.extend((later - at) * 1000 for at, later in itertools.pairwise(began))

    asyncio.run(run())
    print(json.dumps(sorted(latencies)))


def latencies_with(url: str | None) -> list[float]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if url is not None:
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
    done = subprocess.run(
        [sys.executable, __file__, "measure"], env=env, check=True, capture_output=True, text=True
    )
    found: list[float] = json.loads(done.stdout)
    return found


def at(share: float, latencies: list[float]) -> float:
    return latencies[int(len(latencies) * share)]


def measured(kind: str) -> list[float]:
    if kind == "none":
        return latencies_with(None)
    if kind == "absent":
        return latencies_with("http://127.0.0.1:9")
    with collector(503 if kind == "broken" else 200, 10.0 if kind == "slow" else 0.0) as url:
        return latencies_with(url)


def main() -> None:
    base = None
    for kind in COLLECTORS:
        found = measured(kind)
        p50, p95, p99 = (at(part, found) for part in (0.5, 0.95, 0.99))
        base = p95 if base is None else base
        added, share = p95 - base, (p95 - base) / LIMIT_MS
        print(
            f"collector {kind:<7} p50 {p50 * 1000:7.0f} us  p95 {p95 * 1000:7.0f} us"
            f"  p99 {p99 * 1000:7.0f} us  adds {added:6.3f} ms at p95,"
            f" {share:.2f} of the limit of {LIMIT_MS:g} ms"
        )


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
