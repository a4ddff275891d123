"""Writes docs/reliability.md from a run of the proofs: `python docs/reliability.py EVIDENCE WORDS…`.

    FLUJO_EVIDENCE=evidence.jsonl make test
    python docs/reliability.py evidence.jsonl "make test at commit $(git rev-parse --short HEAD)"

EVIDENCE holds a line of JSON for each test that is marked with a guarantee; WORDS say how it was made. What stands
below the page's marker is written by hand, and kept.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reliability.md"
MARKER = "<!-- from here on by hand -->"

PROMISES = {
    "G1": "A step whose end was told is never executed again.",
    "G2": "`kill -9` at any moment loses no such step, and the run comes to the end of one that nobody killed.",
    "G3": "Under `enforce_idempotency` a call is issued at most once for each key; one whose end nobody saw is in doubt, and never guessed.",
    "G4": "Of several who go on with a run, or answer a question, exactly one wins.",
    "G5": "Who lost a run, frozen or replaced, cannot write to it any more.",
    "G7": "A damaged or missing row is found, and never gone on from.",
    "G8": "A step's result, context, usage and position become true together or not at all.",
    "G9": "A connection that is lost at COMMIT is resolved, not guessed.",
    "G10": "Cancelling is safe at every await: nothing is held, and the run can be resumed.",
    "G11": "`timeout_s` and deadlines are kept exactly, also across a crash.",
    "G12": "SIGTERM gives runs back: somebody else may go on at once.",
    "G13": "A database that is away fails no run: bounded retries, a typed error, a run that can be resumed.",
    "G14": "A full disk is a typed error, nothing is half written, and the run goes on when there is room.",
    "G15": "A small pool serves everybody, and no connection is held while a step works.",
    "G16": "A slow database loses no lease and writes nothing twice.",
    "G17": "The clocks of the machines that run Flujo decide nothing.",
    "G18": "A pause survives everything, each branch with its own question.",
    "G20": "Budgets hold across crashes, resumes and branches.",
    "G21": "A cache never answers another question.",
    "G22": "The same inputs merge to the same context, whoever finishes first.",
    "G23": "Migrations are made once, survive being killed, and old runs resume.",
    "G24": "A reference never points at nothing, and what it points at is checked.",
    "G26": "Memory, files, tasks and connections do not grow with the number of runs.",
    "G30": "The level of durability is stated, and a lower one is complained about.",
}
"""The promises, by the names that the tests' marks say."""


@dataclass
class Proof:
    """What one test has done for a guarantee."""

    cases: int = 0
    faults: int = 0
    seeds: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        """Count one case of the test."""
        self.cases += 1
        self.faults += line["faults"]
        self.seeds += line["seeds"]
        self.violations += line["violations"]
        if not line["passed"] and not line["violations"]:
            self.violations.append("the test failed")


def proofs(lines: Iterable[str]) -> dict[str, dict[str, Proof]]:
    """Return guarantee → test → what it has done."""
    found: dict[str, dict[str, Proof]] = {name: defaultdict(Proof) for name in PROMISES}
    for line in map(json.loads, lines):
        for guarantee in line["guarantees"]:
            found[guarantee][line["test"]].add(line)
    return found


def page(found: dict[str, dict[str, Proof]], made: str, by_hand: str) -> str:
    """Return the page."""
    parts = [
        "# What is promised, and what was done to break it\n",
        "Each promise is proved by tests that inject faults: processes are killed and frozen, databases restarted and "
        "filled, cables cut, clocks turned, and every order of events tried. `make test` takes a sample, "
        f"`make soak` everything. The figures below are of one run: {made}.\n",
        "| | promise | faults injected | seeds and orders | cases | violations |",
        "|---|---|---|---|---|---|",
    ]
    for name, tests in found.items():
        all_of_it = tests.values()
        violations = sum(len(proof.violations) for proof in all_of_it)
        counts = [sum(getattr(each, what) for each in all_of_it) for what in ("faults", "seeds", "cases")]
        cells = [
            f"[{name}](#{name.lower()})",
            PROMISES[name],
            *(f"{count:,}" if count else "-" for count in counts),
        ]
        parts.append(f"| {' | '.join(cells)} | {violations} |")
    for name, tests in found.items():
        parts.append(f"\n## {name}\n\n{PROMISES[name]}\n")
        parts += [_line(test, proof) for test, proof in sorted(tests.items())] or ["No test of it ran."]
    return "\n".join(parts) + f"\n\n{MARKER}\n{by_hand}"


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
    by_hand = PAGE.read_text("utf-8").partition(f"{MARKER}\n")[2] if PAGE.exists() else ""
    made = f"{' '.join(words) or 'settings not said'}, Python {sys.version.partition(' ')[0]}"
    PAGE.write_text(page(found, made, by_hand), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
