"""What a deployment on one Postgres needs: the model of `docs/scaling.md`, beside a simulation of it.

    python bench/sizing_model.py

The model has formulas. The simulation has runs that wait for their models, processes whose writers commit all
steps that have ended meanwhile, and a database that serves renewals, claims and commits one after another on
each of its cores. It needs no database, so it shows sizes that no test can run.
"""

import random
from collections import Counter
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import exp

from flujo.state.leases import LEASE_S, RENEW_S

CONNECTIONS = 11
"""Of a process, at most: those of the pool, and one that listens."""
ENTRIES_OF_A_PURGE = 10_000
"""Of one transaction of a purge."""


@dataclass(frozen=True)
class Deployment:
    """A load: runs that are executed at the same time, their processes, and their steps a second in all."""

    runs: int
    processes: int
    steps_s: float
    days: float = 30.0
    """How long runs are kept."""
    steps: int = 3
    """Of a run: how often a claim follows."""
    cores: int = 4
    """Of the server."""


@dataclass(frozen=True)
class Constants:
    """The measured constants, in seconds of the server: their commands are in `docs/scaling.md`."""

    renewal_s: float = 0.04
    """Of 1,000 leases."""
    claim_s: float = 0.0027
    """Of a claim that finds one run: one that finds several costs less for each."""
    owner_s: float = 4e-6
    """Of a claim as well, for each process that executes runs."""
    step_s: float = 62e-6
    commit_s: float = 0.005
    """How long a writer waits for the disk. It takes no core."""
    entry_bytes: float = 720.0


@dataclass(frozen=True)
class Load:
    """What a deployment needs of its server."""

    commits_s: float
    leases_s: float
    renewal_cores: float
    claim_cores: float
    step_cores: float

    @property
    def cores(self) -> float:
        """How many cores of the server are busy."""
        return self.renewal_cores + self.claim_cores + self.step_cores


def load(given: Deployment, known: Constants = Constants()) -> Load:
    """Return what the formulas say; a step's commit is shared by those that end meanwhile in its process."""
    in_process = given.steps_s / given.processes
    # A commit, then the wait for the next step, unless one has ended during the commit.
    cycle_s = known.commit_s + exp(-in_process * known.commit_s) / in_process
    claims_s = given.steps_s / given.steps
    return Load(
        commits_s=given.processes / cycle_s,
        leases_s=given.runs / RENEW_S,
        renewal_cores=given.runs / 1000 * known.renewal_s / RENEW_S,
        claim_cores=claims_s * (known.claim_s + given.processes * known.owner_s),
        step_cores=given.steps_s * known.step_s,
    )


def disk_bytes(given: Deployment, known: Constants = Constants()) -> float:
    """Return the size of the journal when purges delete as much as is written."""
    return entries_of_a_day(given) * given.days * known.entry_bytes


def entries_of_a_day(given: Deployment) -> float:
    """Return how many entries a purge deletes each day."""
    return given.steps_s * 86_400


def slowest_renewal_s(given: Deployment, known: Constants = Constants()) -> float:
    """Return how long the last lease waits when all processes renew at the same moment."""
    each_s = given.runs / given.processes / 1000 * known.renewal_s
    return each_s * -(-given.processes // given.cores)


@dataclass
class Simulated:
    """What a simulation has counted."""

    load: Load
    slowest_renewal_s: float
    """From the moment at which leases are to be renewed until they are."""
    steps_s: float
    """Fewer than those of the deployment when steps wait for the database."""


class Simulation:
    """Runs, writers and a server on a clock of its own.

    Args:
        given: the deployment.
        known: the constants.
        together: whether all processes renew at the same moment, as after a start of all of them.
        seed: decides how long each step takes.
    """

    def __init__(
        self, given: Deployment, known: Constants = Constants(), *, together: bool = False, seed: int = 1
    ) -> None:
        self._given, self._known = given, known
        self._chance = random.Random(seed)
        self._held = [given.runs // given.processes] * given.processes
        self._think_s = given.runs / given.steps_s
        self._free = [0.0] * given.cores
        """When each core of the server has nothing to do any more."""
        self._busy, self._counts = Counter[str](), Counter[str]()
        self._ended: list[int] = [0] * given.processes
        """The steps of each process that wait for a commit."""
        self._commits = [False] * given.processes
        self._slowest = self._until = 0.0
        phases = [0.0 if together else self._chance.uniform(0, RENEW_S) for _ in self._held]
        self._events: list[tuple[float, str, int]] = [
            *((at, "renew", process) for process, at in enumerate(phases)),
            *(
                (self._chance.expovariate(1 / self._think_s), "step", process)
                for process, held in enumerate(self._held)
                for _ in range(held)
            ),
        ]
        heapify(self._events)

    def run(self, seconds: float) -> Simulated:
        """Return what so many seconds come to."""
        self._until = seconds
        while self._events[0][0] < seconds:
            now, kind, process = heappop(self._events)
            getattr(self, f"_{kind}")(now, process)
        rate, busy = {name: count / seconds for name, count in self._counts.items()}, self._busy
        found = Load(
            commits_s=rate["commits"],
            leases_s=rate["leases"],
            renewal_cores=busy["renewal"] / seconds,
            claim_cores=busy["claim"] / seconds,
            step_cores=busy["step"] / seconds,
        )
        return Simulated(found, self._slowest, rate["steps"])

    def _served(self, now: float, work_s: float, what: str) -> float:
        """Return when the server has done a piece of work, on the core that is free first."""
        ends = max(now, heappop(self._free)) + work_s
        heappush(self._free, ends)
        self._busy[what] += max(0.0, min(ends, self._until) - ends + work_s)
        return ends

    def _renew(self, now: float, process: int) -> None:
        held = self._held[process]
        ends = self._served(now, held / 1000 * self._known.renewal_s, "renewal")
        self._slowest = max(self._slowest, ends - now)
        self._counts["leases"] += held
        heappush(self._events, (now + RENEW_S, "renew", process))

    def _step(self, now: float, process: int) -> None:
        self._ended[process] += 1
        if not self._commits[process]:
            self._commit(now, process)

    def _commit(self, now: float, process: int) -> None:
        """Commit all steps of a process that have ended, or rest when there are none."""
        taken, self._ended[process] = self._ended[process], 0
        self._commits[process] = taken > 0
        if not taken:
            return
        self._counts["commits"] += 1
        self._counts["steps"] += taken
        ends = self._served(now, taken * self._known.step_s, "step") + self._known.commit_s
        for _ in range(taken):
            if self._chance.random() < 1 / self._given.steps:  # its run has ended: another one is claimed
                heappush(self._events, (ends, "claim", process))
            else:
                self._begin(ends, process)
        heappush(self._events, (ends, "commit", process))

    def _claim(self, now: float, process: int) -> None:
        claim_s = self._known.claim_s + self._given.processes * self._known.owner_s
        self._begin(self._served(now, claim_s, "claim"), process)

    def _begin(self, now: float, process: int) -> None:
        heappush(self._events, (now + self._chance.expovariate(1 / self._think_s), "step", process))


SIZES = (
    (Deployment(1_000, 4, 100), 60.0),
    (Deployment(10_000, 40, 1_000), 60.0),
    (Deployment(100_000, 400, 10_000, cores=32), 20.0),
    (Deployment(100_000, 400, 10_000, cores=8), 20.0),
)


def main() -> None:
    """Print the model beside the simulation; renewals, claims and commits are in cores of the server."""
    print(f"{'runs':>8}{'processes':>10}{'cores':>6}{'':>10}", end="")
    heads = ("steps/s", "commits/s", "leases/s", "renewals", "claims", "commits", "all", "together", "loaded")
    print("".join(f"{head:>10}" for head in heads))
    for given, seconds in SIZES:
        found = Simulation(given).run(seconds)
        last = Simulation(given, together=True).run(RENEW_S / 10).slowest_renewal_s
        model = load(given)
        loaded = f"{found.slowest_renewal_s:.2f} s"
        for name, each, rate, renewed_s, more in (
            ("model", model, given.steps_s, slowest_renewal_s(given), ""),
            ("simulated", found.load, found.steps_s, last, loaded),
        ):
            print(f"{given.runs:>8,}{given.processes:>10,}{given.cores:>6}{name:>10}", end="")
            print("".join(f"{value:>10,.0f}" for value in (rate, each.commits_s, each.leases_s)), end="")
            shares = (each.renewal_cores, each.claim_cores, each.step_cores, each.cores)
            print(
                "".join(f"{share:>10.3f}" for share in shares), f"{renewed_s:>7.2f} s{more:>10}", flush=True
            )
    print(
        f"A lease lasts {LEASE_S:g} s. `together`: when the last one is renewed, if all are renewed at once;"
    )
    print("`loaded`: the longest time until a lease is renewed beside the other work.")


if __name__ == "__main__":
    main()
