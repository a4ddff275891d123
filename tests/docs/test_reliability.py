"""Every guarantee of docs/reliability.md has a marked test, and the page matches its generator."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def writer() -> ModuleType:
    """Return docs/reliability.py as a module."""
    spec = importlib.util.spec_from_file_location("reliability", ROOT / "docs" / "reliability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marked() -> set[str]:
    """Return the guarantees named in the marks of tests."""
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    marks = [mark for text in texts for mark in re.findall(r"mark\.guarantee\(([^)]*)\)", text)]
    return {name for mark in marks for name in re.findall(r"G\d+", mark)}


RELIABILITY = writer()


@pytest.mark.parametrize("guarantee", RELIABILITY.GUARANTEES)
def test_each_guarantee_is_on_the_page_and_has_a_marked_test(guarantee: str) -> None:
    assert guarantee in marked()
    assert f"\n## {guarantee}\n\n{RELIABILITY.GUARANTEES[guarantee].promise}\n" in PAGE


def test_no_test_is_marked_with_an_unknown_guarantee() -> None:
    assert marked() <= set(RELIABILITY.GUARANTEES)


def test_the_page_shows_counts_and_violations_and_keeps_the_handwritten_part() -> None:
    did = {"guarantees": ["G1", "G2"], "test": "tests/a.py::test_it_holds", "faults": 3, "seeds": 0}
    lines = [
        json.dumps({**did, "passed": True, "violations": []}),
        json.dumps({**did, "passed": False, "violations": ["killed at 4: it happened twice"]}),
        json.dumps({**did, "passed": False, "violations": []}),
    ]
    page = RELIABILITY.page(RELIABILITY.proofs(lines), "made here", "by hand\n")
    assert "made here" in page
    assert "| [G1](#g1) | " in page
    assert " | 9 | - | 3 | 2 |" in page
    assert "- [it holds](../tests/a.py): 3 cases, 9 faults\n  - violation: killed at 4" in page
    assert "  - violation: the test failed" in page
    assert page.endswith("<!-- from here on by hand -->\nby hand\n")
