"""The trace of a run as one HTML file.

The page loads nothing and needs no JavaScript. Every text of the run is escaped. The policy of the page also
forbids scripts and requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.services.inspection.trace_html import MOST_CHARACTERS, Manner, costs, head, steps, text, timeline

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.services.inspection.task_detail import TaskDetail

_STYLE = """\
:root { color-scheme: light dark;
  --ink: #1c2024; --dim: #60646c; --line: #d9d9e0; --page: #fff; --box: #f5f5f7;
  --completed: #2b9a66; --failed: #ce2c31; --paused: #ab6400; --other: #0d74ce; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #edeef0; --dim: #b0b4ba; --line: #43484e; --page: #111113; --box: #1b1c1f;
  --completed: #3dd68c; --failed: #ff9592; --paused: #ffca16; --other: #70b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 75rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { margin: 0; padding: .5rem; background: var(--box); border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 30rem; overflow: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--dim); font-weight: 500; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .3rem .8rem; margin: .4rem 0; }
dt { color: var(--dim); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
details { border-left: 2px solid var(--line); padding-left: .8rem; margin: .25rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary > span { color: var(--dim); margin-left: .6rem; }
.completed { color: var(--completed); }
.failed { color: var(--failed); }
.paused { color: var(--paused); }
.other, .waiting, .running { color: var(--other); }
.skipped, .dim { color: var(--dim); }
.row { display: grid; grid-template-columns: 16rem 1fr 4.5rem; gap: .6rem; align-items: center;
  font-size: 13px; }
.row > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.row > span:last-child { text-align: right; }
.track { display: block; width: 100%; height: .8rem; background: var(--box); border-radius: 2px; }
rect { fill: currentcolor; }
.depth-1 { padding-left: 0.7rem; }
.depth-2 { padding-left: 1.4rem; }
.depth-3 { padding-left: 2.1rem; }
.depth-4 { padding-left: 2.8rem; }
.depth-5 { padding-left: 3.5rem; }
.depth-6 { padding-left: 4.2rem; }
.depth-7 { padding-left: 4.9rem; }
.depth-8 { padding-left: 5.6rem; }
@media (max-width: 45rem) {
  .row { grid-template-columns: 8rem 1fr 4rem; }
  dl { grid-template-columns: 1fr; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(detail: TaskDetail, *, full: bool = False) -> str:
    """Return the page of a run whose transcripts were read.

    Args:
        detail: the run.
        full: show values of any length whole.
    """
    root, task = detail.trace, detail.task
    title = text(f"{task.pipeline} {task.run_id}")
    manner = Manner(limit=None if full else MOST_CHARACTERS, rest=_rest)
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{_STYLE}</style>",
        f"<h1>{text(task.pipeline)} <code>{text(task.run_id)}</code></h1>",
        head(detail, manner),
        *(f"<p>warning: {text(warning)}</p>" for warning in detail.warnings),
        "<h2>Timeline</h2>",
        timeline(root),
        "<h2>Costs</h2>",
        costs(root),
        "<h2>Steps</h2>",
        steps(root.children, manner),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _rest(_path: StepPath, _name: str, length: int) -> str:
    return f"… ({length:,} characters; <code>--full</code> shows all)"
