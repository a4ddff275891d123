"""Start a run: a form from the schema of the input, and what the run will probably cost."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import RedirectResponse

from flujo.domain.access import Right
from flujo.domain.queues import DEFAULT_QUEUE, MAX_PRIORITY, PRIORITIES
from flujo.domain.wording import dollars
from flujo.exceptions import InputRejected
from flujo.serve.endpoints import Endpoint
from flujo.serve.forms.fields import form_fields
from flujo.serve.forms.shapes import Kind, shape_of
from flujo.serve.forms.values import ABSENT, Reading, fill, read
from flujo.serve.pages.question import Filled, form_data, with_other_fields
from flujo.serve.pages.rendering import page
from flujo.serve.serving import deployed, serving, tasks
from flujo.serve.uploads import with_stored_files, without_file
from flujo.services.forecast.forecast import NOT_GIVEN
from flujo.services.project.inputs import read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.domain.pipeline import Pipeline
    from flujo.serve.forms.shapes import Shape
    from flujo.services.forecast.forecast import Forecast

_FACTS = ("queue", "priority", "user_id", "metadata", "key")
_CONTEXT = "c"
"""The name of the field for the context."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The fields for a new run of a blueprint."""

    pipeline: Pipeline
    input: Shape
    context: Shape | None
    """The fields of the context that a person fills in: required ones, and those that are files."""

    @property
    def has_files(self) -> bool:
        """Whether a file can be uploaded."""
        return any(_has_file(each) for each in (self.input, self.context) if each is not None)


def _form(request: Request) -> _Form:
    pipeline = deployed(request).pipeline(request.path_params["blueprint"])
    schema = pipeline.input_schema if isinstance(pipeline.input_schema, dict) else {}
    fields = shape_of(deployed(request).context_schema(pipeline), takes_files=True)
    members = tuple(each for each in fields.members if each[2] or _has_file(each[1]))
    return _Form(
        pipeline,
        shape_of({"title": "Input", **schema}, takes_files=True),
        replace(fields, label="Context", members=members) if members else None,
    )


def _has_file(shape: Shape) -> bool:
    inside = [each for _, each, _ in shape.members]
    inside += [*shape.variants, *([] if shape.item is None else [shape.item])]
    return shape.kind is Kind.FILE or any(map(_has_file, inside))


async def choose(request: Request) -> Response:
    """Show the blueprints of which a run can be started."""
    return page(request, "start.html", blueprints=deployed(request).names())


async def show(request: Request) -> Response:
    """Show the form of a blueprint."""
    form = _form(request)
    data = fill(form.input)
    if form.context is not None:
        data |= fill(form.context, root=_CONTEXT)
    facts = {"key": serving(request).workspace.random.run_id(), "queue": DEFAULT_QUEUE, "priority": "0"}
    return await _shown(request, form, Filled(data), facts)


async def start(request: Request) -> Response:
    """Do what a button of the form says: start the run, show its forecast, or the form with other fields."""
    form, sent = _form(request), await request.form()
    facts = {name: str(sent.get(name, "")).strip() for name in _FACTS}
    do, _, about = str(sent.get("_do", "start")).partition(":")
    data = form_data(sent) | form_data(sent, _CONTEXT)
    data, problems = await with_stored_files(request, sent, data) if form.has_files else (data, {})
    if do == "drop":
        return await _shown(request, form, Filled(without_file(data, about), problems), facts)
    if do not in ("start", "forecast"):
        filled = with_other_fields(Filled(data), do, about)
        return await _shown(request, form, Filled(filled.data, problems), facts)
    given, context = read(form.input, data), Reading(value=ABSENT)
    if form.context is not None:
        context = read(form.context, data, _CONTEXT)
    # What is wrong with a file says more than that it is missing.
    problems = given.problems | context.problems | problems
    given.problems = problems
    if not _is_priority(facts["priority"]):
        given.refuse("priority", f"is not a whole number from {PRIORITIES}")
    if not given.problems and do == "forecast":
        return await _shown(request, form, Filled(data), facts, given=given.value)
    if not given.problems:
        try:
            return await _started(request, form.pipeline, given.value, context.value, facts)
        except InputRejected as error:
            given.place(error.violations or (error.message,))
    return await _shown(request, form, Filled(data, given.problems), facts, status=422)


async def _started(
    request: Request, pipeline: Pipeline, given: Any, context: Any, facts: Mapping[str, str]
) -> Response:
    task = await tasks(request).start_task(
        pipeline.name,
        given,
        context=None if context is ABSENT else context,
        user_id=facts["user_id"] or None,
        metadata=read_metadata(facts["metadata"].split()) or None,
        queue=facts["queue"] or DEFAULT_QUEUE,
        priority=int(facts["priority"] or 0),
        idempotency_key=facts["key"] or None,
    )
    return RedirectResponse(f"{request.scope.get('root_path', '')}/runs/{quote(task.run_id)}", 303)


async def _shown(
    request: Request,
    form: _Form,
    filled: Filled,
    facts: Mapping[str, str],
    *,
    given: Any = NOT_GIVEN,
    status: int = 200,
) -> Response:
    there = deployed(request)
    found = await there.forecast(form.pipeline, given)
    fields = [form_fields(form.input, filled.data, filled.problems, "input")]
    if form.context is not None:
        fields.append(form_fields(form.context, filled.data, filled.problems, "context", _CONTEXT))
    return page(
        request,
        "start_run.html",
        status=status,
        pipeline=form.pipeline,
        groups=fields,
        has_files=form.has_files,
        problems=filled.problems,
        max_priority=MAX_PRIORITY,
        facts={name: facts.get(name, "") for name in _FACTS},
        forecast=_rows(found),
        is_for_input=given is not NOT_GIVEN,
        note=await there.no_worker_note(facts.get("queue") or DEFAULT_QUEUE),
    )


def _is_priority(text: str) -> bool:
    return not text or (re.fullmatch("[+-]?[0-9]{1,10}", text) is not None and abs(int(text)) <= MAX_PRIORITY)


def _rows(found: Forecast) -> list[tuple[str, str]]:
    """Return what a run will probably cost, in words."""
    rows = []
    if found.most_usd is not None:
        rows.append(("Costs at most", dollars(found.most_usd)))
    elif found.agents:
        rows.append(("Costs at most", "unknown: nothing bounds it, or the price of a model is not known"))
    if found.history is not None and found.history.cost_usd is not None:
        rows.append((f"Median of {found.history.runs} runs", dollars(found.history.cost_usd.median)))
    requests = found.amounts.requests
    most = "or more" if requests.most is None else f"to {requests.most:,.0f}"
    rows.append(("Requests to models", f"{requests.least:,.0f} {most}"))
    return rows


ENDPOINTS = (
    Endpoint("GET", "/start", choose, Right.OPERATE),
    Endpoint("GET", "/start/{blueprint}", show, Right.OPERATE),
    Endpoint("POST", "/start/{blueprint}", start, Right.OPERATE, files=2),
)
