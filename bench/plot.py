"""The plot of `compare.py`: rates of Flujo beside its peers, as an SVG that follows the reader's colours."""

from html import escape

from goals import OURS, Job, median
from measuring import Measurements

Panel = dict[str, float]

_PANELS = {
    "W1": "steps a second, one after another",
    "W2": "runs a second",
    "W3": "items a second",
    "W4": "pauses a second",
}
_NAMES = {
    ("raw", "full"): "INSERT and COMMIT",
    ("raw", "default"): "INSERT and COMMIT",
    ("burr", "wal"): "Burr",
    ("burr", "default"): "Burr",
    ("langgraph", "chain-sync"): "LangGraph",
    ("langgraph", "chain-async"): "LangGraph",
    ("dbos", "default"): "DBOS",
    ("temporal", "default"): "Temporal",
    ("restate", "default"): "Restate",
    (OURS, "default"): "Flujo",
}
_WIDTH, _LABEL, _NUMBER, _BAR, _GAP = 720, 150, 70, 18, 6

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.ours { fill: #d9480f; }
.other { fill: #adb5bd; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .other { fill: #6c757d; } }
"""


def bars(jobs: list[Job], kept: Measurements) -> dict[str, Panel]:
    """Return the rates to draw: title of a panel → name → rate. A panel without a peer is left out."""
    panels: dict[str, Panel] = {}
    for one in jobs:
        results, workload = kept.of(one), "W1" if one["workload"] == "commit" else one["workload"]
        where = {"postgres": "Postgres", "sqlite": "a file", "file": "a file"}.get(one["backend"])
        if results and where and workload in _PANELS:
            panel = panels.setdefault(f"{workload}, {where}: {_PANELS[workload]}", {})
            panel[_NAMES[one["dir"], one["variant"]]] = median(results)
    return {title: panels[title] for title in sorted(panels) if len(panels[title]) > 1}


def svg(panels: dict[str, Panel]) -> str:
    """Return the drawing: in each panel a bar for each rate, the longest first."""
    parts, y = [], 0
    for title, panel in panels.items():
        y += 24
        parts.append(f'<text class="title" x="0" y="{y}">{escape(title)}</text>')
        y += 10
        for name, rate in sorted(panel.items(), key=lambda item: -item[1]):
            length = max(1, round(rate / max(panel.values()) * (_WIDTH - _LABEL - _NUMBER)))
            kind = "ours" if name == "Flujo" else "other"
            text = y + _BAR - 5
            parts += [
                f'<text x="{_LABEL - 8}" y="{text}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{length}" height="{_BAR}" rx="2"/>',
                f'<text x="{_LABEL + length + 6}" y="{text}">{rate:,.0f}</text>',
            ]
            y += _BAR + _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 6}" role="img">'
    return "\n".join(
        [head, "<title>Flujo beside its peers</title>", f"<style>{_STYLE}</style>", *parts, "</svg>", ""]
    )
