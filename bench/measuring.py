"""Runs the jobs of `compare.py`: environments, repetitions, a file of results, and a quiet machine."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from goals import OURS, Job, Results

HERE = Path(__file__).resolve().parent
SERVERS = HERE / "peers"
"""More peers, each a folder with `bench.py` and `requirements.txt`, like those of the peers' benchmark."""

BUSY_CORES = 0.5
"""A quiet machine keeps fewer cores than this busy with other programs."""

_TIMEOUT_S = 300


def key(one: Job) -> str:
    """Return the identity of a job in the file of results."""
    return json.dumps(one, sort_keys=True)


def say(text: str) -> None:
    """Report progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


# Environments --------------------------------------------------------------------------------------------


def folder_of(peer: str, harness: Path) -> Path:
    """Return the folder of a peer's program."""
    return SERVERS / peer if (SERVERS / peer).is_dir() else harness / peer


def unavailable(peers: Iterable[str], harness: Path, venvs: Path) -> dict[str, str]:
    """Create the missing environments; return the peers that cannot run here, with the reasons."""
    reasons = {}
    for peer in sorted(set(peers) - {OURS}):
        try:
            _prepare(folder_of(peer, harness), venvs / peer)
        except (OSError, subprocess.CalledProcessError) as error:
            output = (getattr(error, "stderr", "") or str(error)).strip()
            reasons[peer] = f"its environment cannot be created: {output.splitlines()[-1]}"
            say(f"WARNING: {peer} is left out: {output[-1000:]}")
    return reasons


def _prepare(folder: Path, venv: Path) -> None:
    """Install what a peer requires, unless that is done: then the environment has a copy of the list."""
    wanted = {each: (folder / each).read_text("utf-8") for each in _lists(folder)}
    if all(
        (venv / each).exists() and (venv / each).read_text("utf-8") == text for each, text in wanted.items()
    ):
        return
    say(f"creating {venv}")
    _call(sys.executable, "-m", "venv", str(venv))
    pip = (str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _call(*pip, "-r", str(folder / "requirements.txt"))
    if "package.json" in wanted:
        (venv / "package.json").write_text(wanted.pop("package.json"), "utf-8")
        _call("npm", "install", "--prefix", str(venv), "--silent", "--no-audit", "--no-fund")
    for each, text in wanted.items():
        (venv / each).write_text(text, "utf-8")


def _lists(folder: Path) -> list[str]:
    return ["requirements.txt", *(["package.json"] if (folder / "package.json").exists() else [])]


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


# Results -------------------------------------------------------------------------------------------------


@dataclass
class Measurements:
    """The results of each job, kept in a file: a restarted program does not measure again."""

    file: Path
    found: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """The last error of each job that failed, by its key."""

    def __post_init__(self) -> None:
        if self.file.exists():
            for line in self.file.read_text("utf-8").splitlines():
                kept = json.loads(line)
                self.found[kept["job"], kept["repetition"]] = kept["result"]

    def add(self, one: Job, repetition: int, result: dict[str, Any]) -> None:
        """Keep the result of a job, or remember why it failed."""
        if "error" in result:
            self.failures[key(one)] = result["error"].strip().splitlines()[-1]
            return
        self.found[key(one), repetition] = result
        with self.file.open("a", encoding="utf-8") as file:
            line = {"job": key(one), "repetition": repetition, "result": result}
            file.write(json.dumps(line) + "\n")

    def of(self, one: Job) -> Results:
        """Return the results of a job in all repetitions."""
        return [result for (job, _), result in self.found.items() if job == key(one)]


def measure(
    jobs: list[Job],
    repetitions: int,
    kept: Measurements,
    run: Callable[[Job, int], dict[str, Any]],
    *,
    quiet: bool,
) -> None:
    """Run each job once in a repetition; the jobs of a repetition come in another order each time."""
    missing = [
        (repetition, one)
        for repetition in range(repetitions)
        for one in random.Random(repetition).sample(jobs, len(jobs))
        if (key(one), repetition) not in kept.found
    ]
    for number, (repetition, one) in enumerate(missing, 1):
        if quiet:
            wait_until_quiet()
        result = run(one, repetition)
        kept.add(one, repetition, result)
        name = f"[{number}/{len(missing)}] {one['dir']} {one['workload']} {one['backend']} {one['variant']}"
        if "error" in result:
            say(f"{name} FAILED: {result['error'][-1000:]}")
        else:
            say(f"{name}: {result.get('per_second')} a second, load {result['load1']}, {result['wall']} s")


def runner(arguments: Any, pg: str) -> Callable[[Job, int], dict[str, Any]]:
    """Return the function that runs a job with the program of the peers' benchmark."""
    sys.path.insert(0, str(arguments.harness))
    from run_all import run_job  # type: ignore[import-not-found]

    options = SimpleNamespace(venvs=arguments.venvs, pg=pg, disk=arguments.disk, shm=arguments.shm)

    def run(one: Job, repetition: int) -> dict[str, Any]:
        place: Job = {"env": {"FLUJO_BENCH_HARNESS": str(arguments.harness)}, "timeout": _TIMEOUT_S}
        if one["dir"] == OURS:
            place |= {"dir": str(HERE), "script": "durable", "venv": sys.prefix}
        else:
            place |= {"dir": str(folder_of(one["dir"], arguments.harness)), "venv": one["dir"]}
        result: dict[str, Any] = run_job({**one, **place}, options, repetition)
        return result

    return run


# A quiet machine -----------------------------------------------------------------------------------------


def wait_until_quiet() -> None:
    """Return when other programs keep few cores busy.

    The load average of a minute cannot tell: it still contains the job before.
    """
    began = reported = time.monotonic()
    for busy in _busy_cores():
        if busy < BUSY_CORES:
            return
        if (now := time.monotonic()) - reported > 60:
            say(f"waiting for {now - began:.0f} s: other programs keep {busy:.1f} cores busy")
            reported = now


def _busy_cores() -> Iterator[float]:
    """Yield how many cores were busy in the last second."""
    before = _ticks()
    while True:
        time.sleep(1)
        after = _ticks()
        all_of_it, idle = (now - then for now, then in zip(after, before, strict=True))
        yield (os.cpu_count() or 1) * (1 - idle / max(all_of_it, 1))
        before = after


def _ticks() -> tuple[int, int]:
    """Return the ticks of all cores since the machine started, and those in which they were idle."""
    words = Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]
    numbers = [int(word) for word in words]
    return sum(numbers), numbers[3] + numbers[4]
