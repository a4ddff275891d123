"""Sends an event from the command line, and says what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.exceptions import SettingsError
from flujo.services.inspection import formatting
from flujo.services.inspection.views import delivery_data
from flujo.services.project.inputs import json_or_text, read_input
from flujo.services.runs.sending import pinned_pipeline, schema_for, send_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.invocation import Invocation
    from flujo.cli.terminal import Terminal
    from flujo.domain.acts import Actor
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import RunRecord
    from flujo.domain.sent_events import Delivery
    from flujo.services.project.inputs import Given
    from flujo.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Address:
    """The event, and the run or the key that it is for."""

    event: str
    run: str | None
    key: str | None
    to_all: bool

    @classmethod
    def of(cls, words: Sequence[str], key: str | None, *, to_all: bool) -> Address:
        """Return what `[RUN] EVENT` and the options say.

        Raises:
            SettingsError: a word is missing, or one too many.
        """
        if len(words) == (1 if key is not None else 2):
            return cls(words[-1], None if key is not None else words[0], key, to_all)
        form = "`flujo tasks send --key KEY EVENT`" if key is not None else "`flujo tasks send RUN EVENT`"
        raise SettingsError(f"an event and its address are not {len(words)} words", hint=f"write {form}")


def send(
    invocation: Invocation,
    address: Address,
    given: Given,
    *,
    event_id: str | None,
    actor: Actor,
    as_json: bool,
) -> None:
    """Send an event with the given payload; without a known schema, text that is JSON is JSON."""

    async def work(workspace: Workspace) -> Delivery:
        store = await workspace.store()

        async def pipeline_of(record: RunRecord) -> Pipeline | None:
            return await pinned_pipeline(workspace, store, record)

        schema = await schema_for(store, address.event, address.run, address.key, pipeline_of)
        payload = read_input(schema, given, what=f"the payload of event {address.event!r}")
        if schema is None and isinstance(payload.value, str):
            payload = replace(payload, value=json_or_text(payload.value))
        if payload.note:
            invocation.terminal.say(payload.note, "dim")
        return await send_event(
            store,
            address.event,
            payload.value,
            run_id=address.run,
            key=address.key,
            to_all=address.to_all,
            event_id=event_id,
            actor=actor,
            pipeline_of=pipeline_of,
        )

    delivery = in_workspace(invocation, work, creates=address.key is not None)
    if as_json:
        invocation.terminal.json(delivery_data(delivery))
    show_delivery(invocation.terminal, delivery, to_all=address.to_all, as_json=as_json)


def show_delivery(terminal: Terminal, delivery: Delivery, *, to_all: bool, as_json: bool) -> None:
    """Write what became of an event that was sent."""
    if not as_json:
        for each in delivery.taken:
            terminal.data(f"taken by {each.run_id} at {shown(each.path)}")
    if delivery.is_repeated:
        terminal.say(f"event {delivery.event_id} was sent before; nothing has changed")
    elif not delivery.taken and to_all:
        terminal.say("no run waits for this event now, so no run gets it", "yellow")
    elif not delivery.taken:
        terminal.say(f"event {delivery.event_id} is kept for 7 days: no run waits for it yet", "yellow")
    else:
        terminal.say("a worker or an open runner of its pipeline continues the run")
        first = delivery.taken[0].run_id
        terminal.next(command("flujo", "resume", formatting.short_id(first)), "continue it here")
