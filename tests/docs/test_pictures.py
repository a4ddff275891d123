"""The pictures of the documentation show what Flujo prints now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import warm

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"


def test_the_pictures_are_up_to_date_and_load_nothing(tmp_path: Path) -> None:
    done = warm.run(
        [sys.executable, "docs/pictures.py", str(tmp_path)],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("FLUJO_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text("utf-8") for path in PICTURES.glob("*.svg")}
    assert made == kept, "`make docs` draws the pictures again"
    assert not [
        name for name, text in kept.items() if "url(" in text.replace("url(#", "") or "@import" in text
    ]
