"""Dataclasses without the frozen guard, and their constructors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from flujo.domain.fast_dataclass import constructor, record


@record(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


@record(frozen=True, slots=True, kw_only=True)
class Named:
    name: str
    note: str | None = None


def test_a_constructor_creates_what_a_call_of_the_class_creates() -> None:
    point, named = constructor(Point), constructor(Named)
    assert point(1) == Point(1)
    assert point(1, y=3, tags=["a"]) == Point(1, 3, ["a"])
    assert named(name="a") == Named(name="a")
    assert named(note="b", name="a") == Named(name="a", note="b")
    assert type(point(1)) is Point


def test_each_instance_gets_a_default_of_its_own() -> None:
    point = constructor(Point)
    point(1).tags.append("mine")
    assert point(1).tags == []


@pytest.mark.parametrize(("args", "keywords"), [((), {"y": 1}), ((1,), {"z": 1}), ((1, 2, [], 4), {})])
def test_a_constructor_refuses_the_arguments_that_the_class_refuses(
    args: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        Point(*args, **keywords)
    with pytest.raises(TypeError):
        constructor(Point)(*args, **keywords)


def test_keyword_only_fields_stay_keyword_only() -> None:
    create: Any = constructor(Named)
    with pytest.raises(TypeError):
        create("a")


def test_a_class_with_a_post_init_has_no_constructor() -> None:
    @dataclass
    class Checked:
        x: int

        def __post_init__(self) -> None:
            self.x += 1

    with pytest.raises(TypeError, match="__post_init__"):
        constructor(Checked)
