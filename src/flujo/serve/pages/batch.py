"""One answer to several questions with the same form: filled in, looked at, and then recorded."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flujo.domain.access import Right
from flujo.domain.run import PauseKind
from flujo.exceptions import RunNotFound, SettingsError
from flujo.serve.endpoints import Endpoint
from flujo.serve.forms.fields import form_fields
from flujo.serve.forms.values import ABSENT
from flujo.serve.pages.question import Filled, answer_of, begun, form_data, with_other_fields
from flujo.serve.pages.rendering import page, see_other
from flujo.serve.serving import principal, tasks
from flujo.services.inspection.questions import QuestionAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.services.inspection.questions import AnswerOutcome, Question

_PATH = "/batch"
_MOST = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be recorded for each question."""

    do: str
    """`answer`, `approve` or `deny`."""
    together: bool
    """Whether all answers are recorded, or none."""
    filled: Filled


async def show(request: Request) -> Response:
    """Show the selected questions and one form for all of them."""
    chosen = await _chosen(request, request.query_params.getlist("q"))
    return _shown(request, chosen)


async def act(request: Request) -> Response:
    """Show what would be recorded, or record it."""
    form = await request.form()
    chosen = await _chosen(request, [str(each) for each in form.getlist("q")])
    seen = dict(zip(map(str, form.getlist("q")), map(str, form.getlist("s")), strict=False))
    do, _, about = str(form.get("_do", "")).partition(":")
    filled = Filled(form_data(form), reason=str(form.get("_reason", "")))
    if do in ("add", "remove", "show"):
        return _shown(request, chosen, with_other_fields(filled, do, about))
    kind = do if do in ("answer", "approve", "deny") else str(form.get("_kind", ""))
    decision = Decision(kind, form.get("_together", "on") == "on", filled)
    if do not in ("record", kind) or kind not in ("answer", "approve", "deny"):
        return _shown(request, chosen, filled)
    return await _decided(request, chosen, seen, decision, is_final=do == "record")


async def _decided(
    request: Request,
    chosen: Sequence[Question],
    seen: Mapping[str, str],
    decision: Decision,
    *,
    is_final: bool,
) -> Response:
    """Check the answers, and with `is_final` record them."""
    if len(_groups(chosen)) != 1:
        return _shown(request, chosen)
    answers = []
    for question in chosen:
        reading = answer_of(question.pause, decision.do, decision.filled, may_edit=False)
        if reading.problems:
            return _shown(
                request,
                chosen,
                Filled(decision.filled.data, reading.problems, decision.filled.reason),
                status=422,
            )
        place = question.run_id, question.pause.pause_id
        answers.append(QuestionAnswer(*place, reading.value, seen.get(address(question), "")))
    outcomes = await tasks(request).answer_questions(
        answers, together=decision.together, dry_run=not is_final
    )
    if is_final and all(each.is_recorded for each in outcomes):
        again = urlencode([("q", address(question)) for question in chosen])
        return see_other(request, f"{_PATH}?{again}")
    return _shown(
        request,
        chosen,
        decision.filled,
        outcomes=outcomes,
        decision=decision,
        is_final=is_final,
        status=409 if is_final else 200,
    )


async def _chosen(request: Request, addresses: Sequence[str]) -> list[Question]:
    """Return the selected questions, open or not.

    Raises:
        SettingsError: none is selected, or too many are.
        RunNotFound: one is not there.
    """
    unique = list(dict.fromkeys(addresses))
    if not 1 <= len(unique) <= _MOST:
        raise SettingsError(
            f"{len(unique)} questions are selected", hint=f"go back and select 1 to {_MOST} questions"
        )
    client, found = tasks(request), []
    for each in unique:
        run_id, separator, pause_id = each.partition(":")
        if not separator:
            raise RunNotFound(f"{each!r} is not a question", hint="select questions in the inbox")
        found.append(await client.question(run_id, pause_id))
    return found


def address(question: Question) -> str:
    """Return what names a question in a form."""
    return f"{question.run_id}:{question.pause.pause_id}"


def _groups(chosen: Sequence[Question]) -> list[list[Question]]:
    """Return the open questions by their form: approvals together, others by their schema."""
    found: dict[Any, list[Question]] = defaultdict(list)
    for question in chosen:
        pause = question.pause
        if pause.needs_answer:
            is_approval = pause.kind is PauseKind.APPROVAL
            found[pause.kind if is_approval else (pause.kind, pause.answer_schema)].append(question)
    return list(found.values())


def _shown(
    request: Request,
    chosen: Sequence[Question],
    filled: Filled | None = None,
    *,
    outcomes: Sequence[AnswerOutcome] | None = None,
    decision: Decision | None = None,
    is_final: bool = False,
    status: int = 200,
) -> Response:
    groups, fields = _groups(chosen), None
    is_approval = len(groups) == 1 and groups[0][0].pause.kind is PauseKind.APPROVAL
    if len(groups) == 1 and not is_approval:
        shape, begin, _ = begun(groups[0][0].pause)
        filled = filled or Filled(begin)
        fields = form_fields(shape, filled.data, filled.problems, "batch")
    value = ABSENT if outcomes is None else outcomes[0].answer.answer
    if isinstance(value, dict) and is_approval:
        value = {name: each for name, each in value.items() if name != "digest"}
    return page(
        request,
        "batch.html",
        status=status,
        questions=[(each, address(each)) for each in chosen],
        groups=[(each, urlencode([("q", address(one)) for one in each])) for each in groups],
        is_approval=is_approval,
        fields=fields,
        filled=filled or Filled({}),
        outcomes=outcomes,
        value=None if value is ABSENT else json.dumps(value, ensure_ascii=False, indent=2),
        decision=decision,
        is_final=is_final,
        fitting=0 if outcomes is None else sum(each.error is None for each in outcomes),
        may_answer=Right.ANSWER in principal(request).role.rights,
        me=principal(request).name,
    )


ENDPOINTS = (
    Endpoint("GET", _PATH, show, Right.READ),
    Endpoint("POST", _PATH, act, Right.ANSWER),
)
