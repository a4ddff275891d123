"""The corpus of answers: `answers/*.json`, each text with its expected value or refusal.

`from` is the lowest level at which a text is read as `value`; every lower level refuses it. `refused` is a part of the
reason, and every level refuses the text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "answers"


@dataclass(frozen=True)
class CorpusAnswer:
    """One text, its schema, and what each level makes of it."""

    file: str
    schema: Any
    text: str
    value: Any = None
    lowest: int = 3
    """The lowest level that accepts it; 3 for none."""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.text!r}"


def corpus(name: str = "*") -> list[CorpusAnswer]:
    """Return the answers of one file, or of all."""
    found: list[CorpusAnswer] = []
    for file in sorted(FOLDER.glob(f"{name}.json")):
        data = json.loads(file.read_text("utf-8"))
        found += (
            CorpusAnswer(
                file.stem,
                data["schemas"][each["schema"]],
                each["text"],
                each.get("value"),
                each.get("from", 3),
                each.get("refused", ""),
            )
            for each in data["answers"]
        )
    return found
