"""A graph as text: Mermaid and DOT, and as SVG where Graphviz is installed."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from typing import TYPE_CHECKING

from flujo.exceptions import SettingsError
from flujo.services.inspection.graph import graph_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.services.inspection.graph import Box, Edge, Graph, Node, Shape

_WIDTH = 40
_LIMIT = 160
"""How much of a long message a drawing shows, in characters."""

_MERMAID: dict[Shape, tuple[str, str]] = {
    "end": ("([", "])"),
    "agent": ("(", ")"),
    "call": ("[", "]"),
    "choice": ("{", "}"),
    "human": ("[/", "/]"),
    "import": ("[[", "]]"),
    "fork": ("((", "))"),
    "state": (">", "]"),
}
_DOT: dict[Shape, str] = {
    "end": 'shape=ellipse, style=filled, fillcolor="#eeeeee"',
    "agent": "shape=box, style=rounded",
    "call": "shape=box",
    "choice": "shape=diamond",
    "human": 'shape=parallelogram, style=filled, fillcolor="#fff2cc"',
    "import": "shape=component",
    "fork": "shape=circle",
    "state": 'shape=cds, style=filled, fillcolor="#e8f0fe"',
}


def draw(pipeline: Pipeline, form: str, *, unfold: bool, notes: Callable[[BaseStep], Iterable[str]]) -> str:
    """Return a pipeline's graph in a format: `mermaid`, `dot` or `svg`; see `graph_of`."""
    return {"mermaid": mermaid, "dot": dot, "svg": svg}[form](graph_of(pipeline, unfold=unfold, notes=notes))


def mermaid(graph: Graph) -> str:
    """Return the graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
    return (
        "\n".join(["flowchart TD", *_mermaid_box(graph.root, "  "), *map(_mermaid_edge, graph.edges)]) + "\n"
    )


def dot(graph: Graph) -> str:
    """Return the graph in DOT (https://graphviz.org/doc/info/lang.html)."""
    lines = [
        f"digraph {_dot_text(graph.root.title)} {{",
        '  graph [fontname="sans-serif", compound=true];',
        '  node [fontname="sans-serif", fontsize=11];',
        '  edge [fontname="sans-serif", fontsize=10];',
        *_dot_box(graph.root, "  "),
        *map(_dot_edge, graph.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"


def svg(graph: Graph) -> str:
    """Return the graph as SVG, drawn by Graphviz.

    Raises:
        SettingsError: Graphviz is not installed, or could not draw it.
    """
    program = shutil.which("dot")
    if program is None:
        raise SettingsError(
            "format svg needs Graphviz, but its program `dot` is not installed",
            hint="install the package `graphviz`, or use `--format mermaid`, which GitHub renders",
        )
    drawn = subprocess.run(  # noqa: S603 - the program found above, its input on stdin
        [program, "-Tsvg"], input=dot(graph), capture_output=True, text=True, check=False
    )
    if drawn.returncode:
        raise SettingsError(f"Graphviz failed: {drawn.stderr.strip()}")
    return drawn.stdout


def _mermaid_box(box: Box, indent: str) -> Iterator[str]:
    for node in box.nodes:
        begin, end = _MERMAID[node.shape]
        yield f'{indent}{node.id}{begin}"{_mermaid_text(_label(node))}"{end}'
    for inner in box.boxes:
        yield f'{indent}subgraph {inner.id}["{_mermaid_text(_short(inner.title))}"]'
        yield from _mermaid_box(inner, indent + "  ")
        yield f"{indent}end"


def _mermaid_edge(edge: Edge) -> str:
    arrow = "-.->" if edge.is_failure else "-->"
    label = f'|"{_mermaid_text(_short(edge.label))}"|' if edge.label else ""
    return f"  {edge.tail} {arrow}{label} {edge.head}"


def _mermaid_text(text: str) -> str:
    """Return a text for a quoted label: Mermaid knows characters by `#code;`, and no backslash."""
    safe = (char if char.isalnum() or char in " ,.:_()-\n" else f"#{ord(char)};" for char in text)
    return "".join(safe).replace("\n", "<br/>")


def _dot_box(box: Box, indent: str) -> Iterator[str]:
    for node in box.nodes:
        yield f"{indent}{node.id} [label={_dot_text(_label(node))}, {_DOT[node.shape]}];"
    for inner in box.boxes:
        yield f"{indent}subgraph cluster_{inner.id} {{"
        yield f'{indent}  label={_dot_text(_short(inner.title))}; style=rounded; color="#999999";'
        yield from _dot_box(inner, indent + "  ")
        yield f"{indent}}}"


def _dot_edge(edge: Edge) -> str:
    facts = [f"label={_dot_text(_short(edge.label))}"] if edge.label else []
    facts += ["style=dashed"] if edge.is_failure else []
    attributes = f" [{', '.join(facts)}]" if facts else ""
    return f"  {edge.tail} -> {edge.head}{attributes};"


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _label(node: Node) -> str:
    return "\n".join([node.title, *map(_short, filter(None, [node.detail, *node.notes]))])


def _short(text: str) -> str:
    """Return a text of a bounded length, wrapped, without control characters."""
    seen = "".join(char if char.isprintable() else " " for char in text)
    return textwrap.fill(textwrap.shorten(seen, _LIMIT, placeholder=" …") or seen[:_LIMIT], _WIDTH)
