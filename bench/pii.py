"""How well and how fast personal data is masked, beside presidio's defaults.

    python bench/pii.py
    python -m venv ENV && ENV/bin/pip install -r bench/peers/presidio/requirements.txt
    python bench/pii.py --presidio ENV/bin/python

The sentences are those of `tests/personal_data/`, which knows none of the code that finds them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from flujo.domain.personal_data import ENTITIES, LOCALES, NAMES, Rules  # noqa: E402 - the tests are found first
from flujo.governance.personal_data.scrubber import Scrubber  # noqa: E402
from personal_data.corpus import sentences  # noqa: E402
from personal_data.hard_cases import TEXTS  # noqa: E402
from personal_data.marks import plain  # noqa: E402
from personal_data.measure import measure, total  # noqa: E402
from personal_data.names import HARD, LATER  # noqa: E402
from personal_data.names import sentences as sentences_with_names  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from personal_data.measure import Score

WITH_NAMES = Rules(entities=(*ENTITIES, *NAMES))
PROSE = "The team reads the report about the new service, and nobody in it has a number or an address. " * 10
"""About a kilobyte without personal data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--presidio", metavar="PYTHON", help="an interpreter that has presidio")
    presidio = parser.parse_args().presidio
    for name, texts in (("generated", list(sentences())), ("hard", list(TEXTS))):
        columns = {"flujo": _flujo(texts, Rules())} | (
            {"presidio": _presidio(texts, presidio)} if presidio else {}
        )
        print(f"\n{name}: {len(texts):,} texts\n")
        _table(columns, ENTITIES, "kind", ENTITIES)
        _table(columns, LOCALES, "language", ENTITIES)
    for name, texts in (
        ("generated, names", list(sentences_with_names())),
        ("hard, names", list(HARD)),
        ("written later, names", list(LATER)),
    ):
        columns = {"flujo": _flujo(texts, WITH_NAMES)} | (
            {"presidio": _presidio(texts, presidio)} if presidio else {}
        )
        print(f"\n{name}: {len(texts):,} texts\n")
        _table(columns, NAMES, "kind", NAMES)
    print("\nMB of text a second of the processor\n")
    with_names = [plain(text) for _, text in sentences_with_names()]
    print(f"| English sentences, with names | {_speed(with_names, WITH_NAMES):.3f} |")
    print(
        f"| prose, with names | {_speed([f'{number}. {PROSE}' for number in range(200)], WITH_NAMES):.3f} |"
    )
    plain_texts = [plain(text) for _, text in sentences()]
    for name, documents in {
        "sentences, three of four with personal data": plain_texts,
        "one document of these sentences": ["\n".join(plain_texts)],
        "one value in each kilobyte": [f"{PROSE}{text}" for text in plain_texts],
        "prose without any": [PROSE] * 3_000,
    }.items():
        print(f"| {name} | {_speed(documents, Rules()):.1f} |")


def _flujo(texts: Sequence[tuple[str, str]], rules: Rules) -> Mapping[tuple[str, str], Score]:
    scrub = Scrubber(rules)
    return measure(texts, lambda text, _: scrub.text(text))


def _presidio(texts: Sequence[tuple[str, str]], python: str) -> Mapping[tuple[str, str], Score]:
    sent = [plain(text) for _, text in texts]
    ran = subprocess.run(
        [python, str(ROOT / "bench/peers/presidio/mask.py")],
        input="".join(f"{json.dumps(text)}\n" for text in sent),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    *masked, seconds = [json.loads(line) for line in ran.stdout.splitlines()]
    print(f"presidio: {sum(map(len, sent)) / seconds / 1e6:.3f} MB a second")
    found = dict(zip(sent, masked, strict=True))
    return measure(texts, lambda text, _: str(found[text]))


def _table(
    columns: Mapping[str, Mapping[tuple[str, str], Score]],
    rows: Sequence[str],
    what: str,
    kinds: Sequence[str],
) -> None:
    print(f"| {what} | " + " | ".join(f"{name}: recall | precision" for name in columns) + " |")
    print("|---" * (2 * len(columns) + 1) + "|")
    for row in [*rows, "all"]:
        cells = [row]
        for scores in columns.values():
            counted = {place: score for place, score in scores.items() if place[0] in kinds}
            score = total(counted, **({what: row} if row != "all" else {}))
            cells += [f"{score.recall:.3f}", f"{score.precision:.3f}"]
        print(f"| {' | '.join(cells)} |")
    print()


def _speed(documents: Sequence[str], rules: Rules) -> float:
    scrub = Scrubber(rules)
    scrub.text(documents[0][:10_000])
    started = time.process_time()
    for text in documents:
        scrub.text(text)
    return sum(map(len, documents)) / (time.process_time() - started) / 1e6


if __name__ == "__main__":
    main()
