"""A pipeline as a graph: nodes, edges and the boxes around them, independent of the output format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flujo.domain.pipeline import FALLBACK
from flujo.domain.steps import EndStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flujo.domain.pipeline import BaseStep, Ends, Flow, Pipeline

Shape = Literal["end", "agent", "call", "choice", "human", "import", "fork", "state"]
"""How a node looks: `end` both begins and ends the graph, `fork` also joins."""


@dataclass(frozen=True, slots=True)
class Node:
    """A point that a run passes: a title, and under it what happens there."""

    id: str
    shape: Shape
    title: str
    detail: str = ""
    notes: tuple[str, ...] = ()
    """A line each: tools with their effects, limits."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one node to another; `label` says when it is taken."""

    tail: str
    head: str
    label: str = ""
    is_failure: bool = False


@dataclass(slots=True)
class Box:
    """A group of nodes: the body of a composite, a state, an imported blueprint."""

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


def graph_of(
    pipeline: Pipeline, *, unfold: bool = False, notes: Callable[[BaseStep], Iterable[str]] = lambda _: ()
) -> Graph:
    """Return the graph of a pipeline.

    Args:
        pipeline: the tree.
        unfold: whether to draw what imported blueprints do, instead of one node each.
        notes: returns further lines about a step without steps inside.
    """
    drawing = _Drawing(pipeline.name, unfold=unfold, notes=notes)
    loose = drawing.body(pipeline, drawing.root, [_Loose(drawing.start)], "blueprint")
    if loose:  # nothing comes to the end of a pipeline that never ends
        drawing.connect(loose, drawing.node(drawing.root, "end", "end"))
    drawing.endings(pipeline)
    return Graph(drawing.root, tuple(drawing.edges))


class _Drawing:
    """Walks the tree once; each part takes the loose edges before it and returns those after it."""

    def __init__(self, title: str, *, unfold: bool, notes: Callable[[BaseStep], Iterable[str]]) -> None:
        self.root = Box("root", title)
        self.edges: list[Edge] = []
        self._unfold = unfold
        self._notes = notes
        self._ids = 0
        self._last = ""
        self._ends: dict[Ends, list[_Loose]] = {}
        """The edges from early ends of the innermost blueprint and body that are being drawn."""
        self.start = self.node(self.root, "end", "start")

    def node(self, box: Box, shape: Shape, title: str, detail: str = "", *notes: str) -> str:
        made = Node(self._id("n"), shape, title, detail, notes)
        box.nodes.append(made)
        return made.id

    def connect(self, loose: Sequence[_Loose], head: str) -> None:
        self.edges += [Edge(each.tail, head, each.label, each.is_failure) for each in loose]

    def body(self, body: Pipeline, box: Box, loose: list[_Loose], what: Ends = "body") -> list[_Loose]:
        around = self._ends
        early: list[_Loose] = []
        self._ends = {**around, what: early, "body": early}
        for step in body.steps:
            loose = self._step(step, box, loose)
        self._ends = around
        return [*loose, *early]

    def endings(self, pipeline: Pipeline) -> None:
        """Draw the steps that are executed when the run fails, and at each end."""
        if pipeline.on_failure is not None:
            self._ending(pipeline.on_failure, "on_failure", "the run fails", "failed")
        if pipeline.finally_ is not None:
            self._ending(pipeline.finally_, "finally", "the run completes, fails or is cancelled", "ended")

    def _ending(self, steps: Pipeline, title: str, begins: str, ends: str) -> None:
        box = self._box(self.root, title)
        head = self.node(box, "end", begins)
        after = self.body(steps, box, [_Loose(head)])
        self.connect(after, self.node(box, "end", ends))

    def _step(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        match step.shape:
            case "choice":
                return self._choice(step, box, loose)
            case "loop":
                return self._loop(step, box, loose)
            case "states":
                return self._states(step, box, loose)
            case "fork":
                return self._fork(step, box, loose)
            case "inside":
                return self._inside(step, box, loose)
            case "import" if self._unfold:
                return self._inside(step, box, loose)
            case "point" | "human" | "import":
                return self._leaf(step, box, loose)

    def _leaf(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        here = self.node(box, _shape(step), step.name, _detail(step), *self._notes(step))
        self.connect(loose, here)
        if step.ends_run:
            self.edges.append(Edge(here, self.start, "new run"))
            return [] if step.when is None else [_Loose(here, "else")]
        if step.kind == EndStep.kind:
            if step.ends is not None:
                self._ends[step.ends].append(_Loose(here))
            return [] if step.when is None else [_Loose(here, "else")]
        for name, body in step.bodies().items():
            if step.is_tool(name):
                self.connect(self.body(body, box, [_Loose(here, "calls")]), here)
        spare = step.bodies().get(FALLBACK)
        fails = [] if spare is None else self.body(spare, box, [_Loose(here, "fails", is_failure=True)])
        return [_Loose(here), *fails]

    def _inside(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        inner = self._inner(box, step)
        what: Ends = "body" if step.imported is None else "blueprint"
        for body in step.bodies().values():
            loose = self.body(body, inner, loose, what)
        return loose

    def _choice(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        choice = self.node(box, "choice", step.name, _detail(step))
        self.connect(loose, choice)
        after = []
        for name, branch in step.bodies().items():
            after += self.body(branch, box, [_Loose(choice, name)])
        if step.bodies().keys() == {"then"}:
            after.append(_Loose(choice, "else"))
        return after

    def _loop(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        inner = self._inner(box, step)
        first = self.node(inner, "fork", "again")
        self.connect(loose, first)
        after = [_Loose(first)]
        for body in step.bodies().values():
            after = self.body(body, inner, after)
        check = self.node(inner, "choice", "until", step.decides())
        self.connect(after, check)
        self.edges.append(Edge(check, first, "no"))
        return [_Loose(check, "yes")]

    def _states(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        flow, bodies = step.flow(), step.bodies()
        if flow is None:
            return loose
        inner = self._inner(box, step)
        boxes = {name: self._box(inner, name) for name in bodies}
        heads = {name: self.node(boxes[name], "state", name) for name in bodies}
        self.connect(loose, heads[flow.first])
        finished = []
        for name, body in bodies.items():
            after = self.body(body, boxes[name], [_Loose(heads[name])])
            self._ways(flow, name, after, heads)
            if name in flow.last:
                finished += after
        return finished

    def _ways(self, flow: Flow, state: str, after: Sequence[_Loose], heads: Mapping[str, str]) -> None:
        otherwise = "else" if len(flow.ways[state]) > 1 else ""
        for to, when in flow.ways[state]:
            label = otherwise if when is None else str(when)
            self.connect([_Loose(each.tail, label) for each in after], heads[to])
        if state in flow.failures:
            self.edges.append(Edge(heads[state], heads[flow.failures[state]], "on error", is_failure=True))

    def _fork(self, step: BaseStep, box: Box, loose: list[_Loose]) -> list[_Loose]:
        inner = self._inner(box, step)
        chooser = step.decides()
        fork = self.node(inner, "choice" if chooser else "fork", chooser or "fork")
        self.connect(loose, fork)
        after = []
        for name, branch in step.bodies().items():
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


def _shape(step: BaseStep) -> Shape:
    if step.shape in ("human", "import"):
        return step.shape
    return "agent" if getattr(step, "call", None) is None else "call"


def _detail(step: BaseStep) -> str:
    summary = step.summary() + step.config.launch
    return summary if step.when is None else f"{summary}, when {step.when}"
