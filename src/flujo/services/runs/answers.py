"""Answers: which question of a paused run is meant, and whether an answer fits it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.exceptions import AmbiguousPause, InputRejected, OutputRejected, ResumeConflict, RunNotFound
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.acts import Actor
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import QuestionStore


async def record_answer(
    store: QuestionStore, record: RunRecord, pause_id: str | None, given: Any, actor: Actor
) -> None:
    """Record the answer to a question of a run, and who gave it; committed when this returns.

    Raises:
        RunNotFound: no such question.
        AmbiguousPause: several questions are open and `pause_id` names none.
        InputRejected: the answer does not fit the question's schema.
        ResumeConflict: the run has no open question, or another answer was recorded first.
        SecretInValue: the answer contains a known secret.
    """
    pause = chosen(record, await store.pauses(record.run_id), pause_id)
    if pause.answer_schema is not None:
        check_answer(pause, given)
    value = GATE.admit(canonical.encode(given, what="answer"), "answer")
    await store.answer(record.run_id, pause.pause_id, value, actor=actor)


def chosen(record: RunRecord, pauses: list[Pause], pause_id: str | None) -> Pause:
    """Return the question that is meant: the one that is named, or the only one that is open."""
    open_ones = [pause for pause in pauses if pause.is_open]
    names = ", ".join(paths.shown(pause.pause_id) for pause in open_ones)
    if pause_id is not None:
        meant = paths.find(pause_id, [pause.pause_id for pause in pauses])
        for pause in pauses:
            if pause.pause_id == meant:
                return pause
        raise RunNotFound(
            f"run {record.run_id} has no question {pause_id!r}",
            hint=f"open questions: {names}" if names else "the run has no open questions",
        )
    if not open_ones:
        raise ResumeConflict(
            f"run {record.run_id} is {record.status}; only a paused run can be answered",
            hint=f"`flujo trace {record.run_id}` shows what happened",
            status=record.status,
        )
    if len(open_ones) > 1:
        raise AmbiguousPause(
            f"run {record.run_id} waits for {len(open_ones)} answers: {names}",
            hint=f"choose one: `flujo tasks resume {address(record.run_id, open_ones[0].pause_id)} …`",
            pauses=tuple(pause.pause_id for pause in open_ones),
        )
    return open_ones[0]


def address(run_id: str, pause_id: StepPath) -> str:
    """Return a question as a user types it on the command line, quoted where a shell needs that."""
    return shlex.quote(f"{run_id}:{paths.for_command_line(pause_id)}")


def check_answer(pause: Pause, given: Any) -> None:
    """Return when an answer fits its question's schema.

    Raises:
        InputRejected: naming what does not fit.
    """
    from flujo.blueprint.schemas.validator import compile_schema

    try:
        compile_schema(canonical.decode(pause.answer_schema or b"true")).check(
            canonical.normalise(given, what="answer"), what=f"answer to `{paths.shown(pause.pause_id)}`"
        )
    except OutputRejected as error:
        raise InputRejected(error.message, hint=error.hint) from None
