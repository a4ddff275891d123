"""The agent of a conversation: recorded when it begins, and compared when it continues."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind
from flujo.domain.wording import listed
from flujo.exceptions import AgentChanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame


async def require_same_agent(traits: Mapping[str, Any], step: BaseStep, frame: Frame, path: StepPath) -> None:
    """Record the agent when a conversation begins, and compare it when the conversation continues.

    Raises:
        AgentChanged: it differs, and the change is not accepted.
    """
    journal, now = frame.run.journal, canonical.normalise(traits, what=f"agent of step {step.name!r}")
    recorded = [entry for entry in journal.attempts(path, EntryKind.DECISION) if entry.attempt > 0]
    if not recorded:
        journal.append_deferred(_agent_entry(step, frame, path, now, 1))
        return
    before = canonical.decode(recorded[-1].output or b"{}")
    changed = tuple(_differences(before, now))
    if not changed:
        return
    if not frame.run.accept_changes:
        journal.differs(
            AgentChanged(
                f"step {step.name!r}: the agent has changed since its conversation began: {listed(changed)}",
                path=path,
                changed=changed,
                recorded=before,
                now=now,
            )
        )
        return
    detail = canonical.encode({"accepted": list(changed)})
    await journal.record(replace(_agent_entry(step, frame, path, now, len(recorded) + 1), detail=detail))


def _agent_entry(step: BaseStep, frame: Frame, path: StepPath, traits: Any, number: int) -> Entry:
    at = frame.run.clock.now()
    return Entry(
        path=path,
        kind=EntryKind.DECISION,
        attempt=number,
        fingerprint=step.kind,
        output=canonical.encode(traits),
        started_at=at,
        ended_at=at,
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two agents, in words."""
    keys = [key for key in sorted({*before, *now}) if key != "tools" and before.get(key) != now.get(key)]
    tools, others = before.get("tools", {}), now.get("tools", {})
    names = [name for name in sorted({*tools, *others}) if tools.get(name) != others.get(name)]
    return [*keys, *(f"tool {name}" for name in names)]
