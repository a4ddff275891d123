"""Agents in turns beside their peers: milliseconds and bytes of a turn, with a model that answers instantly.

    python bench/agents.py --venvs DIR
    python bench/agents.py --venvs DIR --turns 20,300 --reps 5 --quiet
    python bench/agents.py --venvs DIR --turns 1000 --peers none

Each turn calls one tool with the effect `read`. The programs are in `peers/`, and each measurement is a
process of its own; in a repetition they run one after another, in another order each time. It prints Markdown
for `docs/performance.md`. The exit code is 1 when a goal is missed by more than a fifth.
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

OURS, ALONE = "flujo_agent", "pydantic_ai_agent"
DURABLE = {"dbos_agent": "pydantic-ai on DBOS", "langgraph_agent": "LangGraph's prebuilt agent"}
NAMES = {OURS: "Flujo, a `granular` step", ALONE: "pydantic-ai alone", **DURABLE}
SLACK = 1.25
"""The factor by which a goal may be missed before the exit code is 1."""
TIMEOUT_S = 600

Results = dict[tuple[str, int], list[dict[str, Any]]]
"""By program and number of turns."""


def main() -> int:
    """Measure, and print the tables."""
    arguments = _arguments()
    reasons = unavailable(DURABLE.keys() & arguments.peers, Path(), arguments.venvs)
    programs = [each for each in NAMES if each == OURS or each in {*arguments.peers} - {*reasons}]
    results: Results = defaultdict(list)
    for repetition in range(arguments.reps):
        jobs = [(program, turns) for turns in arguments.turns for program in programs]
        for program, turns in random.Random(repetition).sample(jobs, len(jobs)):
            if arguments.quiet:
                wait_until_quiet()
            found = _measured(program, turns, arguments)
            say(f"{program}, {turns} turns: {found['ms']:.2f} ms a turn, CPU {found['cpu_ms']:.2f}")
            results[program, turns].append(found)
    print("\n".join([*_table(programs, arguments.turns, results), ""]))
    goals = list(_goals(programs, arguments.turns, results))
    print(
        "\n".join(
            ["| goal | turns | figure | goal | |", "|---|---|---|---|---|", *(line for line, _ in goals)]
        )
    )
    for peer, reason in reasons.items():
        print(f"\n{NAMES[peer]} was not measured: {reason}")
    return int(not all(is_near for _, is_near in goals))


def _measured(program: str, turns: int, arguments: argparse.Namespace) -> dict[str, Any]:
    python = (
        Path(sys.executable) if program in (OURS, ALONE) else arguments.venvs / program / "bin" / "python"
    )
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.disk) as folder:
        command = [str(python), "-W", "ignore", str(SERVERS / program / "bench.py"), str(turns), folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{program} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "load": os.getloadavg()[0]}


def _median(results: Results, program: str, turns: int, what: str) -> float:
    return statistics.median(found[what] for found in results[program, turns])


def _table(programs: list[str], turns: list[int], results: Results) -> list[str]:
    """Return the conditions and the table, in Markdown."""
    every = [found for each in results.values() for found in each]
    load = statistics.median(found["load"] for found in every)
    lines = [
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, median load {load:.1f}, medians of "
        f"{max(map(len, results.values()))} repetitions.",
        "",
        "| | " + " | ".join(f"{n} turns: ms a turn | CPU ms | bytes a turn" for n in turns) + " | versions |",
        "|---|" + "---|---|---|" * len(turns) + "---|",
    ]
    for program in programs:
        cells = [
            f"{_median(results, program, n, 'ms'):.2f} | {_median(results, program, n, 'cpu_ms'):.2f} | "
            + (f"{size:,.0f}" if (size := _median(results, program, n, "bytes")) else "nothing")
            for n in turns
        ]
        versions = results[program, turns[0]][0]["versions"]
        lines.append(f"| {NAMES[program]} | {' | '.join(cells)} | {versions} |")
    return lines


def _goals(programs: list[str], turns: list[int], results: Results) -> list[tuple[str, bool]]:
    """Return the lines of the goals, and whether each is met or nearly met."""

    def ms(program: str, n: int) -> float:
        return _median(results, program, n, "ms")

    lines = []
    for n in turns:
        if ALONE in programs:
            added = ms(OURS, n) - ms(ALONE, n)
            lines.append(_goal("ms a turn that Flujo adds to pydantic-ai alone", n, added, at_most=1))
        lines += [
            _goal(f"times as fast as {NAMES[peer]}", n, ms(peer, n) / ms(OURS, n), at_least=3)
            for peer in programs
            if peer in DURABLE
        ]
        resumed, cpu = (_median(results, OURS, n, what) for what in ("resume_s", "resume_cpu_s"))
        text = f"s until a resumed conversation makes its last request (CPU {cpu:.2f})"
        lines.append(_goal(text, n, resumed, at_most=1))
    few, many = (_median(results, OURS, n, "bytes") for n in (min(turns), max(turns)))
    if few != many:
        lines.append(
            _goal(f"bytes a turn, of those at {min(turns)} turns", max(turns), many / few, at_most=1.1)
        )
    return lines


def _goal(
    text: str, turns: int, value: float, *, at_least: float | None = None, at_most: float = 0
) -> tuple[str, bool]:
    if at_least is not None:
        aim, is_met, is_near = f"≥ {at_least:g}", value >= at_least, value * SLACK >= at_least
    else:
        aim, is_met, is_near = f"≤ {at_most:g}", value <= at_most, value <= at_most * SLACK
    return f"| {text} | {turns} | {value:.3g} | {aim} | {'met' if is_met else 'missed'} |", is_near


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="agents in turns, beside their peers")
    parser.add_argument(
        "--venvs",
        required=True,
        type=lambda text: Path(text).resolve(),
        help="folder of the peers' environments",
    )
    parser.add_argument(
        "--turns",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[20, 300],
        help="such as 20,300",
    )
    parser.add_argument("--reps", type=int, default=3, help="repetitions")
    parser.add_argument(
        "--peers",
        type=lambda text: text.split(","),
        default=[ALONE, *DURABLE],
        help="such as dbos_agent, or none; Flujo is always measured",
    )
    parser.add_argument("--quiet", action="store_true", help="before each job, wait for a quiet machine")
    parser.add_argument("--disk", default=tempfile.gettempdir(), help="folder for databases")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
