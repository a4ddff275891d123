"""The page of a run: what it is, its path through the blueprint, its steps with their values, and its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from flujo.domain.access import Right
from flujo.domain.paths import ROOT, shown
from flujo.domain.run import ENDS_OF_TASKS
from flujo.domain.run_forks import Forked, forks_of
from flujo.exceptions import SettingsError
from flujo.governance.sink import GATE
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.actions import possible
from flujo.serve.pages.log_lines import line_html
from flujo.serve.pages.rendering import page
from flujo.serve.pages.runs import tone
from flujo.serve.serving import tasks
from flujo.services.inspection import formatting, trace_html
from flujo.services.inspection.path_svg import draw_path
from flujo.services.inspection.path_taken import path_taken
from flujo.services.inspection.trace_html import Html, Manner, text
from flujo.services.inspection.value_text import value_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.services.inspection.path_taken import Passage
    from flujo.services.inspection.task_detail import TaskDetail

MOST_STEPS = 1000
"""How many steps the tree of a page has; a step that is opened by itself has as many."""
MOST_CHARACTERS = 4000
"""How many characters of a value the page of a run has."""
MOST_LINES = 300
"""How many lines of the log are there at first: the last ones."""
PART = 20_000
"""How many characters a page of a value has."""


async def show_run(request: Request) -> Response:
    """Show a run, or a step of it with `?step=PATH`."""
    run_id, step = request.path_params["run_id"], request.query_params.get("step") or None
    client = tasks(request)
    detail = await client.get_task(run_id, transcripts=True, step=step)
    run_id = detail.task.run_id
    node = detail.trace if step is None else detail.trace.at(step)
    manner = _manner(request, run_id)
    pipeline = await client.accepted_pipeline(run_id) if step is None else None
    taken = {} if pipeline is None else path_taken(pipeline, detail.trace)
    lines = await client.get_log(run_id) if step is None else []
    last = lines[-1].offset if lines else 0
    is_over = detail.task.status in ENDS_OF_TASKS
    return page(
        request,
        "run.html",
        detail=detail,
        task=detail.task,
        state=str(detail.task.display_status),
        tone=tone(str(detail.task.display_status)),
        short_id=formatting.short_id(run_id),
        step=None if step is None else shown(node.path),
        head=trace_html.head(detail, manner),
        timeline=trace_html.timeline(node),
        costs=trace_html.costs(node),
        steps=trace_html.steps(node.children if step is None else [node], manner),
        actions=possible(request, detail.task),
        family=_family(detail),
        drawing=None if pipeline is None else draw_path(pipeline, taken),
        places=[] if pipeline is None else _places(pipeline, taken, detail),
        lines=[Html(line_html(line)) for line in lines[-MOST_LINES:]],
        left_out=max(0, len(lines) - MOST_LINES),
        events=None if is_over or step is not None else f"{_address(request, run_id)}/live?after={last}",
    )


async def show_value(request: Request) -> Response:
    """Show a part of a value that is too long for the page of its run."""
    given = request.query_params
    run_id, path, name = request.path_params["run_id"], given.get("path", ROOT), given.get("of", "output")
    detail = await tasks(request).get_task(run_id)
    whole = GATE.result(value_text(_value(detail, path, name), None))
    parts = max(1, -(-len(whole) // PART))
    number = _number(given.get("part", "1"), parts)
    return page(
        request,
        "value.html",
        run_id=detail.task.run_id,
        name=name,
        path=shown(path),
        text=whole[(number - 1) * PART : number * PART],
        number=number,
        parts=parts,
        length=len(whole),
        address=lambda part: "?" + urlencode({"path": path, "of": name, "part": part}),
    )


def _address(request: Request, run_id: str) -> str:
    return f"{request.scope.get('root_path', '')}/runs/{quote(run_id)}"


def _manner(request: Request, run_id: str) -> Manner:
    """Return how a trace stands on a page: with links to steps, to other runs and to whole values."""
    here = _address(request, run_id)

    def rest(path: StepPath, name: str, length: int) -> str:
        if name not in ("input", "output", "context"):
            return f'<p class="quiet">… ({length:,} characters)</p>'
        address = f"{here}/value?{urlencode({'path': path, 'of': name})}"
        return f"<p>{_link(address, f'All {length:,} characters')}</p>"

    return Manner(
        limit=MOST_CHARACTERS,
        most_steps=MOST_STEPS,
        rest=rest,
        path=lambda path: _link(f"{here}?{urlencode({'step': path})}", shown(path)),
        run=lambda other: _link(_address(request, other), other),
    )


def _link(address: str, name: str) -> str:
    return f'<a href="{text(address)}">{text(name)}</a>'


@dataclass(frozen=True, slots=True)
class _Place:
    """A step of the tree, in the list that says the same as the drawing."""

    path: StepPath
    depth: int
    name: str
    what: str
    passage: Passage
    is_recorded: bool
    """Whether the trace has a step at exactly this path, to which a link can lead."""


def _places(pipeline: Pipeline, taken: Mapping[StepPath, Passage], detail: TaskDetail) -> list[_Place]:
    recorded = {node.path for node in detail.trace.walk()}
    return [
        _Place(
            path=path,
            depth=min(path.count("/"), 8),
            name=step.name,
            what=f"{step.kind}, {step.summary()}",
            passage=taken[path],
            is_recorded=path in recorded,
        )
        for path, step in pipeline.walk()
    ]


def _family(detail: TaskDetail) -> list[tuple[str, str, str]]:
    """Return the runs that this one belongs to: what they are to it, their ids, and where."""
    task, found = detail.task, []
    if task.parent is not None:
        found.append(("launched by", task.parent, f"at {shown(task.parent_path or ROOT)}"))
    if detail.continues is not None:
        found.append(("continues", detail.continues, ""))
    if detail.continued_as is not None:
        found.append(("continued as", detail.continued_as, ""))
    if (forked := Forked.of(detail.acts)) is not None:
        found.append(("fork of", forked.parent, f"at {shown(forked.at)}"))
    found += [("forked as", run_id, f"at {shown(at)}") for run_id, at in forks_of(detail.acts)]
    return found + [("launched", each.run_id, str(each.display_status)) for each in detail.children]


def _value(detail: TaskDetail, path: str, name: str) -> Any:
    """Return the input, the output or the context of a run, or of the step at a path.

    Raises:
        SettingsError: the run has no such step, or the name is another one.
    """
    if name not in ("input", "output", "context"):
        raise SettingsError(f"{name!r} is not a value of a step", hint="ask for `input` or `output`")
    if path == ROOT:
        return getattr(detail, name)
    return getattr(detail.trace.at(path), name, None)


def _number(given: str, most: int) -> int:
    """Return the number of a part.

    Raises:
        SettingsError: there is no such part.
    """
    if given.isascii() and given.isdecimal() and 1 <= int(given[:9]) <= most:
        return int(given)
    raise SettingsError(f"the value has no part {given!r}", hint=f"its parts are numbered from 1 to {most}")


ENDPOINTS = (
    Endpoint("GET", "/runs/{run_id}", show_run, Right.READ),
    Endpoint("GET", "/runs/{run_id}/value", show_value, Right.READ),
)
