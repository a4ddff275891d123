"""A child process for a run that may end it: its events, its death, and a stop of the worker."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from flujo.services.runs import isolation
from flujo.services.runs.isolation import Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping

BEGUN = {"event": "begun", "run_id": "r1", "pipeline": "triage"}
ENDED = {"event": "ended", "run_id": "r1", "pipeline": "triage", "detail": "completed"}


class Child:
    """An isolation whose children are a shell script."""

    def __init__(self, script: str, *suspects: str) -> None:
        self.told: list[Mapping[str, Any]] = []
        self._suspects = list(suspects)
        self.isolation = Isolation(["sh", "-c", script], self._suspect, self.told.append)

    async def _suspect(self) -> str | None:
        return self._suspects.pop(0) if self._suspects else None


def says(*events: Mapping[str, Any]) -> str:
    """Return a script that writes events."""
    return "".join(f"echo '{json.dumps(event)}'; " for event in events)


@pytest.mark.parametrize(
    ("ends", "how"),
    [("kill -SEGV $$", "SIGSEGV"), ("exit 3", "exit code 3"), ("kill -40 $$", "signal 40")],
)
async def test_the_death_of_a_child_is_reported_for_the_run_that_it_executed(ends: str, how: str) -> None:
    child = Child(says(BEGUN) + ends, "r1")
    assert await child.isolation.look() == 1
    assert await child.isolation.look() == 0, "one at a time"
    await child.isolation.settled()
    detail = f"it ended its process, in which it was alone: {how}"
    assert child.told == [BEGUN, {**BEGUN, "event": "failed", "detail": detail}]
    await child.isolation.aclose()


@pytest.mark.parametrize("events", [(BEGUN, ENDED), (ENDED,)])
async def test_after_a_run_that_has_ended_or_was_parked_the_next_one_begins(events: Any) -> None:
    child = Child(says(*events), "r1", "r2")
    for _ in range(2):
        assert await child.isolation.look() == 1
        await child.isolation.settled()
    assert await child.isolation.look() == 0, "there is none left"
    assert child.told == [*events, *events]


@pytest.mark.parametrize("script", ["exit 0", says({"event": "skipped", "run_id": "r1"}), "exit 1"])
async def test_after_a_child_that_found_nothing_to_execute_none_is_started_for_a_while(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(script, "r1", "r2")
    await child.isolation.look()
    await child.isolation.settled()
    assert await child.isolation.look() == 0
    monkeypatch.setattr(isolation, "REST_S", 0.0)
    child = Child(script, "r1", "r2")
    for _ in range(2):
        assert await child.isolation.look() == 1
        await child.isolation.settled()


async def test_a_command_that_cannot_be_started_ends_no_worker() -> None:
    told: list[Any] = []

    async def suspect() -> str:
        return "r1"

    broken = Isolation(["/nowhere/python"], suspect, told.append)
    assert await broken.look() == 1
    await broken.settled()
    assert (await broken.look(), told) == (0, [])


@pytest.mark.parametrize(("traps", "end_s"), [("", 20.0), ("trap '' TERM;", 0.1)])
async def test_a_stop_ends_the_child_also_when_it_does_not_listen(
    traps: str, end_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_END_S", end_s)
    child = Child(f"{traps} {says(BEGUN)} exec sleep 600", "r1")
    await child.isolation.look()
    async with asyncio.timeout(30):
        while not child.told:  # noqa: ASYNC110 - it observes from outside, like a user
            await asyncio.sleep(0.01)
        await child.isolation.aclose()
        await child.isolation.aclose()
    assert await child.isolation.look() == 0
