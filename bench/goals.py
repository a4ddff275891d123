"""What `compare.py` measures: a row for each goal, and rows without a goal beside the other peers."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Job = dict[str, Any]
Results = list[dict[str, Any]]

OURS = "flujo"


@dataclass(frozen=True)
class Row:
    """A figure from the results of some jobs, and its goal: `at_least`, `at_most`, or none."""

    text: str
    jobs: tuple[Job, ...]
    measure: Callable[..., float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def workload(self) -> str:
        """The name of the workload, which each row begins with."""
        return self.text.split()[0]

    @property
    def aim(self) -> str:
        """The goal as text."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    def verdict(self, value: float, slack: float = 1) -> str:
        """Return whether the goal is met; `slack` is the factor by which it may be missed."""
        if self.at_least is None and self.at_most is None:
            return ""
        met = value <= self.at_most * slack if self.at_least is None else value * slack >= self.at_least
        return "met" if met else "missed"

    def parts(self, *results: Results) -> str:
        """Return both rates of a ratio, ours first."""
        return " / ".join(f"{median(each):,.0f}" for each in results) if self.measure is times else ""


def rows() -> list[Row]:
    """Return the rows of the table."""
    made: list[Row] = []
    for backend, full, wal in (("sqlite", "full", "wal"), ("postgres", "default", "default")):
        made += _goals(backend, full, wal)
    return [*made, *_alone(), *_servers(), *_dbos()]


def _goals(backend: str, full: str, wal: str) -> list[Row]:
    raw = job("raw", "commit", backend, full, 200)
    w1, w2, w3, w4, touch = (ours(name, backend) for name in ("W1", "W2", "W3", "W4", "W5touch"))
    far = ours("W9far", backend, 10_000)
    return [
        Row(f"W1 {backend}, of one INSERT and COMMIT", (w1, raw), times, at_least=0.7),
        than(w1, job("burr", "W1", backend, wal), 1.3),
        than(w1, job("langgraph", "W1", backend, "chain-sync"), 3),
        than(w2, job("burr", "W2", backend, wal, 300), 2.5),
        than(w2, job("langgraph", "W2", backend, "chain-sync", 200), 30),
        Row(f"W2 {backend}, steps in one commit", (w2,), _steps_a_commit, at_least=2),
        than(w3, job("langgraph", "W3", backend, "chain-async", 500), 12),
        than(w4, job("burr", "W4", backend, n=100), 2),
        than(w4, job("langgraph", "W4", backend, "chain-async", 100), 20),
        than(touch, job("langgraph", "W5touch", backend, "chain-async"), 5),
        Row(f"W5touch {backend}, MB written", (touch,), _written_mb, at_most=5),
        Row(f"W9 {backend}, steps run twice", (ours("W9", backend),), _twice, at_most=1),
        Row(f"W9 {backend}, s to step 10,001", (far,), _next_step_s, at_most=0.3),
        Row(f"W9 {backend}, MB more for it", (far,), _more_mb, at_most=30),
    ]


def _alone() -> list[Row]:
    """Return the rows of the engine without a database, or with a file whose sync costs nothing."""
    none, in_flight = ours("W1", "none"), ours("W8", "sqlite@tmpfs")
    few, many = (ours("W6", "sqlite@tmpfs", n) for n in (10, 1000))
    counts = tuple(ours("W5count", "sqlite", n) for n in (50, 150))
    return [
        Row("W1 none, us a step that does nothing", (ours("W1", "none", 1000),), _us_a_step, at_most=15),
        than(none, job("langgraph", "W1", "none", "chain-async"), 3),
        than(ours("W3", "sqlite"), job("burr", "W3", "sqlite", n=300), 4),
        Row("W5count sqlite, kB a step that changes a number", counts, _kb_a_step, at_most=2),
        Row("W6, cost of a step at 1,000 by that at 10", (few, many), times, at_most=1.15),
        Row("W6, kB stored a step", (many,), _kb_stored, at_most=1.5),
        Row("W8, kB for each of 10,000 runs in flight", (in_flight,), _kb_a_run, at_most=8),
    ]


def _servers() -> list[Row]:
    """Return the rows beside peers that are servers of their own, on a file; they have no goal."""
    made: list[Row] = []
    w9 = ours("W9", "sqlite")
    for peer, backend in (("temporal", "sqlite"), ("restate", "file")):
        made += [
            than(ours("W1", "sqlite"), job(peer, "W1", backend, n=60)),
            than(ours("W2", "sqlite"), job(peer, "W2", backend, n=60)),
            Row(f"W9 {peer}, steps run twice", (job(peer, "W9", backend, n=20),), _twice),
            Row(
                f"W9 {peer}, s from a new process to its first step",
                (job(peer, "W9", backend, n=20),),
                _first_s,
            ),
        ]
    return [*made, Row("W9 sqlite, s from a new process to its first step", (w9,), _first_s)]


def _dbos() -> list[Row]:
    made = []
    for backend, runs in (("sqlite", 30), ("postgres", 300)):
        made += [
            than(ours("W1", backend), job("dbos", "W1", backend), 4),
            than(ours("W2", backend), job("dbos", "W2", backend, n=runs), 20),
        ]
    return made


# Jobs ----------------------------------------------------------------------------------------------------


def job(peer: str, workload: str, backend: str, variant: str = "default", n: int | None = None) -> Job:
    """Return a job of the peers' benchmark; without `n` it has the size of its workload."""
    size = {"n": n} if n else {}
    return {"dir": peer, "workload": workload, "backend": backend, "variant": variant, **size}


def ours(workload: str, backend: str, n: int | None = None) -> Job:
    """Return a job of `durable.py`."""
    return job(OURS, workload, backend, n=n)


def than(mine: Job, other: Job, at_least: float | None = None) -> Row:
    """Return the row of a ratio of two rates."""
    text = f"{mine['workload']} {mine['backend']}, times {other['dir']} {other['variant']}"
    return Row(text.removesuffix(" default"), (mine, other), times, at_least=at_least)


# Figures -------------------------------------------------------------------------------------------------


def median(results: Results, key: str = "per_second") -> float:
    """Return the median of a measurement over the repetitions."""
    return statistics.median(result[key] for result in results)


def times(mine: Results, other: Results) -> float:
    """Return the ratio of two rates."""
    return median(mine) / median(other)


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


def _first_s(mine: Results) -> float:
    return median(mine, "process_start_to_first_step_s")


def _next_step_s(mine: Results) -> float:
    return median(mine, "next_step_s")


def _more_mb(mine: Results) -> float:
    return median(mine, "more_mb")
