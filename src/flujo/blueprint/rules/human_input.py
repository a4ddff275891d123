"""Rules about deadlines of questions to humans and of waits for events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.language import models as doc
from flujo.blueprint.schemas.validator import compile_schema
from flujo.exceptions import BlueprintError, OutputRejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

_ASK = "steps:\n  - kind: hitl\n    name: approve\n    message: Send this?\n"
NO_DEADLINE = rule(
    "FLJ245",
    "on-deadline-without-deadline",
    "`on_deadline` without a deadline",
    finds="`on_deadline:` on a question or an event without `deadline_s:`.",
    why="The question or the wait stays open indefinitely, so `on_deadline` never applies.",
    example=_ASK + "    on_deadline: {answer: false}",
    instead=_ASK + "    deadline_s: 72h\n    on_deadline: {answer: false}",
)
UNFIT_ANSWER = rule(
    "FLJ246",
    "deadline-answer-does-not-fit",
    "The answer set for a deadline does not fit the question",
    finds="An `on_deadline: {answer: …}` that the `answer_schema` or the `event_schema` rejects.",
    why="Later steps rely on the schema. The run would fail days later, when the deadline passes.",
    example=_ASK
    + "    answer_schema: {type: boolean}\n    deadline_s: 72h\n    on_deadline: {answer: no answer}",
    instead=_ASK
    + "    answer_schema: {type: boolean}\n    deadline_s: 72h\n    on_deadline: {answer: false}",
)


def deadline(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report an `on_deadline` that never applies, or whose answer the schema rejects."""
    step = visit.step
    match step:
        case doc.HitlStep():
            what, key, schema = "question", "answer_schema", step.answers
        case doc.EventStep():
            what, key, schema = "event", "event_schema", step.event_schema
        case _:
            return
    if step.deadline_s is None and "on_deadline" in step.model_fields_set:
        yield NO_DEADLINE.at(
            unit.span(*visit.path, "on_deadline", key=True),
            f"{what} {step.name!r} has `on_deadline` but no `deadline_s`",
            hint="set how long it stays open, for instance `deadline_s: 72h`",
        )
    if isinstance(step.on_deadline, doc.AnswerInstead) and schema is not None:
        answer = step.on_deadline.answer
        misfit = None if _has_expressions(answer) else _misfit(schema, answer)
        if misfit:
            yield UNFIT_ANSWER.at(
                unit.span(*visit.path, "on_deadline", "answer"),
                misfit,
                hint=f"write an answer that fits `{key}`",
                related=((unit.span(*visit.path, key, key=True), "the schema"),),
            )


def approval_deadline(unit: Unit) -> Iterator[Diagnostic]:
    """Report an `on_deadline` of an approval that never applies."""
    for name, agent in unit.blueprint.agents.items():
        for path, tool in doc.called_tools(agent):
            asked = tool.approve
            if (
                isinstance(asked, doc.Approval)
                and asked.deadline_s is None
                and "on_deadline" in asked.model_fields_set
            ):
                yield NO_DEADLINE.at(
                    unit.span("agents", name, *path, "approve", "on_deadline", key=True),
                    f"the approval of tool `{tool.call or tool.mcp}` has `on_deadline` but no `deadline_s`",
                    hint="set how long it stays open, for instance `deadline_s: 72h`",
                )


def _misfit(schema: Any, answer: Any) -> str | None:
    try:
        compile_schema(schema).check(answer, what="the `answer` of `on_deadline`")
    except OutputRejected as error:
        return error.message
    except BlueprintError:  # the schema has a finding of its own
        return None
    return None


def _has_expressions(value: Any) -> bool:
    match value:
        case str():
            return "{{" in value
        case dict():
            return any(_has_expressions(item) for item in value.values())
        case list() | tuple():
            return any(_has_expressions(item) for item in value)
        case _:
            return False
