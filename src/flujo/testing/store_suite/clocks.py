"""A wrong clock of the caller's machine does not affect leases, deadlines or the order of runs."""

from __future__ import annotations

import asyncio
import time

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, RunStatus, Write
from flujo.exceptions import ResumeConflict
from flujo.testing.store_suite.examples import NEVER_S, RUN, SHORT_S, OpenStore, listed, new_run

DAY_S = 86_400.0
HOUR_S = 3_600.0

set_off = pytest.mark.parametrize("skew_s", [DAY_S, -DAY_S], ids=["a day ahead", "a day behind"])


class ClocksSuite:
    """The store uses its own time."""

    @set_off
    async def test_a_wrong_local_clock_expires_no_lease_and_no_deadline(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, skew_s: float
    ) -> None:
        right, wrong = await open_store(), await open_store()
        run = await right.accept(new_run(), {})
        question = Pause(pause_id=StepPath("q"), message="?", deadline_s=HOUR_S)
        await right.write(Write(run_id=RUN, fence=run.fence, pauses=(question,)))
        _set_off(monkeypatch, skew_s)
        assert (await wrong.due()).questions == ()
        assert (await wrong.due()).runs == ()
        assert not (await wrong.expire(RUN, StepPath("q"))).is_expired
        with pytest.raises(ResumeConflict):
            await wrong.claim(RUN, statuses=[RunStatus.RUNNING])

    @set_off
    async def test_a_wrong_local_clock_prolongs_no_lease_and_no_deadline(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, skew_s: float
    ) -> None:
        _set_off(monkeypatch, skew_s)
        wrong, right = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        run = await wrong.accept(new_run(), {})
        question = Pause(pause_id=StepPath("q"), message="?", deadline_s=0.0)
        await wrong.write(Write(run_id=RUN, fence=run.fence, pauses=(question,)))
        monkeypatch.undo()
        await asyncio.sleep(SHORT_S * 1.5)
        assert (await right.due()).questions == ((RUN, StepPath("q")),)
        assert (await right.due()).runs == (RUN,)
        assert (await right.claim(RUN, statuses=[RunStatus.RUNNING])).fence == 2

    @set_off
    async def test_runs_are_in_order_however_the_clocks_jump(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, skew_s: float
    ) -> None:
        store = await open_store()
        for number, off in enumerate((0.0, skew_s, -skew_s, 0.0)):
            _set_off(monkeypatch, off)
            await store.accept(new_run(f"run-{number}"), {})
        assert await listed(store) == [f"run-{number}" for number in (3, 2, 1, 0)]
        assert (await store.find("@last")).run_id == RunId("run-3")


def _set_off(monkeypatch: pytest.MonkeyPatch, skew_s: float) -> None:
    """Shift the clock of this process."""
    monkeypatch.undo()
    right = time.time
    monkeypatch.setattr("time.time", lambda: right() + skew_s)
