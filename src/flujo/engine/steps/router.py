"""`router`: an agent or a callable chooses which branches run, all of them at once."""

from __future__ import annotations

import asyncio
import reprlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask, answered_by
from flujo.domain.journal import TRANSCRIPT, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.outcomes import Failure, StepOutcome
from flujo.domain.paths import shown
from flujo.engine.attempt import Attempt
from flujo.engine.attempt_costs import note_unfinished, spent
from flujo.engine.branches import run_branches
from flujo.engine.decisions import decision
from flujo.engine.journal import STOPS_THE_WALK
from flujo.engine.limits import budget_hit, remember
from flujo.engine.step_meter import StepMeter
from flujo.engine.transcripts import encoded_detail, transcript_of
from flujo.exceptions import ControlSignal, JournalConflict, UnknownBranch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.agents import Meter, Reply
    from flujo.domain.journal import Entry
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import DynamicParallelRouterStep
    from flujo.engine.frame import Frame, RunBody

MOST_ATTEMPTS = 2
"""The maximum number of answers of a router: the second one follows an unknown branch."""


async def run(
    step: DynamicParallelRouterStep, frame: Frame, path: StepPath, run_body: RunBody
) -> StepOutcome:
    """Return `{branch: output}` of the chosen branches, or the value of `output`.

    Raises:
        MergeConflict: two branches wrote one field of the context and `merge` does not decide.
    """
    await frame.run.journal.load_level(path)
    chosen = await _choose(step, frame, path)
    if isinstance(chosen, Failure):
        return chosen
    return await run_branches(step, frame, path, run_body, chosen)


async def _choose(step: DynamicParallelRouterStep, frame: Frame, path: StepPath) -> list[str] | Failure:
    """Return the branches that the router chooses; the choice is durable before they start.

    A router that chooses an unknown branch gets the error and one more attempt. Every answer is an attempt of
    the same decision, and its usage counts.
    """
    known = [entry for entry in frame.run.journal.attempts(path, EntryKind.DECISION) if entry.attempt]
    attempt = known[-1].attempt if known else 0
    if known and known[-1].status is EntryStatus.COMPLETED:
        frame.run.journal.keeps(path, known[-1].input, partial(_given, step, frame))
        return _still_there(step, frame, path, _names(known[-1]))
    failures = [_error(entry) for entry in known if entry.seq > frame.since]
    cause: Exception | None = None
    while len(failures) < MOST_ATTEMPTS and all(failure.code == UnknownBranch.code for failure in failures):
        attempt += 1
        entry, cause = await _attempt(step, frame, path, attempt, failures)
        if cause is None:
            return _names(entry)
        failures.append(_error(entry))
    if cause is None:
        remember(frame, known[-1], failures[-1])
    return Failure(failures[-1], cause)


async def _attempt(
    step: DynamicParallelRouterStep,
    frame: Frame,
    path: StepPath,
    attempt: int,
    failures: Sequence[ErrorInfo],
) -> tuple[Entry, Exception | None]:
    """Return the recorded answer of the router after these failures, and the error if it cannot be used."""
    started_at = frame.run.clock.now()
    data = _given(step, frame)
    entry = replace(decision(frame, path, attempt, None), started_at=started_at, input=data)
    reason = failures[-1].message if failures else None
    meter = StepMeter.of(frame.budget, path, frame.run.journal)
    reply: Reply | None = None
    cause: Exception | None = None
    try:
        reply = await frame.ask(path, step.router, _question(step, frame, data, reason, meter))
        chosen = _chosen(step, reply.output)
        entry = replace(entry, output=canonical.encode(chosen), usage=reply.usage)
    except STOPS_THE_WALK:
        raise
    except (ControlSignal, asyncio.CancelledError) as signal:
        asking = Attempt(step, frame, path, attempt, EntryKind.DECISION, started_at, meter=meter)
        note_unfinished(asking, signal)
        raise
    except Exception as error:  # noqa: BLE001 - foreign code: any exception fails the attempt
        failure = canonical.encode(frame.run.journal.error_info(error, path).to_json())
        used = spent(error) if reply is None else reply.usage
        entry = replace(entry, status=EntryStatus.FAILED, output=None, error=failure, usage=used)
        cause = error
    detail = (answered_by(step.router, reply.model) if reply else {}) | budget_hit(cause)
    if (said := transcript_of(cause) if reply is None else reply.transcript) is not None:
        detail[TRANSCRIPT] = said
    if meter is not None:
        meter.close(entry.usage)
    is_retried = isinstance(cause, UnknownBranch) and len(failures) + 1 < MOST_ATTEMPTS
    kept = encoded_detail(detail, frame.run, is_retried=is_retried)
    entry = replace(entry, detail=kept, ended_at=frame.run.clock.now())
    return await frame.run.journal.record(entry), cause


def _given(step: DynamicParallelRouterStep, frame: Frame) -> bytes:
    given = frame.previous if step.input is None else frame.render(step.input)
    return canonical.encode(given, what=f"input of step {step.name!r}")


def _question(
    step: DynamicParallelRouterStep, frame: Frame, data: bytes, reason: str | None, meter: Meter | None
) -> Ask:
    spec = step.router if isinstance(step.router, AgentSpec) else None
    instructions = frame.render(spec.instructions) if spec and spec.instructions else None
    if reason is not None:
        prompt = f"Your last answer cannot be used: {reason}. Answer again, with names of branches only."
        instructions = f"{instructions}\n\n{prompt}" if instructions else prompt
    agent = frame.run.binding.agent(step.router)
    return Ask(
        data=canonical.decode(data),
        instructions=instructions,
        output_schema=_schema(step) if spec else None,
        context=frame.scope.view() if agent.wants_context else None,
        resources=frame.run.resources,
        meter=meter,
        **frame.personal_data(None),
    )


def _schema(step: DynamicParallelRouterStep) -> dict[str, Any]:
    return {"type": "array", "items": {"enum": [*step.branches]}, "minItems": 1, "uniqueItems": True}


def _chosen(step: DynamicParallelRouterStep, answer: Any) -> list[str]:
    """Return the names in an answer, in the order of declaration; a single name counts as a list."""
    names = [answer] if isinstance(answer, str) else answer
    problem = None
    if not isinstance(names, list | tuple) or not names:
        problem = f"answered {reprlib.repr(answer)}, which names no branch"
    elif unknown := [name for name in names if not isinstance(name, str) or name not in step.branches]:
        problem = f"chose {reprlib.repr(unknown[0])}, which is not a branch"
    if problem is not None:
        raise UnknownBranch(
            f"the router of step {step.name!r} {problem}; the branches are {', '.join(step.branches)}",
            answer=answer,
        )
    return [name for name in step.branches if name in names]


def _names(entry: Entry) -> list[str]:
    names: list[str] = canonical.decode(entry.output or b"[]")
    return names


def _still_there(
    step: DynamicParallelRouterStep, frame: Frame, path: StepPath, names: list[str]
) -> list[str]:
    """Return recorded names.

    Raises:
        JournalConflict: one is not a branch any more, so that the run would leave it out.
    """
    gone = next((name for name in names if name not in step.branches), None)
    if gone is not None:
        frame.run.journal.differs(
            JournalConflict(
                f"the choice at `{shown(path)}` is recorded as `{gone}`, and there is no such branch "
                "any more",
                hint="restore the branch, or name its new one in `migrations`",
                path=path,
                recorded=names,
                now=[*step.branches],
            )
        )
    return names


def _error(entry: Entry) -> ErrorInfo:
    return ErrorInfo.from_json(canonical.decode(entry.error or b"{}"))
