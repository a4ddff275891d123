"""Measures what shadow evaluation adds to a run: the judge answers, hangs, raises or answers nonsense.

Each figure comes from its own process with its own SQLite file. Runs with and without evaluation alternate,
so that both see the same machine. The latency is that of `run_result_async`: from the call to the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from flujo import Flujo, Pipeline, Step

RUNS = 300
LIMIT_MS = 5.0
"""What shadow evaluation may add to a run at the 95th percentile."""
JUDGES = ("good", "hangs", "raises", "nonsense")
NEVER = threading.Event()


def answer(data: str) -> str:
    """The one step of each run."""
    return f"hello {data}"


def good(_: Any) -> dict[str, Any]:
    """Score at once."""
    return {"score": 0.5, "reason": "as always"}


def hangs(_: Any) -> float:
    """Score after the time limit of the evaluation."""
    NEVER.wait(60)
    return 1.0


def raises(_: Any) -> float:
    """Fail."""
    raise ValueError("the judge is broken")


def nonsense(_: Any) -> str:
    """Answer something that is not a score."""
    return "splendid"


async def measure(judge: str) -> None:
    """Print the latencies of runs in milliseconds, without and with evaluation, as JSON."""
    latencies: dict[str, list[float]] = {"off": [], "on": []}
    runners: dict[str, Flujo[Any, Any, Any]] = {}
    for mode in latencies:
        folder = Path(tempfile.mkdtemp())
        text = (
            '[blueprints]\nallow_callables = ["shadow"]\n'
            f"[evaluation]\nenabled = {str(mode == 'on').lower()}\ntimeout_s = 1\n"
            f'[evaluation.evaluators.judge]\ncall = "shadow:{judge}"\n'
        )
        (folder / "flujo.toml").write_text(text)
        os.chdir(folder)  # a runner takes the project of the folder in which it is first used
        runners[mode] = Flujo(Pipeline(Step("answer", answer), name="bench"), recovery=False)
        await runners[mode].run_result_async("first")
    for number in range(RUNS):
        for mode, runner in runners.items():
            began = time.perf_counter()
            result = await runner.run_result_async(f"{number}")
            latencies[mode].append((time.perf_counter() - began) * 1000)
            assert result.output == f"hello {number}", result
            await asyncio.sleep(0.005)
    with sqlite3.connect(folder / ".flujo/state.db") as database:
        [(evaluated,)] = database.execute("SELECT count(*) FROM runs WHERE kind = 'eval'")
    assert evaluated == RUNS + 1, f"{evaluated} runs are evaluated"
    sys.stdout.write(json.dumps({mode: sorted(each) for mode, each in latencies.items()}))
    sys.stdout.flush()
    os._exit(0)  # judges that hang keep their threads


def main() -> None:
    """Measure each judge in a process of its own, and print a table; exit 1 when one is over the limit."""
    is_over = False
    sys.stdout.write(
        f"{'judge':<10}{'p50 off':>9}{'p50 on':>9}{'p95 off':>9}{'p95 on':>9}{'added p95':>11}  ms\n"
    )
    for judge in JUDGES:
        done = subprocess.run(
            [sys.executable, __file__, judge],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            check=True,
            text=True,
        )
        found = json.loads(done.stdout)
        p50, p95 = ({mode: each[int(len(each) * at)] for mode, each in found.items()} for at in (0.5, 0.95))
        added = p95["on"] - p95["off"]
        is_over |= added > LIMIT_MS
        row = (p50["off"], p50["on"], p95["off"], p95["on"])
        sys.stdout.write(f"{judge:<10}{''.join(f'{each:>9.2f}' for each in row)}{added:>11.2f}\n")
    sys.exit(is_over)


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(measure(sys.argv[1]))
    main()
