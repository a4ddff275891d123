"""A kind of step has its places: the tree, the engine, the reference, a blueprint that uses it.

This is the checklist of CONTRIBUTING.md as a test: it names the missing places of a new kind.
"""

import inspect
import re
from pathlib import Path

import pytest

from flujo.domain import steps

ROOT = Path(__file__).parents[2]
KINDS = sorted(
    thing.kind
    for thing in vars(steps).values()
    if inspect.isclass(thing) and issubclass(thing, steps.BaseStep) and hasattr(thing, "kind")
)
BUILT = sorted(
    path.stem.rstrip("_")  # `import_.py`: the kind is a keyword of Python
    for path in (ROOT / "src/flujo/engine/steps").glob("*.py")
    if path.stem != "__init__"
)
TEXTS = [path.read_text("utf-8") for path in (ROOT / "blueprints").glob("*.yaml")]


def test_every_kind_that_the_engine_runs_is_a_class_of_the_tree() -> None:
    assert set(BUILT) <= set(KINDS)


@pytest.mark.parametrize("kind", BUILT)
def test_a_kind_that_runs_has_its_page(kind: str) -> None:
    page = ROOT / "docs/reference/steps" / f"{kind}.md"
    assert page.exists()
    assert page.read_text("utf-8").startswith(f"# `{kind}`\n")


@pytest.mark.parametrize("kind", BUILT)
def test_a_kind_that_runs_is_shown_in_a_blueprint(kind: str) -> None:
    shown = any(re.search(rf"\bkind: {kind}\b", text) for text in TEXTS)
    assert shown or kind == "step"  # the default kind is not written


def test_every_page_describes_a_kind_that_runs() -> None:
    pages = {page.stem for page in (ROOT / "docs/reference/steps").glob("*.md")}
    assert pages == set(BUILT)
