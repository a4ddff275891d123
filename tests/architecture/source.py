"""The modules of `src/flujo`, parsed, for tests about their shape."""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "flujo"
TEMPLATES = SRC / "services" / "admin" / "templates"


@cache
def modules() -> dict[str, ast.Module]:
    """Return each module's tree by its path below `src/flujo`, without the files of `flujo init`."""
    trees = {
        path.relative_to(SRC).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(SRC.rglob("*.py"))
        if not path.is_relative_to(TEMPLATES)
    }
    gc.freeze()  # the trees are a million objects, which later collections of this process need not look at
    return trees
