"""Flujo, the machine's own limit and the peers, interleaved in one go: ratios of medians beside their goals.

python bench/compare.py --harness DIR --venvs DIR --pg URI [--reps 3] [--only W1,W2] [--disk DIR]

`--harness` is the folder of the peers' benchmark (`run_all.py`, `common/harness.py`, a folder a peer),
`--venvs` holds an environment for each peer, and `--pg` is a server by TCP (`postgresql://user@host:port/db`).
A peer whose environment is missing is left out, loudly. The exit code is 1 when a goal is missed by more than
a fifth.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
Job = dict[str, Any]
Results = list[dict[str, Any]]

SLOW_DISK_US = 1200
"""From here on a commit is mostly waiting for the disk, so an engine has less excuse."""


def job(peer: str, workload: str, backend: str, variant: str = "default", n: int | None = None) -> Job:
    return {
        "dir": peer,
        "workload": workload,
        "backend": backend,
        "variant": variant,
        **({"n": n} if n else {}),
    }


def ours(workload: str, backend: str, n: int | None = None) -> Job:
    return job("flujo", workload, backend, n=n)


@dataclass(frozen=True)
class Goal:
    """What is to be reached: `at_least`, or `at_most` when less is better."""

    text: str
    jobs: tuple[Job, ...]
    measure: Callable[..., float]
    at_least: float | None = None
    at_most: float | None = None

    def judged(self, value: float) -> tuple[str, bool]:
        """Return the verdict, and whether the goal is missed by more than a fifth."""
        if self.at_least is not None:
            return ("kept" if value >= self.at_least else "missed"), value < 0.8 * self.at_least
        assert self.at_most is not None
        return ("kept" if value <= self.at_most else "missed"), value > 1.2 * self.at_most


def median(results: Results, key: str = "per_second") -> float:
    return statistics.median(result[key] for result in results)


def times(mine: Results, other: Results) -> float:
    return median(mine) / median(other)


def than(text: str, mine: Job, other: Job, at_least: float) -> Goal:
    return Goal(f"{text}, times {other['dir']} {other['variant']}", (mine, other), times, at_least=at_least)


def goals(disk_us: float) -> list[Goal]:
    """Return the goals; only that of W1 depends on how long a sync takes."""
    of_limit = 0.85 if disk_us >= SLOW_DISK_US else 0.6
    made: list[Goal] = []
    for backend, limit, burr in (("sqlite", "full", "wal"), ("postgres", "default", "default")):
        raw = job("raw", "commit", backend, limit, 200)
        w1, w2, w3, w4, touch = (ours(name, backend) for name in ("W1", "W2", "W3", "W4", "W5touch"))
        dbos_n = 30 if backend == "sqlite" else 300
        made += [
            Goal(f"W1 {backend}, of one INSERT and COMMIT", (w1, raw), times, at_least=of_limit),
            than(f"W1 {backend}", w1, job("langgraph", "W1", backend, "chain-sync"), 3),
            than(f"W1 {backend}", w1, job("dbos", "W1", backend), 4),
            than(f"W1 {backend}", w1, job("burr", "W1", backend, burr), 1),
            than(f"W2 {backend}", w2, job("langgraph", "W2", backend, "chain-sync", 200), 20),
            than(f"W2 {backend}", w2, job("dbos", "W2", backend, n=dbos_n), 20),
            than(f"W2 {backend}", w2, job("burr", "W2", backend, burr, 300), 1.5),
            Goal(f"W2 {backend}, steps in one commit", (w2,), _steps_a_commit, at_least=2),
            than(f"W3 {backend}", w3, job("langgraph", "W3", backend, "chain-async", 500), 8),
            than(f"W4 {backend}", w4, job("langgraph", "W4", backend, "chain-async", 100), 10),
            than(f"W4 {backend}", w4, job("burr", "W4", backend, n=100), 1),
            than(f"W5touch {backend}", touch, job("langgraph", "W5touch", backend, "chain-async"), 5),
            Goal(f"W5touch {backend}, MB written", (touch,), _written_mb, at_most=5),
            Goal(f"W9 {backend}, steps run twice", (ours("W9", backend),), _twice, at_most=1),
            Goal(f"W9 {backend}, s to step 10,001", (_FAR[backend],), _next_step_s, at_most=0.3),
            Goal(f"W9 {backend}, MB more for it", (_FAR[backend],), _more_mb, at_most=30),
        ]
    none, in_flight = ours("W1", "none"), ours("W8", "sqlite@tmpfs")
    counts = tuple(ours("W5count", "sqlite", n) for n in (50, 150))
    few, many = (ours("W6", "sqlite@tmpfs", n) for n in (10, 1000))
    return [
        *made,
        than("W1 none", none, job("langgraph", "W1", "none", "chain-async"), 3),
        Goal("W1 none, us a step", (none,), _us_a_step, at_most=60),
        than("W3 sqlite", ours("W3", "sqlite"), job("burr", "W3", "sqlite", n=300), 4),
        Goal("W5touch sqlite, kB a step that changes a number", counts, _kb_a_step, at_most=2),
        Goal("W6, cost of a step at 1,000 by that at 10", (few, many), times, at_most=1.15),
        Goal("W6, kB stored a step", (many,), _kb_stored, at_most=1.5),
        Goal("W8, kB for each of 10,000 runs in flight", (in_flight,), _kb_a_run, at_most=12),
    ]


_FAR = {backend: ours("W9far", backend, 10_000) for backend in ("sqlite", "postgres")}


def _steps_a_commit(mine: Results) -> float:
    return statistics.median(3 * each["n"] / each["commits"] for each in mine)


def _us_a_step(mine: Results) -> float:
    return 1e6 / median(mine)


def _kb_stored(mine: Results) -> float:
    return statistics.median(each["file_bytes"] / each["n"] / 1e3 for each in mine)


def _written_mb(mine: Results) -> float:
    return statistics.median(each.get("wal_bytes", each["io_run_bytes"]) / 1e6 for each in mine)


def _kb_a_step(few: Results, many: Results) -> float:
    """Return what more steps add to the file; the context itself is in both."""
    return (median(many, "file_bytes") - median(few, "file_bytes")) / (many[0]["n"] - few[0]["n"]) / 1e3


def _kb_a_run(mine: Results) -> float:
    return statistics.median(
        (each["peak_rss_mb"] - each["rss_before_mb"]) * 1024 / each["n"] for each in mine
    )


def _twice(mine: Results) -> float:
    return max(len(each["rerun_steps"]) for each in mine)


def _next_step_s(mine: Results) -> float:
    return median(mine, "next_step_s")


def _more_mb(mine: Results) -> float:
    return median(mine, "more_mb")


# Measuring -----------------------------------------------------------------------------------------------


def key(one: Job) -> str:
    return json.dumps(one, sort_keys=True)


def runnable(one: Job, arguments: argparse.Namespace) -> Job:
    """Return the job as the peers' program runs it: ours is another folder and another environment."""
    if one["dir"] != "flujo":
        return one
    place = {"dir": str(HERE), "script": "durable", "venv": sys.prefix, "timeout": 300}
    return {**one, **place, "env": {"FLUJO_BENCH_HARNESS": arguments.harness}}


def measured(
    jobs: list[Job], arguments: argparse.Namespace, run_job: Callable[..., Any]
) -> dict[str, Results]:
    """Return the results of each job; the jobs of a repetition come in another order each time."""
    found: dict[str, Results] = {key(one): [] for one in jobs}
    options = SimpleNamespace(venvs=arguments.venvs, pg=arguments.pg, disk=arguments.disk, shm=arguments.shm)
    for repetition in range(arguments.reps):
        for one in random.Random(repetition).sample(jobs, len(jobs)):
            result = run_job(runnable(one, arguments), options, repetition)
            name = f"{one['dir']} {one['workload']} {one['backend']} {one['variant']}"
            if "error" in result:
                print(f"{name} FAILED: {result['error'][-200:]}", file=sys.stderr)
                continue
            print(f"{name}: {result.get('per_second')} a second, load {result['load1']}", file=sys.stderr)
            found[key(one)].append(result)
    return found


def main() -> int:
    arguments = _arguments()
    sys.path.insert(0, arguments.harness)
    from run_all import fsync_us, run_job  # type: ignore[import-not-found]

    disk_us = statistics.median(fsync_us(arguments.disk) for _ in range(5))
    wanted = [goal for goal in goals(disk_us) if not arguments.only or goal.text.split()[0] in arguments.only]
    missing = {
        one["dir"]
        for goal in wanted
        for one in goal.jobs
        if one["dir"] != "flujo" and not (Path(arguments.venvs) / one["dir"] / "bin" / "python").exists()
    }
    for peer in sorted(missing):
        print(f"WARNING: {peer} is left out: it has no environment in {arguments.venvs}", file=sys.stderr)
    possible = [goal for goal in wanted if not any(one["dir"] in missing for one in goal.jobs)]
    jobs = list({key(one): one for goal in possible for one in goal.jobs}.values())
    found = measured(jobs, arguments, run_job)
    load, rounds = os.getloadavg()[0], arguments.reps
    print(f"one write of 4 kB and a sync: {disk_us:.0f} us; load {load:.1f}; {rounds} rounds\n")
    print(f"| {'what':58} | measured | goal | |\n|---|---|---|---|")
    far = [_row(goal, [found[key(one)] for one in goal.jobs]) for goal in possible]
    return int(any(far))


def _row(goal: Goal, results: list[Results]) -> bool:
    aim = f"≥ {goal.at_least:g}" if goal.at_least is not None else f"≤ {goal.at_most:g}"
    if not all(results):
        print(f"| {goal.text:58} | - | {aim} | not measured |")
        return False
    value = goal.measure(*results)
    verdict, far = goal.judged(value)
    print(f"| {goal.text:58} | {value:.3g} | {aim} | {verdict} |")
    return far


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Flujo beside its peers")
    parser.add_argument("--harness", required=True)
    parser.add_argument("--venvs", required=True)
    parser.add_argument("--pg", required=True)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--disk", default=tempfile.gettempdir())
    parser.add_argument("--shm", default="/dev/shm")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
