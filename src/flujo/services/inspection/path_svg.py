"""Draws a pipeline as SVG, with the path that a run has taken.

The tree gives the layout: steps below each other, branches beside each other, bodies in boxes. It is the same
for every run of the pipeline. Coordinates are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flujo.domain.paths import FAILURE, ROOT, StepPath, branch, child
from flujo.domain.pipeline import FALLBACK
from flujo.services.inspection import formatting
from flujo.services.inspection.path_taken import NOT_PASSED, Passed
from flujo.services.inspection.trace_html import Html, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.pipeline import BaseStep, Flow, Pipeline
    from flujo.services.inspection.path_taken import Passage

MOST_STEPS = 300
"""How many steps a drawing has at most; a larger one cannot be read."""

_WIDTH, _HEIGHT = 200, 46
"""Of a step."""
_DOWN, _ACROSS, _PAD, _TITLE, _LANE = 26, 28, 14, 22, 12
"""Between steps, between branches, inside a box, for its title, and between transitions."""
_CHARACTER = 7.2
"""The width of a character, about."""
_MARKS = {
    Passed.DONE: "✓",
    Passed.RUNNING: "▶",
    Passed.WAITING: "…",
    Passed.FAILED: "✗",
    Passed.SKIPPED: "-",
    Passed.NOT_REACHED: "",
}


def draw_path(pipeline: Pipeline, taken: Mapping[StepPath, Passage]) -> Html | None:
    """Return the drawing; None when the pipeline has too many steps for one.

    Args:
        pipeline: the tree.
        taken: what became of each of its steps.
    """
    if len(list(pipeline.walk())) > MOST_STEPS:
        return None
    drawing = _Drawing(taken)
    whole = drawing.body(pipeline, ROOT)
    for name, ending in pipeline.endings().items():
        title = "when the run fails" if name == FAILURE else name
        box = drawing.boxed(title, drawing.body(ending, branch(ROOT, name)), "")
        whole = _below([whole, box], joined=False)
    width, height = whole.width + 2 * _PAD, whole.height + 2 * _PAD
    return Html(
        f'<svg role="img" aria-label="The path through {text(pipeline.name)}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"{_moved(whole.parts, _PAD, _PAD)}</svg>"
    )


@dataclass(slots=True)
class _Block:
    """A part of the drawing, from its own top left corner; entered at the top and left at the bottom."""

    width: float
    height: float
    axis: float
    """Where it is entered and left, from the left."""
    parts: list[str] = field(default_factory=list)
    is_taken: bool = False
    is_left: bool = True
    """Whether a run continues below it."""


class _Drawing:
    """Walks the tree, and returns a block for each part of it."""

    def __init__(self, taken: Mapping[StepPath, Passage]) -> None:
        self._taken = taken

    def body(self, body: Pipeline, path: StepPath) -> _Block:
        blocks = [self._step(step, child(path, step.name)) for step in body.steps]
        return _below(blocks) if blocks else _Block(_ACROSS, 1, _ACROSS / 2)

    def boxed(self, title: str, inner: _Block, state: str, *, back: str = "") -> _Block:
        """Return a block in a box; `back` says when a run returns to its top."""
        title = _cut(title, 44)
        wide = max(inner.width + 2 * _PAD + (2 * _LANE if back else 0), len(title) * _CHARACTER + 2 * _PAD)
        top, height = _TITLE + 10, inner.height + _TITLE + 10 + _PAD
        left = (wide - inner.width) / 2
        axis = left + inner.axis
        parts = [
            _rect("box", state, 0, 0, wide, height),
            _text(_PAD, _TITLE - 6, title, "title"),
            _line(axis, _TITLE, axis, top, is_taken=inner.is_taken, arrow=True),
            _moved(inner.parts, left, top),
        ]
        if inner.is_left:
            parts.append(_line(axis, top + inner.height, axis, height, is_taken=inner.is_taken))
        if back:
            lane, low = wide - _LANE, top + inner.height + _PAD / 2
            parts.append(
                f'<path class="way back" d="M{axis:.1f} {low:.1f}H{lane:.1f}V{_TITLE + 4}H{axis:.1f}"/>'
            )
        return _Block(wide, height, axis, parts, is_taken=inner.is_taken, is_left=inner.is_left)

    def _step(self, step: BaseStep, path: StepPath) -> _Block:
        passage = self._taken.get(path, NOT_PASSED)
        title = f"{step.name}: {step.summary()}"
        match step.shape:
            case "choice" | "fork":
                return self._branches(step, path, passage)
            case "states":
                return self._states(step, path, passage)
            case "loop" | "inside" | "import":
                bodies = step.bodies().items()
                inner = _below([self.body(body, self._inside(step, path, name)) for name, body in bodies])
                back = step.decides() if step.shape == "loop" else ""
                inner.is_taken = passage.state.was_taken
                return self.boxed(title, inner, passage.state, back=back)
            case _:
                return self._beside(step, path, self._node(step, passage))

    def _inside(self, step: BaseStep, path: StepPath, body: str) -> StepPath:
        return branch(path, body) if step.names_bodies else path

    def _node(self, step: BaseStep, passage: Passage) -> _Block:
        facts = [
            f"{passage.times:,} times" if passage.times > 1 else "",
            f"{passage.failed:,} failed" if passage.failed and passage.times > 1 else "",
            formatting.seconds(passage.seconds) if passage.state.was_taken else str(passage.state),
        ]
        said = [step.name, step.summary(), str(passage.state)]
        parts = [
            "<g>",
            f"<title>{text(', '.join(said))}</title>",
            _rect(step.shape, passage.state, 0, 0, _WIDTH, _HEIGHT),
            _text(10, 18, f"{_MARKS[passage.state]} {_cut(step.name, 24)}".strip(), "name"),
            _text(10, 36, _cut(", ".join(filter(None, [*facts, step.kind])), 30), "quiet"),
            "</g>",
        ]
        ends = (step.ends_run or step.ends is not None) and step.when is None
        return _Block(_WIDTH, _HEIGHT, _WIDTH / 2, parts, passage.state.was_taken, is_left=not ends)

    def _beside(self, step: BaseStep, path: StepPath, node: _Block) -> _Block:
        """Return a step with what it does instead when it fails, and with its tools, on its right."""
        bodies = step.bodies()
        if not bodies:
            return node
        parts, top, wide = list(node.parts), 0.0, node.width
        for name, body in bodies.items():
            title = "when it fails" if name == FALLBACK else f"tool {name}"
            inner = self.body(body, self._inside(step, path, name))
            box = self.boxed(title, inner, Passed.DONE if inner.is_taken else Passed.NOT_REACHED)
            low = top + _HEIGHT / 2
            bend = "" if top == 0 else f"M{_WIDTH + _ACROSS / 2} {_HEIGHT / 2}V{low}"
            start = _WIDTH if top == 0 else _WIDTH + _ACROSS / 2
            way = f"{bend}M{start} {low}H{_WIDTH + _ACROSS}"
            parts += [f'<path class="way aside" d="{way}"/>', _moved(box.parts, _WIDTH + _ACROSS, top)]
            top, wide = top + box.height + _DOWN / 2, max(wide, _WIDTH + _ACROSS + box.width)
        height = max(node.height, top - _DOWN / 2)
        if height > node.height:
            parts.append(_line(node.axis, node.height, node.axis, height, is_taken=node.is_taken))
        return _Block(wide, height, node.axis, parts, node.is_taken, node.is_left)

    def _branches(self, step: BaseStep, path: StepPath, passage: Passage) -> _Block:
        head = self._node(step, passage)
        named = {name: self.body(body, branch(path, name)) for name, body in step.bodies().items()}
        if named.keys() == {"then"}:
            named["else"] = _Block(_ACROSS, 1, _ACROSS / 2)
        tall = max(block.height for block in named.values())
        wide = sum(_wide(name, block) for name, block in named.items()) + _ACROSS * (len(named) - 1)
        left, offset = max(0.0, (head.width - wide) / 2), max(0.0, (wide - head.width) / 2)
        axis, top, parts = offset + head.axis, head.height, [_moved(head.parts, offset, 0)]
        bend, begin = top + 10, top + 10 + _TITLE
        end = begin + tall + 12
        for name, block in named.items():
            taken, here = block.is_taken, left + (_wide(name, block) - block.width) / 2
            x = here + block.axis
            parts.append(_way(f"M{axis:.1f} {top}V{bend}H{x:.1f}V{begin}", is_taken=taken))
            parts.append(_text(x + 5, begin - 6, _cut(name, 24), "label"))
            parts.append(_moved(block.parts, here, begin))
            if block.is_left:
                way = f"M{x:.1f} {begin + block.height:.1f}V{end:.1f}H{axis:.1f}"
                parts.append(_way(way, is_taken=taken))
            left += _wide(name, block) + _ACROSS
        is_left = any(block.is_left for block in named.values())
        return _Block(max(wide, head.width), end, axis, parts, head.is_taken, is_left)

    def _states(self, step: BaseStep, path: StepPath, passage: Passage) -> _Block:
        """Return a machine: a box for each state, and its transitions as lanes on the right."""
        flow, boxes = step.flow(), {}
        for name, body in step.bodies().items():
            inner = self.body(body, branch(path, name))
            box = self.boxed(name, inner, Passed.DONE if inner.is_taken else Passed.NOT_REACHED)
            boxes[name] = _with_ways(box, flow, name)
        wide, top, tops, parts = max(box.width for box in boxes.values()), 0.0, {}, []
        for name, box in boxes.items():
            parts.append(_moved(box.parts, 0, top))
            tops[name] = top
            top += box.height + _DOWN
        lane = wide
        for tail, head in _arcs(flow):
            lane += _LANE
            low, high = tops[tail] + boxes[tail].height - 10, tops[head] + 12
            right = boxes[tail].width, boxes[head].width
            parts.append(_way(f"M{right[0]:.1f} {low:.1f}H{lane:.1f}V{high:.1f}H{right[1]:.1f}", arrow=True))
        inner = _Block(lane, top - _DOWN, next(iter(boxes.values())).axis, parts, passage.state.was_taken)
        return self.boxed(f"{step.name}: {step.summary()}", inner, passage.state)


# Blocks ---------------------------------------------------------------------------------------------------


def _below(blocks: Sequence[_Block], *, joined: bool = True) -> _Block:
    """Return blocks below each other, entered and left on one axis."""
    axis = max(block.axis for block in blocks)
    wide = axis + max(block.width - block.axis for block in blocks)
    top, parts = 0.0, []
    for number, block in enumerate(blocks):
        if number:
            before = blocks[number - 1]
            if joined and before.is_left:
                taken = before.is_taken and block.is_taken
                parts.append(_line(axis, top, axis, top + _DOWN, is_taken=taken, arrow=True))
            top += _DOWN
        parts.append(_moved(block.parts, axis - block.axis, top))
        top += block.height
    is_taken = any(block.is_taken for block in blocks)
    return _Block(wide, top, axis, parts, is_taken, blocks[-1].is_left)


def _with_ways(box: _Block, flow: Flow | None, state: str) -> _Block:
    """Return the box of a state with a line below it for each transition: where to, and when."""
    said = list(_said(flow, state))
    wide = max(box.width, *(len(line) * _CHARACTER + 2 * _PAD for line in said)) if said else box.width
    low = [_text(_PAD, box.height + 14 + 16 * number, line, "quiet") for number, line in enumerate(said)]
    height = box.height + 16 * len(said) + (6 if said else 0)
    return _Block(wide, height, box.axis, [*box.parts, *low], box.is_taken, box.is_left)


def _said(flow: Flow | None, state: str) -> Iterator[str]:
    if flow is not None:
        for to, when in flow.ways[state]:
            yield _cut(f"→ {to}" + ("" if when is None else f" when {when}"), 40)
        if state in flow.failures:
            yield _cut(f"→ {flow.failures[state]} when it fails", 40)


def _arcs(flow: Flow | None) -> list[tuple[str, str]]:
    """Return the transitions of a machine, each once."""
    if flow is None:
        return []
    found = [(state, to) for state, ways in flow.ways.items() for to, _ in ways]
    return list(dict.fromkeys([*found, *flow.failures.items()]))


def _wide(name: str, block: _Block) -> float:
    """Return the width of a branch with its name."""
    return max(block.width, 2 * len(_cut(name, 24)) * _CHARACTER)


# SVG ------------------------------------------------------------------------------------------------------


def _moved(parts: Sequence[str], x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">{"".join(parts)}</g>'


def _rect(shape: str, state: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{shape} {str(state).replace(" ", "-")}" x="{x}" y="{y}" '
        f'width="{width:.1f}" height="{height:.1f}" rx="6"/>'
    )


def _text(x: float, y: float, said: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text(said)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, *, is_taken: bool, arrow: bool = False) -> str:
    head = _arrow(to_x, to_y) if arrow else ""
    return _way(f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}", is_taken=is_taken) + head


def _way(path: str, *, is_taken: bool = False, arrow: bool = False) -> str:
    head = ""
    if arrow:  # such a way ends to the left
        x, y = float(path.rpartition("H")[2]), float(path.rpartition("V")[2].partition("H")[0])
        head = f'<path class="tip" d="M{x:.1f} {y:.1f}l7 -4v8z"/>'
    return f'<path class="way{" taken" if is_taken else ""}" d="{path}"/>{head}'


def _arrow(x: float, y: float) -> str:
    return f'<path class="tip" d="M{x:.1f} {y:.1f}l-4 -7h8z"/>'


def _cut(said: str, most: int) -> str:
    line = " ".join(said.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
