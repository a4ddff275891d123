"""Sends events to runs: checks what the sender says against what is known of the run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.paths import shown
from flujo.domain.sent_events import MAX_KEY, Delivery, NewEvent, is_event_id, is_event_name
from flujo.domain.wording import repr_short, suggest
from flujo.exceptions import EventRefused, FlujoError, InputRejected, SettingsError
from flujo.governance.sink import GATE
from flujo.services.given import text, text_or_none
from flujo.services.project.system import SystemRandom
from flujo.services.runs.chains import find_last
from flujo.services.runs.run_services import is_python, pinned_blueprint
from flujo.state.events import misfit, waits_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline, Question
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.sent_events import SentEvent
    from flujo.domain.store import StateStore
    from flujo.services.workspace import Workspace

    PipelineOf = Callable[[RunRecord], Awaitable[Pipeline | None]]


async def send_event(
    store: StateStore,
    event: Any,
    payload: Any,
    *,
    run_id: Any = None,
    key: Any = None,
    to_all: bool = False,
    event_id: Any = None,
    actor: Actor,
    pipeline_of: PipelineOf,
) -> Delivery:
    """Send an event to a run, or to the run that waits for its name and key; committed when this returns.

    Args:
        store: the store with the runs.
        event: the name of the event.
        payload: JSON data.
        run_id: the run, by its id, a unique prefix of it, or `@last`.
        key: the key, instead of a run.
        to_all: with a key: whether every run takes it that waits now.
        event_id: the sender's id of the event; None for a new one.
        actor: who sends it.
        pipeline_of: returns the pipeline of a run, or None where it is not known.

    Raises:
        SettingsError: an argument is missing or has a wrong form.
        RunNotFound: no run, or more than one, is meant.
        EventRefused: the run has ended, or no step of it waits for this event.
        EventConflict: the id is taken by another event.
        InputRejected: the payload does not fit.
        SecretInValue: the payload contains a known secret.
    """
    name = _name(event)
    chosen_key = _key(key)
    _require_one_address(run_id, chosen_key, to_all=to_all)
    given = GATE.entering(canonical.normalise(payload, what="payload"))
    value = GATE.admit(canonical.encode(given, what="payload"), "payload")
    record = None if run_id is None else await find_last(store, text(run_id, "run_id"))
    if record is not None and not record.status.is_settled:
        await _require_expected(store, record, name, value, pipeline_of)
    return await _sent(
        store,
        NewEvent(
            event_id=SystemRandom().run_id() if event_id is None else _id(event_id),
            name=name,
            payload=value,
            actor=actor,
            run_id=None if record is None else record.run_id,
            key=chosen_key,
            to_all=to_all,
        ),
    )


async def _sent(store: StateStore, event: NewEvent) -> Delivery:
    """Send an event, to the run that continues its own one if that has ended meanwhile."""
    try:
        return await store.send_event(event)
    except EventRefused:
        last = None if event.run_id is None else (await find_last(store, event.run_id)).run_id
        if last == event.run_id:
            raise
        return await _sent(store, replace(event, run_id=last))


async def schema_for(
    store: StateStore, event: str, run_id: str | None, key: str | None, pipeline_of: PipelineOf
) -> Any:
    """Return the JSON Schema of the payload that a run or a key expects; None where it is not known."""
    if run_id is None:
        schemas = [wait.answer_schema for _, wait in await store.event_waits(event, key or "")]
    else:
        record = await find_last(store, run_id)
        schemas = [pause.answer_schema for pause in _open(await store.pauses(record.run_id), event)]
        schemas = schemas or _schemas(_waits_of(await pipeline_of(record), event))
    only = schemas[0] if len(set(schemas)) == 1 else None
    return None if only is None else canonical.decode(only)


def unfit(wait: Pause, event: SentEvent) -> str | None:
    """Return why an open wait does not take a kept event of its name; None for an event of another name."""
    return misfit(wait.answer_schema, event.payload) if waits_for(wait, event) else None


def _waits_of(pipeline: Pipeline | None, name: str | None = None) -> list[tuple[StepPath, Question]]:
    """Return where a pipeline waits for events, or only for the event of this name."""
    steps = () if pipeline is None else pipeline.walk()
    waits = [(path, step.question) for path, step in steps if step.question and step.question.event]
    return [(path, wait) for path, wait in waits if name is None or wait.event == name]


def _schemas(waits: Sequence[tuple[StepPath, Question]]) -> list[bytes | None]:
    schemas = [wait.answer_schema for _, wait in waits]
    return [None if schema is None else canonical.encode(schema) for schema in schemas]


async def pinned_pipeline(
    ws: Workspace, store: StateStore, record: RunRecord, *, is_read: bool = False
) -> Pipeline | None:
    """Return the pipeline of a blueprint's run; None when it is written in Python or cannot be read here.

    With `is_read`, the project needs neither its callables nor its servers: it is never executed.
    """
    if not is_python(record):
        with suppress(FlujoError):
            return (await pinned_blueprint(ws, store, record, is_read=is_read)).pipeline
    return None


async def _require_expected(
    store: StateStore, record: RunRecord, name: str, payload: bytes, pipeline_of: PipelineOf
) -> None:
    """Refuse an event for which no wait is open now, if the run will never take it."""
    if _open(await store.pauses(record.run_id), name):
        return  # the store checks the payload, in the transaction that settles the wait
    pipeline = await pipeline_of(record)
    if pipeline is None:
        return
    waits = _waits_of(pipeline, name)
    if not waits:
        names = sorted({wait.event or "" for _, wait in _waits_of(pipeline)})
        raise EventRefused(
            f"no step of run {record.run_id} waits for the event {name!r}",
            hint=suggest(name, names, what="its events") if names else "it has no step of `kind: event`",
            run_id=record.run_id,
            event=name,
        )
    reasons = [misfit(schema, payload) for schema in _schemas(waits)]
    if all(reasons):
        raise InputRejected(
            f"the payload of event {name!r} does not fit what `{shown(waits[0][0])}` of run {record.run_id} "
            f"expects: {reasons[0]}",
            hint="the step's `event_schema` says what the payload must be; nothing was recorded",
        )


def _open(pauses: Sequence[Pause], name: str) -> list[Pause]:
    return [pause for pause in pauses if pause.is_open and pause.event == name]


def _require_one_address(run_id: Any, key: str | None, *, to_all: bool) -> None:
    if (run_id is None) is (key is None):
        both = "a run and a key" if key is not None else "neither a run nor a key"
        raise SettingsError(
            f"the event has {both}", hint="name the run that it is for, or the key of its wait"
        )
    if to_all and key is None:
        raise SettingsError(
            "an event to all waiting runs has no key", hint="send it with a key instead of a run"
        )


def _name(given: Any) -> str:
    name = text(given, "event")
    if not is_event_name(name):
        raise SettingsError(
            f"{repr_short(name)} is not the name of an event",
            hint="use letters, digits and `_ . : -`, at most 128, with a letter or `_` first: `order.paid`",
        )
    return name


def _key(given: Any) -> str | None:
    key = text_or_none(given, "key")
    if key is not None and (not 0 < len(key) <= MAX_KEY or "\x00" in key):
        raise SettingsError(f"`key` is {repr_short(key)}", hint=f"a key has 1 to {MAX_KEY} characters")
    return key


def _id(given: Any) -> str:
    event_id = text(given, "event_id")
    if not is_event_id(event_id):
        raise SettingsError(
            f"{repr_short(event_id)} cannot be the id of an event",
            hint="use letters, digits and `. _ : / + = -`, at most 200, with a letter or digit first",
        )
    return event_id
