"""How often the gate of `flujo evals run --against` is wrong, and which differences it finds.

Each trial draws the scores of two versions, pair by pair, and calls the gate as the command does. Scores are
0 or 1. A version "with noise" answers some cases differently each time, as models do. Prints Markdown.
"""

from __future__ import annotations

import random
from collections import Counter

from flujo.domain.gate import MARGIN, Verdict, decide

TRIALS = 500
SEED = 18


def trials(*, cases: int, old: float, new: float, noise: float) -> tuple[Counter[Verdict], float]:
    """Return the verdicts of all trials, and the mean number of pairs until the gate stopped.

    Args:
        cases: how many cases there are.
        old: the part of the cases that the old version passes.
        new: the same of the new version.
        noise: the part of the cases whose two answers are independent of each other.
    """
    rng = random.Random(SEED)
    found: Counter[Verdict] = Counter()
    pairs = 0
    for _ in range(TRIALS):
        differences = []
        for _ in range(cases):
            difficulty = rng.random()
            again = rng.random() if rng.random() < noise else difficulty
            differences.append(float(again < new) - float(difficulty < old))
        judged = decide(differences, MARGIN)
        found[judged.verdict] += 1
        pairs += judged.pairs
    return found, pairs / TRIALS


def row(label: str, found: Counter[Verdict], pairs: float) -> str:
    parts = (f"{found[each] / TRIALS:.1%}" for each in Verdict)
    return f"| {label} | {' | '.join(parts)} | {pairs:.0f} |"


def table(head: str, rows: list[str]) -> None:
    print(f"| {head} | {' | '.join(Verdict)} | pairs used |")
    print("|---|---|---|---|---|")
    print("\n".join(rows) + "\n")


def main() -> None:
    print(f"## A version against itself: {TRIALS} trials each, margin {MARGIN:g}\n")
    table(
        "cases, answers that change",
        [
            row(f"{cases}, {noise:.0%}", *trials(cases=cases, old=0.8, new=0.8, noise=noise))
            for cases in (50, 200)
            for noise in (0.0, 0.1, 0.3, 1.0)
        ],
    )
    print(f"## A version that passes other cases: {TRIALS} trials each, 10% of the answers change\n")
    table(
        "cases, passed before → now",
        [
            row(f"{cases}, 80% → {new:.0%}", *trials(cases=cases, old=0.8, new=new, noise=0.1))
            for cases in (50, 100, 200)
            for new in (0.9, 0.75, 0.7, 0.6, 0.5)
        ],
    )


if __name__ == "__main__":
    main()
