"""`flujo serve` under load: open streams of events, and answers a minute beside them.

    python bench/serve.py
    python bench/serve.py --workers 4 --postgres
    python bench/serve.py --streams 50 --answers 100 --seconds 20 --database postgresql://user@host/name

Clients follow runs that ask a question, while others answer the questions at a constant rate, whether the
server keeps up or not. An answer takes from the time at which it was due to its HTTP answer. Memory is the
resident set of the server's process, after the streams are open and at the end; the CPU is that of the server
meanwhile, which says more on a busy machine than the times do.

With `--workers` the server also executes runs, and so does a worker in another process: `--runs` a minute are
started over the API meanwhile, each of two steps.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import postgres

from flujo.domain.paths import StepPath
from flujo.domain.questions import seen_digest
from flujo.domain.run import Move, Pause, RunGroup, RunQuery, RunStatus, Write
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

LIMIT_MS = 200
"""The limit of the 95th percentile, on two cores that do nothing else."""
BLUEPRINT = """\
version: "1"
name: load
steps:
  - {name: first, call: load_steps:work}
  - {name: second, call: load_steps:work}
"""
STEPS = "def work(data: int) -> int:\n    return data + 1\n"
GROWTH_MB = 32
"""By how much the memory may grow while answers come."""


@dataclass
class Found:
    """The figures."""

    taken_s: list[float] = field(default_factory=list)
    refused: int = 0
    events: int = 0
    started: int = 0
    completed: int = 0
    """Of the runs that were started."""
    cpu_s: float = 0.0
    """What the server has used while answers came."""
    wall_s: float = 0.0
    before_mb: float = 0.0
    after_mb: float = 0.0


def main() -> int:
    """Measure, print the figures, and return whether a limit is exceeded."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if arguments.postgres:
            arguments.database = stack.enter_context(postgres.server("", folder))
            migrations.migrate(arguments.database)
        found = asyncio.run(_measured(arguments, Path(folder)))
    p50, p95 = (1000 * statistics.quantiles(found.taken_s, n=20)[place] for place in (9, 18))
    grown = found.after_mb - found.before_mb
    print(f"streams    {arguments.streams} open, {found.events} events")
    print(f"answers    {len(found.taken_s)} at {arguments.answers} a minute, {found.refused} refused")
    print(f"time       p50 {p50:.0f} ms, p95 {p95:.0f} ms (at most {LIMIT_MS})")
    if arguments.workers:
        print(f"runs       {found.completed} completed of {found.started}, by the server and a worker")
    print(f"server     {found.cpu_s:.1f} s of CPU in {found.wall_s:.1f} s")
    print(f"memory     {found.before_mb:.0f} MB, then {found.after_mb:.0f} MB (at most {GROWTH_MB} MB more)")
    return int(p95 > LIMIT_MS or grown > GROWTH_MB or found.refused > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--answers", type=int, default=500, help="a minute")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=0, help="runs at once in the server, and in a worker")
    parser.add_argument("--runs", type=int, default=300, help="a minute, with --workers")
    parser.add_argument("--database", help="a Postgres that may be written; default: a SQLite file")
    parser.add_argument("--postgres", action="store_true", help="start a Postgres for this")
    return parser.parse_args()


async def _measured(arguments: argparse.Namespace, folder: Path) -> Found:
    uri = arguments.database or f"sqlite:///{folder / 'state.db'}"
    _write_project(folder, uri)
    count, found = max(2, round(arguments.answers / 60 * arguments.seconds)), Found()
    digests = await _questions(uri, max(count, arguments.streams))
    async with AsyncExitStack() as stack:
        pid, url = stack.enter_context(_server(folder, arguments.workers))
        if arguments.workers:
            stack.enter_context(_worker(folder, arguments.workers))
        limits = httpx.Limits(max_connections=None)
        client = httpx.AsyncClient(base_url=url, timeout=30, limits=limits)
        await stack.enter_async_context(client)
        opened = asyncio.Semaphore(0)
        followed = [*digests][: arguments.streams]
        streams = [asyncio.create_task(_follow(client, run, opened, found)) for run in followed]
        for _ in streams:
            await opened.acquire()
        found.before_mb, cpu_s, start = _memory_mb(pid), _cpu_s(pid), time.perf_counter()
        async with asyncio.TaskGroup() as answers:
            began = time.perf_counter()
            if arguments.workers:
                answers.create_task(_start_runs(client, arguments, found))
            for number, (run, digest) in enumerate([*digests.items()][-count:]):
                due = began + number * 60 / arguments.answers
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                answers.create_task(_answer(client, run, digest, due, found))
        found.after_mb, found.cpu_s = _memory_mb(pid), _cpu_s(pid) - cpu_s
        found.wall_s = time.perf_counter() - start
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    if arguments.workers:
        found.completed = await _completed(uri)
    return found


def _write_project(folder: Path, uri: str) -> None:
    tables = '[blueprints]\nallow_callables = ["load_steps"]\n[serve]\nchanges_per_minute = 100000\n'
    (folder / "flujo.toml").write_text(f'state_uri = "{uri}"\n{tables}')
    (folder / "blueprints").mkdir()
    (folder / "blueprints" / "load.yaml").write_text(BLUEPRINT)
    (folder / "load_steps.py").write_text(STEPS)


async def _start_runs(client: httpx.AsyncClient, arguments: argparse.Namespace, found: Found) -> None:
    """Start runs at a constant rate while answers come."""
    began = time.perf_counter()
    for number in range(round(arguments.runs / 60 * arguments.seconds)):
        await asyncio.sleep(max(0.0, began + number * 60 / arguments.runs - time.perf_counter()))
        answer = await client.post("/api/v1/runs", json={"blueprint": "load", "input": number})
        found.started += answer.status_code == 202


async def _completed(uri: str) -> int:
    """Return how many of the started runs have completed."""
    store = await SqlStateStore.open(uri)
    counts = await store.count_runs(RunQuery(pipeline="load"), RunGroup.STATUS)
    await store.aclose()
    return counts.get(RunStatus.COMPLETED, 0)


async def _questions(uri: str, count: int) -> dict[str, str]:
    """Open a question in each of `count` runs; return their digests by run."""
    store, digests = await SqlStateStore.open(uri), {}
    for _ in range(count):
        run = await store.accept(new_run(f"load-{time.time_ns()}"), {})
        pause = Pause(pause_id=StepPath("ask"), message="Well?", answer_schema=b'{"type":"string"}')
        paused = Move(status=RunStatus.PAUSED)
        await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,), move=paused))
        [asked] = await store.pauses(run.run_id)
        digests[str(run.run_id)] = seen_digest(run.run_id, asked)
    await store.aclose()
    return digests


@contextmanager
def _server(folder: Path, workers: int) -> Iterator[tuple[int, str]]:
    """Start a server; return the id of its process and its address."""
    words = [sys.executable, "-m", "flujo", "serve", "--port", "0", "--workers", str(workers)]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        address = re.search(r"http://\S+", said)
        assert address is not None, said
        try:
            yield process.pid, address[0]
        finally:
            process.terminate()


@contextmanager
def _worker(folder: Path, at_once: int) -> Iterator[None]:
    words = [sys.executable, "-m", "flujo", "worker", "--concurrency", str(at_once)]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


async def _follow(client: httpx.AsyncClient, run: str, opened: asyncio.Semaphore, found: Found) -> None:
    """Read the events of a run until it ends."""
    async with client.stream("GET", f"/api/v1/runs/{run}/events") as answer:
        answer.raise_for_status()
        opened.release()
        async for line in answer.aiter_lines():
            found.events += line.startswith("event:")


async def _answer(client: httpx.AsyncClient, run: str, digest: str, due: float, found: Found) -> None:
    given = {"answer": "yes", "digest": digest}
    answer = await client.post(f"/api/v1/runs/{run}/answer", json=given)
    found.taken_s.append(time.perf_counter() - due)
    found.refused += answer.status_code != 200


def _memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def _cpu_s(pid: int) -> float:
    """Return what a process has used of CPU, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
