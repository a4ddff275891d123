"""Runs the proofs of `make test` in large numbers, and records what ran and how it ended.

    python tests/soak/run.py [--scale 0.01] [--into FOLDER] [PART …]
    python docs/reliability.py --soak FOLDER

`--scale 1` runs for many hours, `--scale 0.01` for about twenty minutes on two cores. A variable of the environment
that `counts` names overrides its value. A part that fails does not stop the next one. FOLDER gets the record, the evidence and
the output of pytest; the second command writes them into docs/reliability.md. The exit code is 1 when a part has failed
or has not ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from flujo.domain.wording import plural
from mutants.generated import targets
from mutants.run import mutations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
RECORD, EVIDENCE = "record.json", "evidence.jsonl"
PYTEST = ("-m", "pytest", "-n", "4", "--dist", "worksteal", "--timeout", "14400", "--durations", "10")
DATABASE_TESTS = (
    "tests/durability",
    "tests/state/sql/test_flips.py",
    "tests/state/sql/test_damaged_schema.py",
)
WITH_COUNTS = ("faults", "others")
"""The parts whose tests take the counts; a test that must detect a mutation does so with those of `make test`."""
SWITCHES = {
    "FLUJO_CRASH_TWICE": ("1", 1.0),
    "FLUJO_INTERLEAVE": ("all", 0.1),
    "FLUJO_STORES": ("all", 0.0),
    "FLUJO_CLUSTERS": ("all", 0.0),
}
"""Variables that take one value, and the least scale at which a run takes it."""
SEED = 0
"""Chooses the mutations of a scaled run."""


def counts(scale: float) -> dict[str, str]:
    """Return the variables of a run: proportions of the whole counts, and not fewer than `make test` takes."""
    wholes = {
        "FLUJO_SIM_SEEDS": (200_000, 80),
        "FLUJO_PROGRAMS": (2000, 8),
        "FLUJO_KILLS": (200, 2),
        "FLUJO_AGENT_KILLS": (1000, 8),
        "FLUJO_APPROVALS": (1000, 16),
        "FLUJO_QUEUE_RUNS": (2000, 40),
        "FLUJO_LOCAL_KILLS": (100, 1),
        "FLUJO_TURNS": (1000, 50),
        "FLUJO_FLIPS": (100, 1),
        "FLUJO_RUNS": (10_000, 400),
        "FLUJO_SCALE": (1_000_000, 3000),
        "FLUJO_DAYS": (2000, 6),
        "FLUJO_FUZZ": (100, 1),
        "FLUJO_EXAMPLES": (1000, 25),
        "FLUJO_REFERENCE_MB": (500, 20),
    }
    found = {name: str(max(least, round(whole * scale))) for name, (whole, least) in wholes.items()}
    stride = round(1 / scale)
    found["FLUJO_CRASH_EVERY"] = str(min(stride, 11))
    found["FLUJO_CORPUS_STRIDE"] = str(min(stride, 5))
    found |= {name: value for name, (value, least) in SWITCHES.items() if scale >= least}
    return found | {name: os.environ[name] for name in (*found, *SWITCHES) if name in os.environ}


def parts(scale: float, folder: Path) -> dict[str, list[str]]:
    """Return the command of each part."""

    def chosen(names: Sequence[str], least: int) -> list[str]:
        return random.Random(SEED).sample(names, min(len(names), max(least, round(len(names) * scale))))

    guarantees = chosen(sorted({each.guarantee for each in targets()}), 5)
    each = os.environ.get("FLUJO_MUTANTS", str(max(1, round(5 * scale))))
    ignored = [word for path in DATABASE_TESTS for word in ("--ignore", path)]
    return {
        "faults": [*PYTEST, f"--junit-xml={folder / 'faults.xml'}", *DATABASE_TESTS],
        "others": [*PYTEST, f"--junit-xml={folder / 'others.xml'}", *ignored],
        "mutations": ["tests/mutants/run.py", *chosen([mutation.name for mutation in mutations()], 5)],
        "generated": ["tests/mutants/generated.py", "--each", each, *guarantees],
    }


@dataclass
class Part:
    """A part of the run and its result."""

    name: str
    minutes: float = 0.0
    result: str = "did not run"
    tests: str = ""

    @property
    def is_passed(self) -> bool:
        """Whether all of it ran and nothing failed."""
        return self.result == "passed"


@dataclass
class Record:
    """What ran: the page shows it."""

    scale: float
    commit: str
    day: str
    counts: Mapping[str, str]
    parts: list[Part] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write the record; after each part, so that an interrupted run has one."""
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")


def run(record: Record, commands: Mapping[str, Sequence[str]], folder: Path) -> bool:
    """Run each part, also after one that fails; return whether all of them passed."""
    record.parts = [Part(name) for name in commands]
    record.write(folder)
    try:
        for number, part in enumerate(record.parts, 1):
            _say(f"part {number} of {len(record.parts)}: {part.name}")
            _run(part, commands[part.name], record.counts, folder)
            _say(f"{part.name}: {part.result} after {part.minutes:.1f} minutes")
            record.write(folder)
    except KeyboardInterrupt:
        part.result = "interrupted"
    record.write(folder)
    _say(
        "",
        *(f"{each.name:10} {each.result:14} {each.minutes:6.1f} min  {each.tests}" for each in record.parts),
    )
    return all(part.is_passed for part in record.parts)


def _run(part: Part, command: Sequence[str], counts: Mapping[str, str], folder: Path) -> None:
    environment = {**os.environ, "FLUJO_EVIDENCE": str(folder / EVIDENCE)}
    if part.name in WITH_COUNTS:
        environment |= counts
    began = time.monotonic()
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # Ctrl-C reaches it too; pytest then reports what it has run
            raise
        finally:
            part.minutes = round((time.monotonic() - began) / 60, 1)
            part.tests = number_of_tests(folder / f"{part.name}.xml")
    part.result = "failed" if code else "passed"


def number_of_tests(report: Path) -> str:
    """Return the numbers of tests in pytest's report; nothing when the part has none."""
    if not report.exists():
        return ""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    nouns = {
        "tests": ("test",),
        "failures": ("failure",),
        "errors": ("error",),
        "skipped": ("skipped", "skipped"),
    }
    return ", ".join(
        plural(number, *noun) for name, noun in nouns.items() if (number := int(suite.get(name, "0")))
    )


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the parts; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--scale", type=float, default=1.0, help="the proportion of the counts, such as 0.01")
    parser.add_argument("--into", type=Path, default=ROOT / ".soak")
    given = parser.parse_args(arguments)
    if not 0 < given.scale <= 1:
        parser.error("--scale is greater than 0 and at most 1")
    folder: Path = given.into.absolute()
    commands = parts(given.scale, folder)
    if unknown := set(given.parts) - set(commands):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(commands)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (EVIDENCE, "faults.xml", "others.xml"):
        (folder / name).unlink(missing_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    record = Record(
        given.scale, commit.stdout.strip() or "unknown", time.strftime("%Y-%m-%d"), counts(given.scale)
    )
    _say(*(f"{name}={value}" for name, value in record.counts.items()))
    chosen = {name: commands[name] for name in given.parts or commands}
    return 0 if run(record, chosen, folder) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
