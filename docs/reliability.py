"""Writes docs/reliability.md from a run of the tests: `python docs/reliability.py EVIDENCE WORDS…`.

    FLUJO_EVIDENCE=evidence.jsonl make test
    python docs/reliability.py evidence.jsonl "make test at commit $(git rev-parse --short HEAD)"

EVIDENCE contains one line of JSON for each test that is marked with a guarantee. WORDS describe the run. The text
below the page's marker is written by hand, and is kept.
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

GUARANTEES = {
    "G1": "A step that was reported as completed never runs again.",
    "G2": "`kill -9` at any moment loses no completed step, and the resumed run ends like a run that was not killed.",
    "G3": "Under `enforce_idempotency` a call is issued at most once per key; a call with an unknown result is in doubt, and Flujo never guesses.",
    "G4": "If several processes resume a run or answer a question, exactly one wins.",
    "G5": "A process that has lost a run, because it was frozen or replaced, cannot write to it any more.",
    "G7": "Corrupt or missing rows are detected; a run never resumes from them.",
    "G8": "A step's result, context, usage and position are committed together or not at all.",
    "G9": "After a connection is lost at COMMIT, Flujo looks up the result; it does not guess.",
    "G10": "Cancelling is safe at every await: no resource stays held, and the run can be resumed.",
    "G11": "`timeout_s` and deadlines are kept exactly, also across a crash.",
    "G12": "On SIGTERM a process releases its runs, and another process can resume them immediately.",
    "G13": "An unavailable database fails no run: retries are bounded, the error is typed, and the run can be resumed.",
    "G14": "A full disk is a typed error; nothing is partly written, and the run continues when there is space.",
    "G15": "A small connection pool serves all runs, and no connection is held while a step works.",
    "G16": "A slow database causes no lost lease and no duplicate write.",
    "G17": "The clocks of the machines that run Flujo affect no decision.",
    "G18": "A pause survives every failure, and each branch keeps its own question.",
    "G20": "Budgets hold across crashes, resumes and branches.",
    "G21": "The cache never returns an answer to a different question.",
    "G22": "The same inputs merge to the same context, in whatever order branches finish.",
    "G23": "Migrations are applied once and survive being killed, and runs of older versions can be resumed.",
    "G24": "A reference always points to a stored value, and the value is verified.",
    "G26": "Memory, files, tasks and connections do not grow with the number of runs.",
    "G30": "The level of durability is reported, with a warning if it is lower than full.",
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


def page(found: dict[str, dict[str, Proof]], made: str, by_hand: str) -> str:
    """Return the page."""
    parts = [
        "# Guarantees and how they are tested\n",
        "Each guarantee is tested with injected faults: the tests kill and freeze processes, restart and fill databases, "
        "cut connections, change clocks, and try every order of events. `make test` runs a sample, `make soak` runs "
        f"everything. The figures below come from one run: {made}.\n",
        "| | guarantee | faults injected | seeds and orders | cases | violations |",
        "|---|---|---|---|---|---|",
    ]
    for name, tests in found.items():
        all_of_it = tests.values()
        violations = sum(len(proof.violations) for proof in all_of_it)
        counts = [sum(getattr(each, what) for each in all_of_it) for what in ("faults", "seeds", "cases")]
        cells = [
            f"[{name}](#{name.lower()})",
            GUARANTEES[name],
            *(f"{count:,}" if count else "-" for count in counts),
        ]
        parts.append(f"| {' | '.join(cells)} | {violations} |")
    for name, tests in found.items():
        parts.append(f"\n## {name}\n\n{GUARANTEES[name]}\n")
        parts += [_line(test, proof) for test, proof in sorted(tests.items())] or ["None of its tests ran."]
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
    made = f"{' '.join(words) or 'settings unknown'}, Python {sys.version.partition(' ')[0]}"
    PAGE.write_text(page(found, made, by_hand), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
