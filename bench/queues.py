"""Queues beside their peers on one Postgres: jobs a second, the wake-up and the cost of an idle worker.

    python bench/queues.py --venvs DIR --quiet
    python bench/queues.py --venvs DIR --jobs 500 --reps 1 --peers none

A job does nothing and returns its number. The jobs are enqueued first; measured is the time in which one or
four worker processes claim, run and complete all of them. Each measurement has a database of its own. In a
repetition the programs run one after another, in another order each time. Only the ratios mean anything.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from measuring import SERVERS, say, unavailable, wait_until_quiet
from postgres import server

OURS = "flujo_queue"
PEERS = {"dbos_queue": "DBOS queues", "procrastinate_queue": "procrastinate", "awa_queue": "awa-pg"}
NAMES = {OURS: "Flujo, with its journal", **PEERS}
WORKERS = (1, 4)
TIMEOUT_S = 600

Results = dict[tuple[str, int], list[dict[str, Any]]]
"""By program and number of workers."""


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    reasons = unavailable(PEERS.keys() & arguments.peers, Path(), arguments.venvs)
    programs = [each for each in NAMES if each == OURS or each in {*arguments.peers} - {*reasons}]
    results: Results = defaultdict(list)
    with server(arguments.pg, arguments.disk) as pg:
        for repetition in range(arguments.reps):
            jobs = [(program, workers) for workers in WORKERS for program in programs]
            for program, workers in random.Random(repetition).sample(jobs, len(jobs)):
                if arguments.quiet:
                    wait_until_quiet()
                found = _measured(program, workers, pg, arguments)
                say(f"{program}, {workers} workers: {found['jobs_per_s']:.0f} jobs/s")
                results[program, workers].append(found)
    print("\n".join(_table(programs, results, arguments)))
    for peer, reason in reasons.items():
        print(f"\n{NAMES[peer]} was not measured: {reason}")


def _measured(program: str, workers: int, pg: str, arguments: argparse.Namespace) -> dict[str, Any]:
    python = Path(sys.executable) if program == OURS else arguments.venvs / program / "bin" / "python"
    script = SERVERS / program / "bench.py"
    database = f"bench_{random.SystemRandom().getrandbits(48):x}"
    _execute(pg, f'CREATE DATABASE "{database}"')
    uri = pg.rpartition("/")[0] + f"/{database}"
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.disk) as folder:
        words = [uri, str(arguments.jobs), str(workers), str(arguments.concurrency)]
        command = [str(python), "-W", "ignore", str(script), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=folder
        )
    _execute(pg, f'DROP DATABASE "{database}" WITH (FORCE)')
    if done.returncode:
        raise SystemExit(f"{program} failed: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "load": os.getloadavg()[0]}


def _execute(pg: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute(statement)


def _table(programs: list[str], results: Results, arguments: argparse.Namespace) -> list[str]:
    """Return the conditions and the table, in Markdown."""

    def median(program: str, workers: int, what: str = "jobs_per_s") -> float:
        return statistics.median(found[what] for found in results[program, workers])

    every = [found for each in results.values() for found in each]
    load = statistics.median(found["load"] for found in every)
    lines = [
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, median load {load:.1f}, "
        f"{arguments.jobs} jobs, {arguments.concurrency} at once in each, medians of {arguments.reps} runs.",
        "",
        "| | " + " | ".join(f"{n} worker(s): jobs/s | Flujo is" for n in WORKERS) + " | versions |",
        "|---|" + "---|---|" * len(WORKERS) + "---|",
    ]
    for program in programs:
        cells = [
            f"{median(program, n):,.0f} | {median(OURS, n) / median(program, n):.2f} times as fast"
            for n in WORKERS
        ]
        lines.append(f"| {NAMES[program]} | {' | '.join(cells)} | {results[program, 1][0]['versions']} |")
    wake, idle = median(OURS, 1, "wake_ms"), median(OURS, 1, "idle_queries_per_s")
    return [*lines, "", f"Wake-up of an idle worker, p95: {wake:.1f} ms; idle: {idle:.1f} transactions/s."]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="queues, beside their peers")
    parser.add_argument("--venvs", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--pg", default="", help="URI of a Postgres; default: one that it starts")
    parser.add_argument("--disk", default="/var/tmp", help="folder for the data of the server")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--quiet", action="store_true", help="wait until other programs are quiet")
    parser.add_argument(
        "--peers", default=",".join(PEERS), type=lambda text: [*filter(PEERS.get, text.split(","))]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
