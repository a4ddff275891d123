"""Writes docs/reliability.md from a run of the tests: `python docs/reliability.py EVIDENCE WORDS…`.

    FLUJO_EVIDENCE=evidence.jsonl make test
    python docs/reliability.py evidence.jsonl "make test at commit $(git rev-parse --short HEAD)"
    python docs/reliability.py --soak .soak

EVIDENCE contains one line of JSON for each test that is marked with a guarantee. WORDS describe the run. `--soak`
writes the section "Last soak" alone, from the folder of `make soak`. The text below the last marker is written by
hand, and is kept.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reliability.md"
SOAK_MARKER = "<!-- last soak -->"
MARKER = "<!-- from here on by hand -->"


@dataclass(frozen=True)
class Guarantee:
    """A promise, the kinds of faults that its tests inject, and where it ends."""

    promise: str
    faults: str
    limit: str = ""


GUARANTEES = {
    "G1": Guarantee(
        "A step that was reported as completed never runs again.",
        "`kill -9` before and after every statement, commit and outside call, also of the recovery; killed and frozen workers; "
        "deploys, also to a service that has another version of its blueprint; step code that raises any exception or swallows its "
        "cancellation; kills between the turns and tool calls of a conversation, in a streamed response, below a call that runs steps, "
        "around an approval, a wait and a call of an MCP server, and of its event loop while it commits; "
        "agents with random tools, and a real local model, killed; other items of a map, or another agent of a conversation, on resume",
        "A step whose result was not committed when its process died runs again, unless it has `enforce_idempotency` (G3).",
    ),
    "G2": Guarantee(
        "`kill -9` at any moment loses no completed step, and the resumed run ends like a run that was not killed.",
        "as for G1",
        "`durability: exit` gives this up for the steps since the last commit.",
    ),
    "G3": Guarantee(
        "Under `enforce_idempotency` a call is issued at most once per key; a call with an unknown result is in doubt, and "
        "Flujo never guesses.",
        "`kill -9` around the call; servers that act and then are silent, cut the connection, answer 5xx or 4xx, through `requests`, "
        "`urllib3`, `httpx`, `aiohttp`, `grpc`, clients of Redis and MySQL, and database drivers, also in random programs; retries; time "
        "limits; a database restored from a backup; agents that request their calls in other words when they are killed, judged by a ledger "
        "outside the process; a process that sleeps between the announcement and the call; several approvals of a call at once, "
        "an approval of other arguments, and crashes around it; an MCP server that dies in a call, alone or with its caller; "
        "a tool that writes in the commit of its entry, with a crash, a lost lease, a time limit and a COMMIT of its own; "
        "a Dask cluster whose network is cut, for a short and a long time",
        "A client library that repeats a request by itself does so under one key. A database restored from a backup knows of "
        "later calls only after `flujo doctor --after-restore`.",
    ),
    "G4": Guarantee(
        "If several processes resume a run or answer a question, exactly one wins.",
        "every order of the statements of two and three processes with crashes between them; real processes that race, "
        "also for 1,000 approvals; a repeated run id "
        "with another input or context; runners that threads, event loops and forked children share",
    ),
    "G5": Guarantee(
        "A process that has lost a run, because it was frozen or replaced, cannot write to it any more.",
        "frozen processes, stalled writes, every order of statements, a step that ignores its cancellation and ends later, "
        "a process that sleeps inside an attempt of an agent",
        "Effects outside the database are not undone: see G3.",
    ),
    "G6": Guarantee(
        "A run that kills its process again and again is parked, and the runs beside it are not blamed.",
        "a run that kills its worker, alone and beside others; claims of its neighbours in every order",
        "Only the newest owner of a run is recorded, so a run may be blamed once wrongly. While it is not known which of several "
        "runs kills its worker, they are recovered one by one.",
    ),
    "G7": Guarantee(
        "Corrupt or missing rows are detected; a run never resumes from them.",
        "flipped, truncated, swapped and missing values in every column; a damaged schema in hundreds of ways; deleted files",
        "A person who also recomputes the digests is not detected.",
    ),
    "G8": Guarantee(
        "A step's result, context, usage and position are committed together or not at all.",
        "`kill -9` before and after every statement and commit",
    ),
    "G9": Guarantee(
        "After a connection is lost at COMMIT, Flujo looks up the result; it does not guess.",
        "connections cut at every message, a server killed in COMMIT",
    ),
    "G10": Guarantee(
        "Cancelling is safe at every await: no resource stays held, and the run can be resumed.",
        "cancellation at every turn of the event loop, also where code only yields; a cancel from another process during an await, a "
        "thread, a map and a retry's wait; step code that raises `CancelledError` itself, any other exception, swallows its "
        "cancellation, or never ends; providers of state and caches that exit or are cancelled",
        "A thread cannot be ended: a sync callable that never returns keeps its thread until the process ends.",
    ),
    "G11": Guarantee(
        "`timeout_s` and deadlines are kept exactly, also across a crash.",
        "crashes at any time on a virtual clock, step code that ignores its cancellation, waits that outlive their process",
    ),
    "G12": Guarantee(
        "On SIGTERM a process releases its runs, and another process can resume them immediately.",
        "SIGTERM under load, to `flujo run`, a worker and a web service; clients that disconnect; step code that ignores its "
        "cancellation",
    ),
    "G13": Guarantee(
        "An unavailable database fails no run: retries are bounded, the error is typed, and the run can be resumed.",
        "a restarted server, cut connections, locked files, also while an event loop commits a lone step",
    ),
    "G14": Guarantee(
        "A full disk is a typed error; nothing is partly written, and the run continues when there is space.",
        "a file system without room",
    ),
    "G15": Guarantee(
        "A small connection pool serves all runs, and no connection is held while a step works.",
        "a pool of one connection, a pooler between",
        "A transactional tool holds one connection while it works.",
    ),
    "G16": Guarantee(
        "A slow database causes no lost lease and no duplicate write.",
        "stores that answer late, a blocked event loop, a process that sleeps between the reservation of a request and the request",
    ),
    "G17": Guarantee(
        "The clocks of the machines that run Flujo affect no decision.",
        "clocks that are wrong, and clocks that step by an hour and by days in both directions",
        "On Postgres its own clock decides, on SQLite the time since the host was started; the wall clock of a host decides about "
        "a SQLite file only after the host was started again. Deadlines of questions are times of day.",
    ),
    "G18": Guarantee(
        "A pause survives every failure, and each branch keeps its own question.",
        "crashes at any time; answers, deadlines and cancellations in every order; a verb for another kind of pause",
    ),
    "G20": Guarantee(
        "Budgets hold across crashes, resumes and branches.",
        "`kill -9` around every call; providers that fail after they have worked, cut their stream, report no usage, negative usage or "
        "10^30 tokens; clients that retry by themselves; runs that are killed or stopped in the same step every time; "
        "ten agents that share a budget, killed; attempts that ask a human, end the run or are stopped after requests",
        "A request whose usage is unknown is charged its worst case, and a killed process its time to the end of its lease at "
        "most, so a run may end early.",
    ),
    "G21": Guarantee(
        "The cache never returns an answer to a different question.",
        "every way in which a callable, an agent or its resources hold data, also data that changes during the call; another endpoint or package; "
        "changed modules, also those that a helper imports; mutations of every part of the key",
        "A step that holds data which cannot be compared is not cached.",
    ),
    "G22": Guarantee(
        "The same inputs merge to the same context, in whatever order branches finish.",
        "every order of branches, crashes between them",
    ),
    "G23": Guarantee(
        "Migrations are applied once and survive being killed, and runs of older versions can be resumed.",
        "`kill -9` at every statement, several processes at once, databases of older versions",
    ),
    "G24": Guarantee(
        "A reference always points to a stored value, and the value is verified.",
        "`kill -9` between value and row; purges during writes in every order of statements",
    ),
    "G26": Guarantee(
        "Memory, files, tasks and connections do not grow with the number of runs.",
        "thousands of runs in one process; event loops that end",
    ),
    "G30": Guarantee(
        "The level of durability is reported, with a warning if it is lower than full.",
        "databases that are set to forget",
    ),
}
"""The guarantees, by the names in the tests' marks."""


@dataclass
class Proof:
    """The recorded cases, faults, seeds and violations of one test."""

    cases: int = 0
    faults: int = 0
    seeds: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        """Add one case of the test."""
        self.cases += 1
        self.faults += line["faults"]
        self.seeds += line["seeds"]
        self.violations += line["violations"]
        if not line["passed"] and not line["violations"]:
            self.violations.append("the test failed")


def proofs(lines: Iterable[str]) -> dict[str, dict[str, Proof]]:
    """Return guarantee → test → its record."""
    found: dict[str, dict[str, Proof]] = {name: defaultdict(Proof) for name in GUARANTEES}
    for line in map(json.loads, lines):
        for guarantee in line["guarantees"]:
            found[guarantee][line["test"]].add(line)
    return found


def page(found: dict[str, dict[str, Proof]], made: str, by_hand: str, soak: str = "") -> str:
    """Return the page."""
    parts = [
        "# Guarantees and how they are tested\n",
        "Each guarantee is tested with injected faults: the tests kill and freeze processes, restart and fill databases, "
        "cut connections, change clocks, and try every order of events. `make test` runs a sample, `make soak` runs "
        f"everything, or a proportion of it ([last soak](#last-soak)). The figures below come from one run: {made}.\n",
        "| | guarantee | faults injected | seeds and orders | cases | violations |",
        "|---|---|---|---|---|---|",
    ]
    for name, tests in found.items():
        all_of_it = tests.values()
        cells = [f"[{name}](#{name.lower()})", GUARANTEES[name].promise, *_sums(all_of_it)]
        parts.append(f"| {' | '.join(cells)} |")
    for name, tests in found.items():
        guarantee = GUARANTEES[name]
        parts.append(f"\n## {name}\n\n{guarantee.promise}\n\nFaults: {guarantee.faults}.\n")
        parts += [f"Limit: {guarantee.limit}\n"] if guarantee.limit else []
        parts += [_line(test, proof) for test, proof in sorted(tests.items())] or ["None of its tests ran."]
    return "\n".join(parts) + f"\n\n{SOAK_MARKER}\n{soak}\n{MARKER}\n{by_hand}"


def parts_of(text: str) -> tuple[str, str, str]:
    """Return what the page has before the section of the soak, this section, and the text below it."""
    before, _, rest = text.partition(f"\n{SOAK_MARKER}\n")
    soak, _, by_hand = rest.partition(f"\n{MARKER}\n")
    return before, soak, by_hand


def _sums(proofs: Iterable[Proof]) -> list[str]:
    """Return the cells of a guarantee: its faults, seeds, cases and violations."""
    every = list(proofs)
    numbers = [sum(getattr(each, what) for each in every) for what in ("faults", "seeds", "cases")]
    violations = sum(len(each.violations) for each in every)
    return [*(f"{number:,}" if number else "-" for number in numbers), str(violations)]


def last_soak(folder: Path) -> str:
    """Return the section about the run of `make soak` whose record and evidence are in the folder."""
    record = json.loads((folder / "record.json").read_text("utf-8"))
    scale = record["scale"]
    how_much = "whole" if scale == 1 else f"with {scale * 100:g} % of the counts"
    rows = [
        "## Last soak\n",
        f"`make soak` ran last on {record['day']} at commit {record['commit']}, {how_much}; a count is not smaller "
        "than that of `make test`. CONTRIBUTING.md has the meaning of the variables.\n",
        "| part | result | minutes | tests |",
        "|---|---|---|---|",
        *(
            f"| {each['name']} | {each['result']} | {each['minutes']} | {each['tests']} |"
            for each in record["parts"]
        ),
        "\n| variable | value |",
        "|---|---|",
        *(f"| `{name}` | {value} |" for name, value in record["counts"].items()),
        "\n| | faults injected | seeds and orders | cases | violations |",
        "|---|---|---|---|---|",
    ]
    evidence = folder / "evidence.jsonl"
    found = proofs(evidence.read_text("utf-8").splitlines() if evidence.exists() else [])
    rows += [f"| {' | '.join([name, *_sums(tests.values())])} |" for name, tests in found.items() if tests]
    wrong = [
        f"{name}: {each}"
        for name, tests in found.items()
        for proof in tests.values()
        for each in proof.violations
    ]
    return "\n".join(rows) + "\n" + "".join(f"\n- violation of {each}" for each in wrong) + "\n" * bool(wrong)


def _line(test: str, proof: Proof) -> str:
    file, _, name = test.partition("::")
    did = [f"{proof.cases:,} cases"] if proof.cases > 1 else []
    did += [
        f"{count:,} {what}"
        for count, what in ((proof.faults, "faults"), (proof.seeds, "seeds or orders"))
        if count
    ]
    said = name.rpartition("::")[2].removeprefix("test_").replace("_", " ")
    wrong = "".join(f"\n  - violation: {each}" for each in proof.violations)
    return f"- [{said}](../{file})" + (f": {', '.join(did)}" if did else "") + wrong


def main(evidence: str, words: list[str]) -> None:
    """Write the page."""
    with Path(evidence).open(encoding="utf-8") as lines:
        found = proofs(lines)
    _, soak, by_hand = parts_of(PAGE.read_text("utf-8"))
    made = f"{' '.join(words) or 'settings unknown'}, Python {sys.version.partition(' ')[0]}"
    PAGE.write_text(page(found, made, by_hand, soak), "utf-8")


def write_soak(folder: str) -> None:
    """Replace the section "Last soak"."""
    before, _, by_hand = parts_of(PAGE.read_text("utf-8"))
    PAGE.write_text(f"{before}\n{SOAK_MARKER}\n{last_soak(Path(folder))}\n{MARKER}\n{by_hand}", "utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--soak":
        write_soak(sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2:])
