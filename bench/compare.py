"""Flujo, the machine's own limit and the peers, interleaved in one go: a table with a goal a row, and a plot.

    python bench/compare.py --harness DIR --venvs DIR --quiet --write

`--harness` is the folder of the peers' benchmark (`run_all.py`, `common/harness.py`, a folder a peer).
`--venvs` holds an environment for each peer, created if it is missing, and the results of each commit: a
restarted program measures only what is missing. A peer that cannot run is left out, with the reason. The exit
code is 1 when a goal is missed by more than a fifth.
"""

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from goals import OURS, Job, Row, rows
from measuring import Measurements, key, measure, runner, unavailable
from plot import bars, svg
from postgres import server

HERE = Path(__file__).resolve().parent
PAGE, PLOT = HERE.parent / "docs" / "performance.md", HERE.parent / "docs" / "performance.svg"
BEGIN, END = "<!-- written by bench/compare.py -->\n", "<!-- end -->\n"
SLACK = 1.25
"""The factor by which a goal may be missed before the exit code is 1."""


def main() -> int:
    """Measure the selected rows, and print the table."""
    arguments = _arguments()
    selected = [row for row in rows() if _is_selected(row, arguments)]
    reasons = unavailable(
        {one["dir"] for row in selected for one in row.jobs}, arguments.harness, arguments.venvs
    )
    possible = [row for row in selected if not any(one["dir"] in reasons for one in row.jobs)]
    jobs = list({key(one): one for row in possible for one in row.jobs}.values())
    kept = Measurements(arguments.results or arguments.venvs / f"{_commit()}.jsonl")
    with server(arguments.pg, arguments.disk) as pg:
        measure(jobs, arguments.reps, kept, runner(arguments, pg), quiet=arguments.quiet)
    table = "\n".join([_conditions(jobs, kept), "", *_table(selected, kept), *_left_out(reasons, jobs, kept)])
    print(table)
    if arguments.write:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{after}", "utf-8")
        PLOT.write_text(svg(bars(jobs, kept)), "utf-8")
    measured = [row for row in possible if all(kept.of(one) for one in row.jobs)]
    return int(any(row.verdict(_value(row, kept), SLACK) == "missed" for row in measured))


def _is_selected(row: Row, arguments: argparse.Namespace) -> bool:
    peers = {one["dir"] for one in row.jobs} - {OURS}
    by_workload = not arguments.only or row.workload.rstrip(",") in arguments.only
    return by_workload and (not arguments.peers or peers <= set(arguments.peers))


def _value(row: Row, kept: Measurements) -> float:
    return row.measure(*(kept.of(one) for one in row.jobs))


def _conditions(jobs: list[Job], kept: Measurements) -> str:
    """Return one sentence about the machine and the moment."""
    results = [result for one in jobs for result in kept.of(one)]
    if not results:
        return "Nothing was measured."
    sync = statistics.median(statistics.mean(each["fsync_us"]) for each in results)
    load = statistics.median(each["load1"] for each in results)
    first, last = (
        datetime.datetime.fromtimestamp(at(each["started"] for each in results), datetime.UTC)
        for at in (min, max)
    )
    repetitions = max(len(kept.of(one)) for one in jobs)
    return (
        f"Commit {_commit()}, {first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC, {os.cpu_count()} cores, Python "
        f"{sys.version.split()[0]}; median load {load:.1f}, one write of 4 kB and a sync {sync:.0f} us; "
        f"medians of {repetitions} repetitions."
    )


def _table(selected: list[Row], kept: Measurements) -> list[str]:
    """Return the table, in Markdown."""
    lines = ["| what | rates a second | figure | goal | |", "|---|---|---|---|---|"]
    for row in selected:
        results = [kept.of(one) for one in row.jobs]
        if all(results):
            value = row.measure(*results)
            lines.append(
                f"| {row.text} | {row.parts(*results)} | {value:.3g} | {row.aim} | {row.verdict(value)} |"
            )
        else:
            lines.append(f"| {row.text} | | | {row.aim} | not measured |")
    return lines


def _left_out(reasons: dict[str, str], jobs: list[Job], kept: Measurements) -> list[str]:
    """Return why rows have no figure."""
    failed = {
        f"{one['dir']} {one['workload']} {one['backend']}": kept.failures[key(one)]
        for one in jobs
        if key(one) in kept.failures and not kept.of(one)
    }
    lines = [f"- {name}: {reason}" for name, reason in {**reasons, **failed}.items()]
    return ["", "Not measured:", "", *lines] if lines else []


def _commit() -> str:
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Flujo beside its peers")
    names = {"type": lambda text: text.split(","), "default": []}
    path = {"type": lambda text: Path(text).resolve()}
    parser.add_argument("--harness", required=True, **path, help="folder of the peers' benchmark")
    parser.add_argument(
        "--venvs", required=True, **path, help="folder of the peers' environments and of the results"
    )
    parser.add_argument(
        "--pg", default="", help="a Postgres by TCP, postgresql://user@host:port/db; default: its own"
    )
    parser.add_argument("--reps", type=int, default=3, help="repetitions")
    parser.add_argument("--only", **names, help="workloads, such as W1,W2")
    parser.add_argument("--peers", **names, help="peers, such as raw,burr; Flujo is always measured")
    parser.add_argument("--quiet", action="store_true", help="before each job, wait for a quiet machine")
    parser.add_argument(
        "--write", action="store_true", help="write docs/performance.md and docs/performance.svg"
    )
    parser.add_argument(
        "--results", **path, help="file of results; default: a file for each commit, in --venvs"
    )
    parser.add_argument("--disk", default=tempfile.gettempdir(), help="folder for databases")
    parser.add_argument("--shm", default="/dev/shm", help="folder in memory, where a sync costs nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
