"""The drawing of a pipeline: every step once, inside the picture, with its state as a word and as a class."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from flujo.domain.steps import Step
from flujo.services.inspection import path_svg
from flujo.services.inspection.path_svg import draw_path
from flujo.services.inspection.path_taken import Passage, Passed
from support import World, around, call, everything, pipeline, remembered, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flujo.domain.pipeline import Pipeline

HOSTILE = "<script>alert(1)</script>"


def rectangles(node: ElementTree.Element, x: float = 0, y: float = 0) -> Iterator[tuple[str, list[float]]]:
    """Yield the class and the sides of each rectangle, in coordinates of the picture."""
    if moved := re.fullmatch(r"translate\((\S+) (\S+)\)", node.get("transform", "")):
        x, y = x + float(moved[1]), y + float(moved[2])
    if node.tag == "rect":
        left, top, width, height = (float(node.get(name, "")) for name in ("x", "y", "width", "height"))
        yield node.get("class", ""), [x + left, y + top, x + left + width, y + top + height]
    for inner in node:
        yield from rectangles(inner, x, y)


@pytest.mark.parametrize("make", [everything, together, remembered, around])
def test_every_step_is_drawn_once_beside_the_others(make: Callable[[World], Pipeline]) -> None:
    tree = make(World())
    drawn = draw_path(tree, {})
    assert drawn is not None
    picture = ElementTree.fromstring(drawn)
    found = list(rectangles(picture))
    for name, (left, top, right, bottom) in found:
        assert 0 <= left < right <= float(picture.get("width", "")), name
        assert 0 <= top < bottom <= float(picture.get("height", "")), name
    nodes = [sides for name, sides in found if not name.startswith("box ")]
    for number, one in enumerate(nodes):
        for other in nodes[:number]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    boxed = ("loop", "inside", "import", "states")
    assert len(nodes) == sum(step.shape not in boxed for _, step in tree.walk())


def test_a_state_is_a_mark_a_word_and_a_class() -> None:
    tree = pipeline(call("a", World().add("a")), call("b", World().add("b")))
    drawn = draw_path(tree, {path: Passage(Passed.FAILED, 3, 2, 1.5) for path, _ in list(tree.walk())[:1]})
    assert drawn is not None
    assert 'class="point failed"' in drawn
    assert "✗ a" in drawn
    assert "3 times, 2 failed, 1.5s" in drawn
    assert 'class="point not-reached"' in drawn
    assert 'role="img" aria-label="The path through test"' in drawn


def test_names_are_texts_and_a_pipeline_with_too_many_steps_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = pipeline(Step(HOSTILE, print), name=HOSTILE)
    drawn = draw_path(tree, {})
    assert drawn is not None
    assert "<script" not in drawn
    monkeypatch.setattr(path_svg, "MOST_STEPS", 0)
    assert draw_path(tree, {}) is None
