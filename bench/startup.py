"""What starting up costs, as ratios to bare programs measured in the same run.

    python bench/startup.py [--rounds 15]

Prints a table and ends with 1 when a limit is not kept. Milliseconds belong to the machine and the
moment; the ratios are what counts, because in each round the programs take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent

BARE_TYPER = '''\
import typer

app = typer.Typer()


@app.command()
def first(name: str) -> None:
    """Do the first thing."""


@app.command()
def second(name: str) -> None:
    """Do the second thing."""


app()
'''

LIMITS = (
    ("flujo --version", "python -c pass", 3.0),
    ("import flujo", "python -c pass", 3.0),
    ("flujo --help", "python -c pass", 3.0),
    ("flujo validate, 200 steps", "bare typer --help", 5.0),
)


HEAD = """\
version: "1"
name: long
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
agents:
  writer: {model: "openai:gpt-5-mini", instructions: Write.}
steps:
"""

FOUR_STEPS = """\
  - {name: ask_N, agent: writer, input: "Say {{ input.text }} again"}
  - {name: call_N, call: "skills.greet:greet", with: {name: "{{ steps.ask_N.output }}"}}
  - kind: conditional
    name: choose_N
    if: size(input.text) > N
    then: [{name: inner_N, agent: writer, input: "{{ steps.call_N.output }}"}]
"""


FOUR_STEPS_IN_25_LINES = """\
  # N: what is asked, and what becomes of it
  - name: ask_N
    agent: writer
    input: "Say {{ input.text }} again, the Nth time"
    config:
      max_retries: 2

  - name: call_N
    call: skills.greet:greet
    with:
      name: "{{ steps.ask_N.output }}"
    when: size(steps.ask_N.output) > N

  - kind: conditional
    name: choose_N
    if: size(input.text) > N
    then:
      - name: inner_N
        agent: writer
        input: "{{ steps.ask_N.output }}"
    else:
      - name: other_N
        agent: writer
        input: "{{ input.text }}"

"""

AT_MOST_MS = {"import flujo": 60, "flujo --help": 100}
"""Milliseconds on an idle machine; printed, and no limit elsewhere."""

MAX_BEYOND_S = 0.4
"""What `validate` of 500 steps in 3,000 lines may take beyond that of 4 steps."""


def blueprint(steps: int, four: str = FOUR_STEPS) -> str:
    """Return a blueprint of `steps` steps: agents, callables, conditions, and a text in each."""
    return HEAD + "".join(four.replace("N", str(index)) for index in range(steps // 4))


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the programs to compare, by name."""
    bare = folder / "bare.py"
    bare.write_text(BARE_TYPER)
    flujo = str(BIN / "flujo")
    subprocess.run([flujo, "init", str(folder / "project")], check=True, capture_output=True)
    long = folder / "project/blueprints/long.yaml"
    long.write_text(blueprint(200))
    sizes = {}
    for steps in (4, 500, 1000):
        sizes[steps] = folder / f"project/blueprints/lines{steps}.yaml"
        sizes[steps].write_text(blueprint(steps, FOUR_STEPS_IN_25_LINES))
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "bare typer --help": [sys.executable, str(bare), "--help"],
        "import flujo": [sys.executable, "-c", "import flujo"],
        "flujo --version": [flujo, "--version"],
        "flujo --help": [flujo, "--help"],
        "flujo validate, 200 steps": [flujo, "validate", str(long)],
        **{f"flujo validate, {steps} steps": [flujo, "validate", str(path)] for steps, path in sizes.items()},
    }


def measure(programs: dict[str, list[str]], rounds: int, folder: Path) -> dict[str, float]:
    """Return the median seconds of each program; they take turns, so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, command in programs.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=folder / "project")
            if number:  # the first round only warms the caches
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> int:
    """Measure, print, and return 1 when a limit is not kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        medians = measure(commands(folder), rounds, folder)
    print(
        f"{sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {rounds} rounds\n"
    )
    print(f"{'program':28}{'median ms':>10}   {'compared with':22}{'ratio':>6}{'limit':>7}")
    kept = True
    for program, base, limit in LIMITS:
        ratio = medians[program] / medians[base]
        kept = kept and ratio <= limit
        verdict = "kept" if ratio <= limit else "NOT KEPT"
        milliseconds = medians[program] * 1000
        print(f"{program:28}{milliseconds:>10.1f}   {base:22}{ratio:>6.2f}{limit:>7.1f}  {verdict}")
    for base in sorted({base for _, base, _ in LIMITS}):
        print(f"{base:28}{medians[base] * 1000:>10.1f}")
    for program, most in AT_MOST_MS.items():
        taken = medians[program] * 1000
        print(f"{program}: {taken:.0f} ms, {taken / most:.2f} of the {most} ms for an idle machine")
    few, many, more = (medians[f"flujo validate, {steps} steps"] for steps in (4, 500, 1000))
    kept = kept and many - few <= MAX_BEYOND_S
    print(
        f"\nvalidate of 500 steps in 3,000 lines: {many - few:.2f} s beyond that of 4 steps, "
        f"{(many - few) / MAX_BEYOND_S:.2f} of the limit of {MAX_BEYOND_S} s; twice as many take "
        f"{(more - few) / (many - few):.1f} times as long"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
