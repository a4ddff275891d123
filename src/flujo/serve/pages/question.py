"""One question: what it is about, a form for the answer, and later the recorded answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flujo.domain import canonical
from flujo.domain.access import Right
from flujo.domain.approvals import arguments_in, arguments_shown
from flujo.domain.run import PauseKind, RunStatus
from flujo.exceptions import FlujoError, InputRejected, QuestionClaimed, ResumeConflict
from flujo.governance.screen import visible
from flujo.governance.sink import GATE
from flujo.serve.endpoints import Endpoint
from flujo.serve.forms.fields import form_fields
from flujo.serve.forms.shapes import ANY_TEXT
from flujo.serve.forms.values import ABSENT, ROOT, Reading, form_for, read, same, with_row, without_row
from flujo.serve.pages.rendering import page, see_other
from flujo.serve.serving import principal, tasks
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.domain.run import Pause
    from flujo.serve.forms.shapes import Shape
    from flujo.services.inspection.questions import Question
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.trace_tree import TraceNode

_PATH = "/questions/{run_id}/{pause_id:path}"
_MOST_STEPS = 60
_DEEPEST = 5


@dataclass(frozen=True, slots=True)
class Filled:
    """A form as it was filled in, and what is wrong with it."""

    data: Mapping[str, str]
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step that the run has begun, in one line."""

    depth: int
    name: str
    kind: str
    status: str
    result: str
    cost: str


async def show(request: Request) -> Response:
    """Show a question; once it is answered, who has answered and with what."""
    return await _shown(request)


async def act(request: Request) -> Response:
    """Do what a button of the page says: record an answer, claim, or show the form with other fields."""
    form = await request.form()
    do, _, about = str(form.get("_do", "answer")).partition(":")
    filled = Filled(form_data(form), reason=str(form.get("_reason", "")))
    match do:
        case "add" | "remove" | "show":
            return await _shown(request, with_other_fields(filled, do, about))
        case "claim" | "take" | "release" | "escalate":
            return await _claimed(request, do, filled)
        case "reveal":
            revealed = await tasks(request).reveal_question(*_place(request))
            return await _shown(request, filled, revealed=revealed)
        case "answer" | "approve" | "deny":
            return await _answered(request, form, do, filled)
        case _:
            return await _shown(request, filled)


def form_data(form: FormData, root: str = ROOT) -> dict[str, str]:
    """Return the fields of a form that make a value."""
    return {
        name: text
        for name, text in form.items()
        if isinstance(text, str) and (name == root or name.startswith((f"{root}/", f"{root}#")))
    }


def with_other_fields(filled: Filled, do: str, about: str) -> Filled:
    """Return a form with a row more or less, or with the fields of the chosen variant."""
    if do == "add":
        return Filled(with_row(filled.data, about), reason=filled.reason)
    if do == "remove":
        key, _, row = about.rpartition(":")
        at = int(row) if row.isdecimal() and len(row) < 5 else -1
        return Filled(without_row(filled.data, key, at), reason=filled.reason)
    return filled


# Changes -----------------------------------------------------------------------------------------------


async def _claimed(request: Request, do: str, filled: Filled) -> Response:
    client, place = tasks(request), _place(request)
    try:
        if do == "release":
            await client.release_question(*place)
        elif do == "escalate":
            await client.escalate_question(*place, filled.reason)
            return see_other(request, "/")
        else:
            await client.claim_question(*place, take=do == "take")
    except ResumeConflict as error:
        return await _shown(request, filled, refused=error, status=409)
    return see_other(request, _path(*place))


async def _answered(request: Request, form: FormData, do: str, filled: Filled) -> Response:
    question = await tasks(request).question(*_place(request))
    reading = answer_of(question.pause, do, filled)
    if reading.problems:
        return await _shown(request, Filled(filled.data, reading.problems, filled.reason), status=422)
    try:
        await tasks(request).answer_question(
            *_place(request),
            reading.value,
            seen=str(form.get("_seen", "")),
            over_claim="_over_claim" in form,
        )
    except InputRejected as error:
        reading.place(error.violations or (error.message,))
        return await _shown(request, Filled(filled.data, reading.problems, filled.reason), status=422)
    except ResumeConflict as error:
        return await _shown(request, filled, refused=error, status=409)
    return see_other(request, _path(*_place(request)))


def answer_of(pause: Pause, do: str, filled: Filled, *, may_edit: bool = True) -> Reading:
    """Return the answer that a form makes.

    Args:
        pause: the question.
        do: `answer`, or for a call `approve` or `deny`.
        filled: the form.
        may_edit: whether the form has the arguments of a call.
    """
    if pause.kind is not PauseKind.APPROVAL:
        shape, _, _ = begun(pause)
        return read(shape, filled.data)
    if do == "deny":
        reason = {"reason": filled.reason.strip()} if filled.reason.strip() else {}
        return Reading({"approved": False, "digest": pause.digest, **reason})
    reading = Reading({"approved": True, "digest": pause.digest})
    if do != "approve":
        reading.refuse(ROOT, "approve the call, or deny it")
        return reading
    if may_edit and is_editable(pause):
        shape, _, asked = begun(pause)
        edited = read(shape, filled.data)
        if edited.problems:
            return edited
        if not same(edited.value, asked):
            reading.value["arguments"] = edited.value
        reading.keys = {
            f"arguments.{place}" if place else "arguments": key for place, key in edited.keys.items()
        }
    return reading


# What the form begins with -------------------------------------------------------------------------------


def begun(pause: Pause) -> tuple[Shape, dict[str, str], Any]:
    """Return the shape of a form, its first texts, and the value that these stand for.

    Texts that would be masked are left out: a masked text must not come back as an answer.
    """
    if pause.answer_schema is None:
        return ANY_TEXT, {}, ABSENT
    schema, value = canonical.decode(pause.answer_schema), ABSENT
    if pause.kind is PauseKind.APPROVAL:
        value = arguments_in(pause.answer_schema)
        inner = {name: each for name, each in schema["properties"]["arguments"].items() if name != "default"}
        schema = {**inner, "$defs": schema.get("$defs", {})}
    shape, data = form_for(schema, value)
    return shape, {name: text for name, text in data.items() if GATE.data(text) == text}, value


def is_editable(pause: Pause) -> bool:
    """Return whether a person may change the arguments of a call, and can see all of them."""
    if pause.kind is not PauseKind.APPROVAL:
        return False
    arguments = arguments_in(pause.answer_schema)
    return arguments is not None and bool(GATE.data(arguments) == arguments)


# The page ------------------------------------------------------------------------------------------------


def _path(run_id: str, pause_id: str) -> str:
    return f"/questions/{quote(run_id)}/{quote(pause_id)}"


def _place(request: Request) -> tuple[str, str]:
    return request.path_params["run_id"], request.path_params["pause_id"]


async def _shown(
    request: Request,
    filled: Filled | None = None,
    *,
    refused: FlujoError | None = None,
    revealed: str | None = None,
    status: int = 200,
) -> Response:
    client, me = tasks(request), principal(request)
    question = await client.question(*_place(request))
    detail = await client.get_task(question.run_id)
    pause, fields = question.pause, None
    filled = filled or (Filled(begun(pause)[1]) if _has_form(pause) else Filled({}))
    if _has_form(pause):
        fields = form_fields(begun(pause)[0], filled.data, filled.problems, question.run_id)
    text, arguments = _call(pause)
    following = await client.questions(limit=1, cursor=question.cursor)
    return page(
        request,
        "question.html",
        status=status,
        question=question,
        pause=pause,
        text=text,
        arguments=arguments,
        fields=fields,
        filled=filled,
        refused=refused,
        needs_confirmation=isinstance(refused, QuestionClaimed) or _is_of_another(question, me.name),
        revealed=None if revealed is None else visible(revealed),
        may_reveal=GATE.hides_personal_data and Right.OPERATE in me.role.rights,
        may_answer=Right.ANSWER in me.role.rights,
        me=me.name,
        task=detail.task,
        steps=list(_steps(detail.trace))[:_MOST_STEPS],
        answer=None
        if pause.answer is None
        else formatting.as_json(canonical.decode(pause.answer), indent=True),
        next_step=_next_step(detail, question),
        others=[each for each in detail.task.questions if each.pause_id != pause.pause_id],
        following=following[0] if following else None,
    )


def _has_form(pause: Pause) -> bool:
    return pause.needs_answer and (pause.kind is not PauseKind.APPROVAL or is_editable(pause))


def _is_of_another(question: Question, me: str) -> bool:
    return question.claim is not None and question.claim.by != me


def _call(pause: Pause) -> tuple[str, str | None]:
    """Return the text of a question, and the arguments of the call that it asks to approve."""
    if pause.kind is PauseKind.APPROVAL:
        try:
            text, arguments = arguments_shown(pause.message)
        except ValueError:
            return pause.message, None
        return text, json.dumps(arguments, ensure_ascii=False, indent=2)
    return pause.message, None


def _steps(node: TraceNode, depth: int = 0) -> Iterator[StepLine]:
    """Yield the steps that the run has begun, in order."""
    for child in node.children:
        yield StepLine(
            depth=depth,
            name=child.name,
            kind=child.kind,
            status=str(child.status),
            result="" if child.output is None else formatting.brief(child.output),
            cost=formatting.usage(child.total()),
        )
        if depth < _DEEPEST:
            yield from _steps(child, depth + 1)


def _next_step(detail: TaskDetail, question: Question) -> str:
    """Return what becomes of the run after the answer, and who executes it."""
    task = detail.task
    if task.questions:
        return "The run waits for other answers."
    if task.status is RunStatus.PAUSED:
        if question.queue is not None:
            return f"A worker of the queue `{question.queue}` continues the run."
        return "The process that executes the run, or a worker, continues it."
    if task.status is RunStatus.RUNNING:
        return "A process executes the run."
    return f"The run is {task.status}."


ENDPOINTS = (
    Endpoint("GET", _PATH, show, Right.READ),
    Endpoint("POST", _PATH, act, Right.ANSWER),
)
