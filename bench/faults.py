"""Queues beside their peers while their database and their workers fail, in five ways.

    python bench/faults.py --venvs DIR
    python bench/faults.py --venvs DIR --peers none --jobs 300

Two workers execute jobs of 0.2 s. In the middle a fault comes. Reported are how long after its end the
workers complete half as many jobs a second as before it, how many jobs have not completed after a long
silence, and how many have completed more than once. A worker that ends is started again after a second, with
its old name.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from measuring import SERVERS, say, unavailable
from postgres import restart, server
from queues import NAMES, OURS, PEERS

WORKERS = ("one", "two")
CONCURRENCY = 10
FAULT_S = 3.0
SILENCE_S = 30.0
"""After this time without a completed job, the others count as lost."""


@dataclass
class Bench:
    """One program on one database, its workers, and the ledger of what they have done."""

    program: str
    python: Path
    uri: str
    folder: Path
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        """The file with the completed jobs."""
        return self.folder / "ledger"

    def command(self, *words: str) -> list[str]:
        """Return the command of the program."""
        return [str(self.python), "-W", "ignore", str(SERVERS / self.program / "serve.py"), *words]

    def tend(self) -> None:
        """Start the workers that do not run; one that has ended, a second later."""
        for name in WORKERS:
            worker = self.workers.get(name)
            if worker is not None and worker.poll() is None:
                continue
            if worker is not None and time.time() - self.ended.setdefault(name, time.time()) < 1:
                continue
            self.ended.pop(name, None)
            words = self.command("work", self.uri, name, str(CONCURRENCY), str(self.ledger))
            with (self.folder / "log").open("ab") as log:
                self.workers[name] = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log)

    def done(self) -> list[tuple[int, float]]:
        """Return the completed jobs with their times."""
        if not self.ledger.exists():
            return []
        lines = (line.split() for line in self.ledger.read_text().splitlines())
        return [(int(number), float(at)) for number, at in lines]

    def until(self, holds: Callable[[], bool]) -> None:
        """Tend the workers until something holds, or nothing has completed for a long time."""
        silent_since, before = time.time(), -1
        while not holds():
            self.tend()
            time.sleep(0.05)
            if (now := len(self.done())) != before:
                silent_since, before = time.time(), now
            if time.time() - silent_since > SILENCE_S:
                return

    def sleep(self, seconds: float) -> None:
        """Tend the workers for some time."""
        until = time.time() + seconds
        while time.time() < until:
            self.tend()
            time.sleep(0.05)


def restarted(bench: Bench) -> None:
    """Stop Postgres at once, and start it again."""
    restart(bench.uri)


def backends_killed(bench: Bench) -> None:
    """Close all connections again and again."""
    until = time.time() + FAULT_S
    while time.time() < until:
        _terminate(bench.uri, [])
        bench.sleep(0.2)


def exhausted(bench: Bench) -> None:
    """Hold every connection that the server allows."""
    until = time.time() + FAULT_S
    with ExitStack() as exits:
        held: list[psycopg.Connection[Any]] = []
        while time.time() < until:
            try:
                held.append(exits.enter_context(closing(psycopg.connect(bench.uri, autocommit=True))))
            except psycopg.OperationalError:  # there are no more
                _terminate_beside(held)
                bench.sleep(0.1)


def killed(bench: Bench) -> None:
    """Kill a worker."""
    bench.workers["one"].kill()
    bench.workers["one"].wait()


def frozen(bench: Bench) -> None:
    """Stop a worker, and let it continue later."""
    worker = bench.workers["one"]
    worker.send_signal(signal.SIGSTOP)
    bench.sleep(FAULT_S)
    worker.send_signal(signal.SIGCONT)


FAULTS: dict[str, Callable[[Bench], None]] = {
    "Postgres restarted": restarted,
    "backends killed for 3 s": backends_killed,
    "no connection free for 3 s": exhausted,
    "a worker killed": killed,
    "a worker frozen for 3 s": frozen,
}


def _terminate(uri: str, kept: list[int]) -> None:
    with suppress(psycopg.OperationalError), psycopg.connect(uri, autocommit=True) as connection:
        _terminate_beside([connection], kept)


def _terminate_beside(held: list["psycopg.Connection[Any]"], kept: list[int] | None = None) -> None:
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND NOT pid = ANY(%s)"
    )
    held[0].execute(others, ([*(each.info.backend_pid for each in held), *(kept or [])],))


def measured(bench: Bench, fault: str, jobs: int) -> str:
    """Return the cell of the table: seconds to half the throughput, lost jobs, repeated jobs."""
    filled = subprocess.run(
        bench.command("fill", bench.uri, str(jobs)),
        cwd=bench.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if filled.returncode:
        raise SystemExit(f"{bench.program} failed: {filled.stderr[-3000:]}")
    bench.until(lambda: len(bench.done()) > jobs // 4)
    before = [at for _, at in bench.done()]
    rate = sum(at > time.time() - 2 for at in before) / 2
    FAULTS[fault](bench)
    ended = time.time()
    bench.until(lambda: len({number for number, _ in bench.done()}) == jobs)
    done = bench.done()
    for worker in bench.workers.values():
        worker.kill()
        worker.wait()
    times = sorted(at for _, at in done if at >= ended)
    back = next((at for at in times if sum(at <= each < at + 1 for each in times) >= rate / 2), None)
    lost = jobs - len({number for number, _ in done})
    twice = sum(count > 1 for count in Counter(number for number, _ in done).values())
    returned = "never" if back is None else f"{back - ended:.1f} s"
    return f"{returned}, {lost} lost, {twice} twice"


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    reasons = unavailable(PEERS.keys() & arguments.peers, Path(), arguments.venvs)
    programs = [each for each in NAMES if each == OURS or each in {*arguments.peers} - {*reasons}]
    cells: dict[tuple[str, str], str] = {}
    faults = [fault for fault in FAULTS if arguments.only in fault]
    with server("", arguments.disk) as pg:
        for fault in faults:
            for program in programs:
                python = Path(sys.executable)
                if program != OURS:
                    python = arguments.venvs / program / "bin" / "python"
                name = f"bench_{random.SystemRandom().getrandbits(48):x}"
                with psycopg.connect(pg, autocommit=True) as connection:
                    connection.execute(f'CREATE DATABASE "{name}"')
                with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.disk) as folder:
                    bench = Bench(program, python, pg.rpartition("/")[0] + f"/{name}", Path(folder))
                    cells[program, fault] = measured(bench, fault, arguments.jobs)
                say(f"{program}, {fault}: {cells[program, fault]}")
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.jobs} jobs of 0.2 s, 2 workers.\n"
    )
    print("| | " + " | ".join(faults) + " |")
    print("|---|" + "---|" * len(faults))
    for program in programs:
        print(f"| {NAMES[program]} | " + " | ".join(cells[program, fault] for fault in faults) + " |")
    for peer, reason in reasons.items():
        print(f"\n{NAMES[peer]} was not measured: {reason}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="queues among faults, beside their peers")
    parser.add_argument("--venvs", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--disk", default="/var/tmp", help="folder for the data of the server")
    parser.add_argument("--jobs", type=int, default=600)
    parser.add_argument("--only", default="", help="only the faults whose name contains this")
    parser.add_argument(
        "--peers", default=",".join(PEERS), type=lambda text: [*filter(PEERS.get, text.split(","))]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
