"""What a map costs on an executor, beside the same functions called without Flujo, and beside peers.

    python bench/clusters.py                          2,000 items that do nothing, 40 items of 50 ms of CPU
    python bench/clusters.py --large                  100,000 and 2,000 of them
    python bench/clusters.py --items 200              200 and 4 of them
    python bench/clusters.py --kinds threads,dask     some executors only
    python bench/clusters.py --batch-size 50          of the tasks of a cluster
    python bench/clusters.py --venvs DIR --write      with the peers; writes the table of docs/performance.md

"alone" calls the functions with the library of the kind: a pool of threads or processes, or the client of
the cluster. "memory" is a map of Flujo whose journal is not persisted, "durable" one on SQLite. The overhead
is that of "durable" over "alone"; the price of durability is the difference of "durable" and "memory" for
an item. Each time is the fastest of three. A kind whose packages are missing is left out. A cluster is
started on this host, with --workers processes of one thread.

The peers are LangGraph (a `Send` for each item, executed by threads; "durable" has its SQLite saver) and DBOS
(a workflow in a queue for each item, executed by --workers processes on Postgres). Each is a program of
`peers/` in an environment of its own, which is created in --venvs.
"""

import argparse
import asyncio
import datetime
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measuring import SERVERS, unavailable
from postgres import server

from flujo import Flujo, MapStep, Pipeline, Step, StepConfig
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

ROUNDS = 3
"""The fastest of so many counts."""

MODULE = "measured_here"

Alone = Callable[[Callable[[int], int], int], list[int]]
"""Calls a function with the first numbers, and returns the results."""


@dataclass(frozen=True)
class Kind:
    """An executor of flujo.toml, and its library without Flujo."""

    table: str
    alone: Alone


@contextmanager
def pool(kind: str, pool_of: Callable[[int], Executor], workers: int) -> Iterator[Kind]:
    """Threads or processes of this host."""
    with pool_of(workers) as executor:
        list(executor.map(abs, range(workers)))  # they have started
        yield Kind(
            f'kind = "{kind}"\nsize = {workers}', lambda call, count: list(executor.map(call, range(count)))
        )


@contextmanager
def dask(workers: int, batch_size: int) -> Iterator[Kind]:
    """A Dask cluster of this host."""
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        cluster.get_client() as client,
    ):
        yield Kind(
            f'kind = "dask"\naddress = "{cluster.scheduler_address}"\nbatch_size = {batch_size}',
            lambda call, count: client.gather(client.map(call, range(count), pure=False)),
        )


@contextmanager
def ray(workers: int, batch_size: int) -> Iterator[Kind]:
    """A Ray cluster of this host, whose head has all cores."""
    import ray

    # The workers import the measured functions by name.
    paths = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
    cluster: Any = ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, runtime_env=paths)
    try:
        yield Kind(
            f'kind = "ray"\naddress = "{cluster.address_info["gcs_address"]}"\nbatch_size = {batch_size}',
            lambda call, count: ray.get([*map(ray.remote(call).remote, range(count))]),
        )
    finally:
        ray.shutdown()


def opened(kind: str, workers: int, batch_size: int) -> AbstractContextManager[Kind]:
    """Return a kind, whose workers run as long as it is open."""
    if kind == "threads":
        return pool(kind, ThreadPoolExecutor, workers)
    if kind == "processes":
        return pool(kind, ProcessPoolExecutor, workers)
    return {"dask": dask, "ray": ray}[kind](workers, batch_size)


def without_flujo(alone: Alone, call: Callable[[int], int], count: int) -> float:
    """Return the seconds of the library alone."""
    begun = time.perf_counter()
    assert alone(call, count) == list(range(count))
    return time.perf_counter() - begun


def with_flujo(root: Path, call: Callable[[int], int], count: int, *, persist: bool) -> float:
    """Return the seconds of a map of Flujo."""
    return asyncio.run(mapped(root, call, count, persist=persist))


async def mapped(root: Path, call: Callable[[int], int], count: int, *, persist: bool) -> float:
    """Return the seconds of a map of Flujo, whose workers have started."""
    step = Step("one", call, config=StepConfig(executor="there"))
    pipeline = Pipeline([MapStep("all", [step], max_concurrency=1000)], name="measured")
    async with Workspace(find_project(root)) as workspace:
        binding = workspace.bind(pipeline)
        async with Flujo(pipeline, binding=binding, persist_state=persist) as runner:
            await runner.run_result_async(list(range(16)))
            begun = time.perf_counter()
            result = await runner.run_result_async(list(range(count)))
            took = time.perf_counter() - begun
    assert result.output == list(range(count)), result.error
    return took


@dataclass(frozen=True)
class Row:
    """The seconds of one kind and one function; None for what was not measured."""

    kind: str
    name: str
    count: int
    alone: float | None
    memory: float | None
    durable: float

    def cells(self) -> list[str]:
        """Return what the columns of `COLUMNS` say."""
        alone, memory, durable = self.alone, self.memory, self.durable
        return [
            self.kind,
            self.name,
            f"{self.count:,}",
            *("" if each is None else f"{each:.2f}" for each in (alone, memory, durable)),
            "" if alone is None else f"{100 * (durable / alone - 1):.0f} %",
            "" if memory is None else f"{1e6 * (durable - memory) / self.count:.0f} µs",
        ]


COLUMNS = ("kind", "items", "count", "alone, s", "memory, s", "durable, s", "overhead", "durability an item")
WIDTHS = (18, 9, 9, 12, 12, 12, 11, 20)


def line(cells: Iterable[str]) -> str:
    """Return a row of the table for a terminal."""
    first, *others = zip(cells, WIDTHS, strict=True)
    return f"{first[0]:{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)


def measure(kind: Kind, root: Path, name: str, count: int) -> tuple[float, float, float]:
    """Return the seconds of a map of one function: alone, not persisted, and durable."""
    (root / "flujo.toml").write_text(
        f'[blueprints]\nallow_callables = ["{MODULE}"]\n[executors.there]\n{kind.table}\n',
        "utf-8",
    )
    call = getattr(importlib.import_module(MODULE), name)
    kind.alone(call, 16)
    alone, memory, durable = (
        min(measured() for _ in range(ROUNDS))
        for measured in (
            partial(without_flujo, kind.alone, call, count),
            partial(with_flujo, root, call, count, persist=False),
            partial(with_flujo, root, call, count, persist=True),
        )
    )
    return alone, memory, durable


def of_kind(kind: str, counts: dict[str, int], workers: int, batch_size: int) -> Iterator[Row]:
    """Yield the rows of one executor; its workers run in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        shutil.copy(SERVERS / "items.py", root / f"{MODULE}.py")
        sys.path.insert(0, str(root))
        sys.modules.pop(MODULE, None)
        os.chdir(root)
        try:
            with opened(kind, workers, batch_size) as running:
                for name, count in counts.items():
                    yield Row(kind, name, count, *measure(running, root, name, count))
        finally:
            os.chdir("/")
            sys.path.remove(str(root))


# Peers ---------------------------------------------------------------------------------------------------

PEERS = {"langgraph": "langgraph_agent", "dbos": "dbos_queue"}
"""The folder of the program of each, below `peers`."""
TIMEOUT_S = 3600


def of_peer(peer: str, counts: dict[str, int], options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of one peer, each measured by its own interpreter."""
    folder = PEERS[peer]
    python = options.venvs / folder / "bin" / "python"
    for name, count in counts.items():
        with ExitStack() as opened:
            uri = opened.enter_context(server(options.pg, options.disk)) if peer == "dbos" else ""
            work = opened.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.disk))
            given = [str(options.workers), name, str(count), *([uri] if uri else [])]
            done = subprocess.run(
                [str(python), "-W", "ignore", str(SERVERS / folder / "map.py"), *given],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
                cwd=work,
            )
        found = json.loads(done.stdout.splitlines()[-1])
        yield Row(found["versions"], name, count, None, found.get("memory"), found["durable"])


# The table -----------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- written by bench/clusters.py -->\n", "<!-- end -->\n"


def measured(options: argparse.Namespace, counts: dict[str, int], left_out: list[str]) -> Iterator[Row]:
    """Yield all rows; what cannot be measured here is added to `left_out`."""
    for kind in filter(None, options.kinds.split(",")):
        try:
            yield from of_kind(kind, counts, options.workers, options.batch_size)
        except ModuleNotFoundError as error:
            left_out.append(f"{kind}: the package `{error.name}` is not installed")
    peers = [each for each in options.peers.split(",") if each in PEERS]
    if options.venvs is None:
        left_out += [f"{peer}: no `--venvs`" for peer in peers]
        return
    reasons = unavailable({PEERS[peer] for peer in peers}, Path(), options.venvs)
    for peer in peers:
        if PEERS[peer] in reasons:
            left_out.append(f"{peer}: {reasons[PEERS[peer]]}")
            continue
        try:
            yield from of_peer(peer, counts, options)
        except subprocess.CalledProcessError as error:
            left_out.append(f"{peer}: {error.stderr.strip().splitlines()[-1]}")
        except subprocess.TimeoutExpired as error:
            left_out.append(f"{peer}: no result after {error.timeout:.0f} s")


def write(conditions: str, rows: list[Row], left_out: list[str]) -> None:
    """Replace the table of the page."""
    table = [f"| {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    table += [f"| {' | '.join(row.cells())} |" for row in rows]
    table += ["", "Not measured:", "", *(f"- {each}" for each in left_out)] if left_out else []
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = "\n".join([conditions, "", *table])
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}", "utf-8")


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--kinds", default="threads,processes,dask,ray")
    asked.add_argument("--peers", default=",".join(PEERS))
    asked.add_argument("--venvs", type=lambda text: Path(text).resolve(), help="of the peers")
    asked.add_argument("--large", action="store_true", help="the same as --items 100000")
    asked.add_argument("--items", type=int, default=2000, help="and a fiftieth of them with 50 ms of CPU")
    asked.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--batch-size", type=int, default=50)
    asked.add_argument("--pg", default="", help="URI of a Postgres for DBOS; default: one that it starts")
    asked.add_argument("--disk", default=tempfile.gettempdir(), help="folder for the databases of the peers")
    asked.add_argument("--write", action="store_true", help="write docs/performance.md")
    return asked.parse_args()


def main() -> None:
    """Print one row for each kind, peer and function."""
    options = arguments()
    items = 100_000 if options.large else options.items
    counts = {"nothing": items, "busy": max(1, items // 50)}
    os.environ.pop("FLUJO_STATE_URI", None)
    conditions = (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Python "
        f"{sys.version.split()[0]}, {options.workers} workers, load {os.getloadavg()[0]:.1f}, batches of "
        f"{options.batch_size} items on clusters; each time is the fastest of {ROUNDS}."
    )
    print(conditions)
    print(line(COLUMNS))
    rows, left_out = [], list[str]()
    for row in measured(options, counts, left_out):
        rows.append(row)
        print(line(row.cells()), flush=True)
    for each in left_out:
        print(f"left out: {each}")
    if options.write:
        write(conditions, rows, left_out)


if __name__ == "__main__":
    main()
