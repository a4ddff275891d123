"""Charts as numbers: axes, lines, bars and intervals in the units of an SVG, which a template draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 480.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 470.0, 12.0, 196.0
"""The edges of the area inside the axes."""

_STEPS_UP = 4
"""About how many steps the vertical axis has."""
_LABELS = 5
"""How many periods are named below the horizontal axis at most."""
_ROW, _NAMES = 26.0, 150.0
"""The height of a row of a chart with names at its left side, and the room for the names."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A value."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """The values of one name, left to right."""

    name: str
    parts: tuple[str, ...]
    """For each stretch without a gap its points, as `polyline` has them."""
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A bar, or a part of one."""

    x: float
    y: float
    width: float
    height: float
    number: int
    """Of the name that it belongs to, from 1."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, and the same values as a table."""

    key: str
    """Unique in a page."""
    title: str
    unit: str
    text: str
    """What the chart shows, for who does not see it."""
    names: tuple[str, ...]
    head: tuple[str, ...]
    """The titles of the table's columns."""
    rows: tuple[tuple[str, ...], ...]
    height: float = HEIGHT
    across: tuple[Tick, ...] = ()
    up: tuple[Tick, ...] = ()
    lines: tuple[Line, ...] = ()
    boxes: tuple[Box, ...] = ()
    labels: tuple[Tick, ...] = ()
    """The names at the left side of rows."""
    means: tuple[Dot, ...] = ()
    """Values in front of boxes, which are their intervals."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a chart is about."""

    key: str
    title: str
    unit: str
    shown: Callable[[float], str]
    """Returns a value with its unit."""


def line_chart(scale: Scale, periods: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> Chart:
    """Return a chart with a line for each name.

    Args:
        scale: what the values are.
        periods: the periods, as people read them.
        values: by name, a value for each period; None where there is none.
    """
    most = max((each for row in values.values() for each in row if each is not None), default=0.0)
    up, top = _up(most, scale)
    xs = [_middle(number, len(periods)) for number in range(len(periods))]
    lines = []
    for name, row in values.items():
        points = [
            None if value is None else (x, _y(value, top), period, value)
            for x, period, value in zip(xs, periods, row, strict=True)
        ]
        dots = tuple(
            Dot(x, y, f"{name}, {period}: {scale.shown(value)}")
            for x, y, period, value in filter(None, points)
        )
        lines.append(Line(name, _stretches(points), dots))
    return replace(_over_time(scale, periods, values), up=up, lines=tuple(lines))


def stacked_chart(scale: Scale, periods: Sequence[str], values: Mapping[str, Sequence[float]]) -> Chart:
    """Return a chart with a bar for each period, whose parts are those of the names."""
    totals = [sum(each) for each in zip(*values.values(), strict=True)]
    up, top = _up(max(totals, default=0.0), scale)
    width = (RIGHT - LEFT) / max(1, len(periods)) * 0.8
    boxes = []
    for number, period in enumerate(periods):
        below = 0.0
        for place, (name, row) in enumerate(values.items(), 1):
            if row[number]:
                y = _y(below + row[number], top)
                text = f"{name}, {period}: {scale.shown(row[number])}"
                x = _middle(number, len(periods)) - width / 2
                boxes.append(Box(_near(x), y, _near(width), _near(_y(below, top) - y), place, text))
            below += row[number]
    return replace(_over_time(scale, periods, values), up=up, boxes=tuple(boxes))


def row_chart(
    scale: Scale,
    values: Sequence[tuple[str, float, float, float | None]],
    head: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
) -> Chart:
    """Return a chart with a row for each name, and a bar in it.

    Args:
        scale: what the values are.
        values: the names, each with the begin and the end of its bar, and a value in front of it.
        head: the titles of the table's columns.
        rows: its rows.
    """
    _, top = _up(max((high for _, _, high, _ in values), default=0.0), scale)
    inside = RIGHT - _NAMES

    def across(value: float) -> float:
        return _near(_NAMES + value / top * inside)

    boxes, labels, means = [], [], []
    for number, (name, low, high, mean) in enumerate(values):
        y = number * _ROW + 6
        text = f"{name}: {scale.shown(high if mean is None else mean)}"
        thick = _ROW - 12 if mean is None else 4.0
        begin, above = across(low), _near(y + (_ROW - 12 - thick) / 2)
        boxes.append(Box(begin, above, _near(across(high) - begin), thick, 1, text))
        labels.append(Tick(_near(y + _ROW / 2 - 2), name))
        if mean is not None:
            means.append(Dot(across(mean), _near(y + (_ROW - 12) / 2), text))
    height = len(values) * _ROW + 24
    marks = tuple(Tick(across(top * part / 4), scale.shown(top * part / 4)) for part in range(5))
    said = "; ".join(box.text for box in boxes) or "nothing"
    return Chart(
        key=scale.key,
        title=scale.title,
        unit=scale.unit,
        text=f"{scale.title}: {said}",
        names=(),
        head=head,
        rows=tuple(rows),
        height=height,
        across=marks,
        boxes=tuple(boxes),
        labels=tuple(labels),
        means=tuple(means),
    )


def _over_time(scale: Scale, periods: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> Chart:
    """Return a chart with the text and the table of values by period, in which nothing is drawn."""
    return Chart(
        key=scale.key,
        title=scale.title,
        unit=scale.unit,
        text=_text(scale, periods, values),
        names=tuple(values),
        head=("UTC", *values),
        rows=_rows(scale, periods, values),
        across=_across(periods),
    )


def _up(most: float, scale: Scale) -> tuple[tuple[Tick, ...], float]:
    """Return the marks of the vertical axis, at round numbers, and the highest of them."""
    rough = most / _STEPS_UP if most > 0 else 1 / _STEPS_UP
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    count = max(1, math.ceil(most / step - 1e-9))
    top = step * count
    return tuple(Tick(_y(step * each, top), scale.shown(step * each)) for each in range(count + 1)), top


def _across(periods: Sequence[str]) -> tuple[Tick, ...]:
    """Return the names of some periods, with the same distance between them."""
    every = -(-len(periods) // _LABELS) if periods else 1
    return tuple(
        Tick(_middle(number, len(periods)), periods[number].partition("-")[2])
        for number in range(0, len(periods), every)
    )


def _middle(number: int, count: int) -> float:
    return _near(LEFT + (number + 0.5) * (RIGHT - LEFT) / max(1, count))


def _y(value: float, top: float) -> float:
    return _near(BOTTOM - value / top * (BOTTOM - TOP))


def _near(value: float) -> float:
    return round(value, 1)


def _stretches(points: Sequence[tuple[float, float, str, float] | None]) -> tuple[str, ...]:
    found: list[list[str]] = [[]]
    for each in points:
        if each is None:
            found.append([])
        else:
            found[-1].append(f"{each[0]},{each[1]}")
    return tuple(" ".join(part) for part in found if len(part) > 1)


def _text(scale: Scale, periods: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> str:
    """Return what a chart shows in one sentence: the time, and the highest value of each name."""
    if not periods or not values:
        return f"{scale.title}: nothing"
    highest = (
        (name, max(each for each in row if each is not None))
        for name, row in values.items()
        if any(each is not None for each in row)
    )
    said = "; ".join(f"{name} at most {scale.shown(most)}" for name, most in highest)
    return f"{scale.title} from {periods[0]} to {periods[-1]} UTC: {said or 'nothing'}"


def _rows(
    scale: Scale, periods: Sequence[str], values: Mapping[str, Sequence[float | None]]
) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (period, *("" if row[number] is None else scale.shown(row[number] or 0.0) for row in values.values()))
        for number, period in enumerate(periods)
    )
