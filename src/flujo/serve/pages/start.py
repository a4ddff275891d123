"""Start a run: a form from the schema of the input, and what the run will probably cost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import RedirectResponse

from flujo.domain.access import Right
from flujo.domain.queues import DEFAULT_QUEUE, MAX_PRIORITY
from flujo.domain.wording import dollars
from flujo.exceptions import InputRejected
from flujo.serve.endpoints import Endpoint
from flujo.serve.forms.fields import form_fields
from flujo.serve.forms.values import Reading, form_for, read
from flujo.serve.pages.question import Filled, form_data, with_other_fields
from flujo.serve.pages.rendering import page
from flujo.serve.serving import deployed, serving, tasks
from flujo.services.forecast.forecast import NOT_GIVEN
from flujo.services.project.inputs import read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.domain.pipeline import Pipeline
    from flujo.services.forecast.forecast import Forecast

_FACTS = ("queue", "priority", "user_id", "metadata", "key")


async def choose(request: Request) -> Response:
    """Show the blueprints of which a run can be started."""
    return page(request, "start.html", blueprints=deployed(request).names())


async def show(request: Request) -> Response:
    """Show the form of a blueprint."""
    pipeline = deployed(request).pipeline(request.path_params["blueprint"])
    _, data = form_for(_schema(pipeline))
    facts = {"key": serving(request).workspace.random.run_id(), "queue": DEFAULT_QUEUE, "priority": "0"}
    return await _shown(request, pipeline, Filled(data), facts)


async def start(request: Request) -> Response:
    """Do what a button of the form says: start the run, show its forecast, or the form with other fields."""
    pipeline, form = deployed(request).pipeline(request.path_params["blueprint"]), await request.form()
    facts = {name: str(form.get(name, "")).strip() for name in _FACTS}
    do, _, about = str(form.get("_do", "start")).partition(":")
    filled = Filled(form_data(form))
    if do not in ("start", "forecast"):
        return await _shown(request, pipeline, with_other_fields(filled, do, about), facts)
    shape, _ = form_for(_schema(pipeline))
    reading = read(shape, filled.data)
    if not _is_priority(facts["priority"]):
        reading.refuse("priority", f"is not a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}")
    if not reading.problems and do == "forecast":
        return await _shown(request, pipeline, filled, facts, given=reading.value)
    if not reading.problems:
        try:
            return await _started(request, pipeline, reading.value, facts)
        except InputRejected as error:
            reading.place(error.violations or (error.message,))
    return await _refused(request, pipeline, filled, reading, facts)


async def _started(request: Request, pipeline: Pipeline, given: Any, facts: Mapping[str, str]) -> Response:
    task = await tasks(request).start_task(
        pipeline.name,
        given,
        user_id=facts["user_id"] or None,
        metadata=read_metadata(facts["metadata"].split()) or None,
        queue=facts["queue"] or DEFAULT_QUEUE,
        priority=int(facts["priority"] or 0),
        idempotency_key=facts["key"] or None,
    )
    return RedirectResponse(f"{request.scope.get('root_path', '')}/runs/{quote(task.run_id)}", 303)


async def _refused(
    request: Request, pipeline: Pipeline, filled: Filled, reading: Reading, facts: Mapping[str, str]
) -> Response:
    return await _shown(request, pipeline, Filled(filled.data, reading.problems), facts, status=422)


async def _shown(
    request: Request,
    pipeline: Pipeline,
    filled: Filled,
    facts: Mapping[str, str],
    *,
    given: Any = NOT_GIVEN,
    status: int = 200,
) -> Response:
    there = deployed(request)
    shape, _ = form_for(_schema(pipeline))
    found = await there.forecast(pipeline, given)
    return page(
        request,
        "start_run.html",
        status=status,
        pipeline=pipeline,
        fields=form_fields(shape, filled.data, filled.problems, "input"),
        problems=filled.problems,
        max_priority=MAX_PRIORITY,
        facts={name: facts.get(name, "") for name in _FACTS},
        forecast=_rows(found),
        is_for_input=given is not NOT_GIVEN,
        note=await there.no_worker_note(facts.get("queue") or DEFAULT_QUEUE),
    )


def _schema(pipeline: Pipeline) -> Any:
    """Return the schema of the input; one that takes any text where a blueprint has none."""
    return {"title": "Input", **(pipeline.input_schema if isinstance(pipeline.input_schema, dict) else {})}


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
    Endpoint("POST", "/start/{blueprint}", start, Right.OPERATE),
)
