"""Answers: which pause of a run is meant, whether it is of the right kind, and whether the answer fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.approvals import arguments_in
from flujo.domain.commands import ShellCommand, command, either
from flujo.domain.questions import require_seen, seen_digest
from flujo.domain.run import GivenAnswer, PauseKind, RunStatus
from flujo.exceptions import (
    AmbiguousPause,
    InputRejected,
    OutputRejected,
    ResumeConflict,
    RunNotFound,
    WrongPauseKind,
)
from flujo.governance.sink import GATE
from flujo.services.project.inputs import example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import QuestionStore

NO_RESULT: Any = object()
"""Stands for an outcome without a result: None is a result."""


def resolution(outcome: str, result: Any = NO_RESULT) -> Mapping[str, Any]:
    """Return the answer that sets the outcome of a call in doubt; `record_answer` checks it."""
    return {"resolution": outcome} | ({} if result is NO_RESULT else {"result": result})


async def record_answer(
    store: QuestionStore,
    record: RunRecord,
    pause_id: str | None,
    given: Any,
    actor: Actor,
    *,
    kind: PauseKind = PauseKind.QUESTION,
    shown: Pause | None = None,
) -> None:
    """Record the answer to a pause, and who gave it; committed when this returns.

    `kind` is that of calls in doubt, or of questions: those of every other kind. `shown` is the question that
    the author has seen.

    Raises:
        RunNotFound: no such question.
        AmbiguousPause: several of this kind are open and `pause_id` names none.
        WrongPauseKind: the pause is of another kind.
        InputRejected: the answer does not fit the question's schema.
        ResumeConflict: the run has no open question, or another answer was recorded first.
        QuestionChanged: the run has asked again since the question was shown.
        SecretInValue: the answer contains a known secret.
    """
    pauses = await store.pauses(record.run_id)
    answer = checked(record, pauses, pause_id, given, actor, kind=kind, shown=shown)
    await store.answer(record.run_id, answer.pause_id, answer.value, actor=actor, seen=answer.seen)


def checked(
    record: RunRecord,
    pauses: Sequence[Pause],
    pause_id: str | None,
    given: Any,
    actor: Actor,
    *,
    kind: PauseKind,
    shown: Pause | None = None,
) -> GivenAnswer:
    """Return an answer to the pause of this kind that is meant, which it fits; see `record_answer`."""
    pause = chosen(record, pauses, pause_id, kind)
    seen = seen_digest(record.run_id, shown or pause)
    if pause.is_open and shown is not None:
        require_seen(record.run_id, pause, seen)
    if pause.kind is PauseKind.APPROVAL:
        _require_same_question(record, pause, given)
    if pause.answer_schema is not None:
        given = fitting_answer(pause, given)
    if kind is PauseKind.DOUBT and "result" in given and given["resolution"] != "done":
        raise InputRejected(
            f"a call that is resolved as `{given['resolution']}` has no result",
            hint="omit the result, or resolve the call as `done`",
        )
    value = GATE.admit(canonical.encode(GATE.entering(given), what="answer"), "answer")
    return GivenAnswer(pause_id=pause.pause_id, value=value, actor=actor, seen=seen)


def _require_same_question(record: RunRecord, pause: Pause, given: Any) -> None:
    """Refuse an approval of something else than this question is about.

    Raises:
        ResumeConflict: the answer has another digest.
        InputRejected: a denial changes the arguments.
    """
    if not isinstance(given, dict):
        return  # the schema refuses it
    if "digest" in given and given["digest"] != pause.digest:
        raise ResumeConflict(
            f"the approval at `{paths.shown(pause.pause_id)}` of run {record.run_id} was given for another "
            f"call: its digest is {given['digest']!r}, and that of the question is {pause.digest!r}",
            hint=f"`{command('flujo', 'tasks', 'show', record.run_id)}` shows the call that waits",
            run_id=record.run_id,
        )
    if given.get("approved") is False and "arguments" in given:
        raise InputRejected("a denied call has no arguments", hint="omit `arguments`, or approve the call")


async def seen_question(
    store: QuestionStore, record: RunRecord, pause_id: str | None, kind: PauseKind, digest: str
) -> Pause:
    """Return the question that an answer is for, which is the one that its author has seen or is settled.

    Raises:
        RunNotFound | AmbiguousPause | WrongPauseKind: see `record_answer`.
        ResumeConflict: there is no open question, or it is another one; the fact `open` has the open ones.
    """
    pauses = await store.pauses(record.run_id)
    pause = chosen(record, pauses, pause_id, kind)
    if pause.is_open and (asked := seen_digest(record.run_id, pause)) != digest:
        open_ones = [
            {"pause_id": each.pause_id, "message": each.message, "digest": seen_digest(record.run_id, each)}
            for each in pauses
            if each.needs_answer
        ]
        raise ResumeConflict(
            f"the question at `{paths.shown(pause.pause_id)}` of run {record.run_id} is not the one that was "
            f"answered: its digest is {asked!r}, and that of the answer is {digest!r}",
            hint="read the question again, and answer it with its digest",
            run_id=record.run_id,
            open=open_ones,
        )
    return pause


def chosen(record: RunRecord, pauses: Sequence[Pause], pause_id: str | None, kind: PauseKind) -> Pause:
    """Return the pause that is meant: the one that is named, or the only open one of this kind."""
    open_ones = [pause for pause in pauses if pause.needs_answer]
    if pause_id is not None:
        return _named(record, pauses, open_ones, pause_id, kind)
    if not open_ones:
        raise ResumeConflict(
            f"run {record.run_id} is {record.status}; only a paused run can be answered",
            hint=f"`{command('flujo', 'tasks', 'show', record.run_id)}` shows what it waits for"
            if record.status is RunStatus.WAITING
            else f"`{command('flujo', 'trace', record.run_id)}` shows what happened",
            status=record.status,
        )
    own = [pause for pause in open_ones if _has_verb_of(pause, kind)]
    if not own:
        raise _of_another_kind(record, open_ones[0], kind)
    if len(own) > 1:
        raise AmbiguousPause(
            f"run {record.run_id} has {len(own)} open {kind.name_of_several}: {_names(own)}",
            hint=f"choose one: {_settled_by(record, own[0])}",
            pauses=tuple(pause.pause_id for pause in own),
        )
    return own[0]


def _named(
    record: RunRecord, pauses: Sequence[Pause], open_ones: list[Pause], pause_id: str, kind: PauseKind
) -> Pause:
    meant = paths.find(pause_id, [pause.pause_id for pause in pauses])
    pause = next((each for each in pauses if each.pause_id == meant), None)
    if pause is None:
        raise RunNotFound(
            f"run {record.run_id} has no question {pause_id!r}",
            hint=f"open questions: {_names(open_ones)}" if open_ones else "the run has no open questions",
        )
    if not _has_verb_of(pause, kind):
        raise _of_another_kind(record, pause, kind)
    return pause


def _has_verb_of(pause: Pause, kind: PauseKind) -> bool:
    """Return whether the verb for pauses of `kind` settles this one: calls in doubt have their own verb."""
    return pause.kind.asks_human and (pause.kind is PauseKind.DOUBT) == (kind is PauseKind.DOUBT)


def _names(pauses: list[Pause]) -> str:
    return ", ".join(paths.shown(pause.pause_id) for pause in pauses)


def _of_another_kind(record: RunRecord, pause: Pause, wanted: PauseKind) -> WrongPauseKind:
    ends = f"`{command('flujo', 'worker')}` continues the run when the wait is over"
    if pause.event is not None:
        ends = f"use `{command('flujo', 'tasks', 'send', record.run_id, pause.event)}`"
    return WrongPauseKind(
        f"`{paths.shown(pause.pause_id)}` of run {record.run_id} is {pause.kind.name_of_one}, "
        f"not {wanted.name_of_one}",
        hint=f"use {_settled_by(record, pause)}" if pause.kind.asks_human else ends,
        pause_id=pause.pause_id,
        kind=str(pause.kind),
    )


def address(run_id: str, pause_id: StepPath) -> str:
    """Return a question as the command line reads it: `RUN:PAUSE`."""
    return f"{run_id}:{paths.for_command_line(pause_id)}"


def settled_by(target: str, pause: Pause) -> tuple[ShellCommand, str]:
    """Return the command that settles a pause, and what its words in capitals stand for."""
    if pause.kind is PauseKind.DOUBT:
        outcome = command("flujo", "tasks", "resolve", target, "--as", "OUTCOME")
        return outcome, f"OUTCOME: {either(['done', 'retry', 'fail'])}"
    if pause.kind is PauseKind.APPROVAL:
        fields = ("--field", "approved=APPROVED", "--field", f"digest={pause.digest}")
        more = "`--field reason=TEXT` gives the reason of a denial"
        if arguments_in(pause.answer_schema) is not None:
            more += "; `--field 'arguments={…}'` changes the arguments"
        return command("flujo", "tasks", "resume", target, *fields), f"APPROVED: true or false; {more}"
    if pause.kind is PauseKind.LIMIT:
        more = command("flujo", "tasks", "resume", target, "--field", "turns=TURNS")
        return more, "TURNS: a whole number; instead of it, `finish=true` or `fail=true`"
    if pause.kind is PauseKind.BUDGET:
        again = command("flujo", "tasks", "resume", target, "--field", "again=true")
        run = target.partition(":")[0]
        raised = command("flujo", "resume", run, "--set", "budget.RULE.LIMIT=AMOUNT")
        return again, f"tries it now; `{raised}` raises the limit for this run"
    if pause.kind is PauseKind.STUB:
        permitted = command("flujo", "tasks", "resume", target, "--field", "call=true")
        return permitted, "makes the call; `--field result=RESULT` replaces it"
    if pause.event is not None:
        payload = example(canonical.decode(pause.answer_schema) if pause.answer_schema else None)
        run = target.partition(":")[0]
        return command("flujo", "tasks", "send", run, pause.event, *payload.options), payload.values
    answer = example(canonical.decode(pause.answer_schema) if pause.answer_schema else None)
    return command("flujo", "tasks", "resume", target, *answer.options), answer.values


def way_to_settle(target: str, pause: Pause) -> str:
    """Return the command that settles a pause, with the meaning of its words, for a hint."""
    settling, meaning = settled_by(target, pause)
    return f"`{settling}` ({meaning})" if meaning else f"`{settling}`"


def _settled_by(record: RunRecord, pause: Pause) -> str:
    return way_to_settle(address(record.run_id, pause.pause_id), pause)


def fitting_answer(pause: Pause, given: Any) -> Any:
    """Return an answer that fits its question's schema: wrong types are corrected where they are certain.

    Raises:
        InputRejected: naming what does not fit.
    """
    from flujo.blueprint.schemas.validator import compile_schema

    compiled = compile_schema(canonical.decode(pause.answer_schema or b"true"))
    value, _ = compiled.coerced(canonical.normalise(given, what="answer"))
    try:
        return compiled.check(value, what=f"answer to `{paths.shown(pause.pause_id)}`")
    except OutputRejected as error:
        raise InputRejected(error.message, hint=error.hint, violations=error.violations) from None
