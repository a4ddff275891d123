"""A pipeline as a graph: nodes, edges and the boxes around them, before anybody chooses a format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flujo.domain.steps import (
    BaseStep,
    CacheStep,
    ConditionalStep,
    DynamicParallelRouterStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    StateMachineStep,
    Step,
)
from flujo.services.inspection.step_summary import answerer, gist, logic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.pipeline import Pipeline

Shape = Literal["end", "agent", "call", "choice", "human", "import", "fork", "state"]
"""How a node looks: `end` both begins and ends the graph, `fork` also joins."""


@dataclass(frozen=True, slots=True)
class Node:
    """A point that a run passes: a title, and under it what happens there."""

    id: str
    shape: Shape
    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one node to another; `label` says when it is taken."""

    tail: str
    head: str
    label: str = ""
    is_failure: bool = False


@dataclass(slots=True)
class Box:
    """What belongs together: the body of a composite, a state, an imported blueprint."""

    id: str
    title: str
    nodes: list[Node] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Graph:
    """The whole drawing; the outermost box holds everything else."""

    root: Box
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class _Loose:
    """An edge whose head is not known yet."""

    tail: str
    label: str = ""
    is_failure: bool = False


def graph_of(pipeline: Pipeline, *, unfold: bool = False) -> Graph:
    """Return the graph of a pipeline; `unfold` draws what imported blueprints do instead of one node each."""
    drawing = _Drawing(pipeline.name, unfold=unfold)
    start = drawing.node(drawing.root, "end", "start")
    loose = drawing.body(pipeline, drawing.root, [_Loose(start)])
    drawing.connect(loose, drawing.node(drawing.root, "end", "end"))
    return Graph(drawing.root, tuple(drawing.edges))


class _Drawing:
    """Walks the tree once; each part takes the loose edges before it and returns those after it."""

    def __init__(self, title: str, *, unfold: bool) -> None:
        self.root = Box("root", title)
        self.edges: list[Edge] = []
        self._unfold = unfold
        self._ids = 0
        self._last = ""

    def node(self, box: Box, shape: Shape, title: str, detail: str = "") -> str:
        made = Node(self._id("n"), shape, title, detail)
        box.nodes.append(made)
        return made.id

    def connect(self, loose: Sequence[_Loose], head: str) -> None:
        self.edges += [Edge(each.tail, head, each.label, each.is_failure) for each in loose]

    def body(self, body: Pipeline, box: Box, loose: list[_Loose]) -> list[_Loose]:
        for step in body.steps:
            loose = self._step(step, box, loose)
        return loose

    def _step(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        match step:
            case ConditionalStep():
                return self._conditional(step, box, loose)
            case LoopStep():
                return self._loop(step, box, loose)
            case StateMachineStep():
                return self._machine(step, box, loose)
            case MapStep():
                return self.body(step.body, self._inner(box, step), loose)
            case ParallelStep():
                return self._parallel(step, box, loose)
            case CacheStep():
                return self._step(step.step, self._inner(box, step), loose)
            case ImportStep() if self._unfold:
                return self.body(step.pipeline, self._inner(box, step), loose)
            case _:
                return self._leaf(step, box, loose)

    def _leaf(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        here = self.node(box, _shape(step), step.name, _detail(step))
        self.connect(loose, here)
        if isinstance(step, Step) and step.fallback is not None:
            return [
                _Loose(here),
                *self._step(step.fallback, box, [_Loose(here, "fails", is_failure=True)]),
            ]
        return [_Loose(here)]

    def _conditional(self, step: ConditionalStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        choice = self.node(box, "choice", step.name, _detail(step))
        self.connect(loose, choice)
        after = []
        for name, branch in step.bodies().items():
            after += self.body(branch, box, [_Loose(choice, name)])
        if step.form == "if" and "else" not in step.branches:
            after.append(_Loose(choice, "else"))
        return after

    def _loop(self, step: LoopStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        inner = self._inner(box, step)
        first = self.node(inner, "fork", "again")
        self.connect(loose, first)
        after = self.body(step.body, inner, [_Loose(first)])
        check = self.node(inner, "choice", "until", logic(step.until))
        self.connect(after, check)
        self.edges.append(Edge(check, first, "no"))
        return [_Loose(check, "yes")]

    def _machine(self, step: StateMachineStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        inner = self._inner(box, step)
        boxes = {name: self._box(inner, name) for name in step.states}
        heads = {name: self.node(boxes[name], "state", name) for name in step.states}
        self.connect(loose, heads[step.initial])
        finished = []
        for name, state in step.states.items():
            after = self.body(state.body, boxes[name], [_Loose(heads[name])])
            for transition in state.transitions:
                otherwise = "else" if len(state.transitions) > 1 else ""
                label = logic(transition.when) if transition.when is not None else otherwise
                self.connect([_Loose(each.tail, label) for each in after], heads[transition.to])
            if name in step.final:
                finished += after
        return finished

    def _parallel(self, step: ParallelStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        inner = self._inner(box, step)
        routed = isinstance(step, DynamicParallelRouterStep)
        fork = self.node(inner, "choice" if routed else "fork", _router(step) if routed else "fork")
        self.connect(loose, fork)
        after = []
        for name, branch in step.branches.items():
            after += self.body(branch, inner, [_Loose(fork, name)])
        join = self.node(inner, "fork", "join")
        self.connect(after, join)
        return [_Loose(join)]

    def _inner(self, box: Box, step: BaseStep) -> Box:
        return self._box(box, f"{step.name}: {_detail(step)}")

    def _box(self, outer: Box, title: str) -> Box:
        made = Box(self._id("b"), title)
        outer.boxes.append(made)
        return made

    def _id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"


def _router(step: ParallelStep) -> str:
    return answerer(step.router) if isinstance(step, DynamicParallelRouterStep) else ""


def _shape(step: BaseStep) -> Shape:
    match step:
        case HumanInTheLoopStep():
            return "human"
        case ImportStep():
            return "import"
        case Step(agent=None):
            return "call"
        case _:
            return "agent"


def _detail(step: BaseStep) -> str:
    said = gist(step)
    return said if step.when is None else f"{said}, when {logic(step.when)}"
