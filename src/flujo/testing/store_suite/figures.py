"""Figures of runs and of model calls: added up by period and group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.figures import Every, FigureGroup, FigureQuery
from flujo.domain.journal import UNFINISHED, EntryKind, EntryStatus, RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent, RunKind
from flujo.domain.reach import Reach
from flujo.domain.run import RunStatus
from flujo.domain.usage import Usage
from flujo.testing.store_suite.examples import entry, in_state, move, new_run, writes

if TYPE_CHECKING:
    from flujo.domain.figures import Figure
    from flujo.domain.journal import Entry
    from flujo.domain.store import StateStore

LATER = 4e9


async def _found(store: StateStore, **conditions: Any) -> list[Figure]:
    return await store.figures(FigureQuery(**{"since": 0.0, "until": LATER, **conditions}))


def _call(seq: int, *, seconds: float, **changes: Any) -> Entry:
    detail = {"agent": "writer", "model": "test:large", **changes.pop("detail", {})}
    usage = Usage(input_tokens=100, output_tokens=10, requests=1, cost_micro_usd=2_000)
    return entry(
        seq,
        **{"usage": usage, "started_at": 50.0, "ended_at": 50.0 + seconds, **changes},
        detail=canonical.encode(detail),
    )


class FiguresSuite:
    """Figures count what the conditions allow, once."""

    async def test_runs_are_counted_by_blueprint_and_status(self, store: StateStore) -> None:
        used = Usage(input_tokens=7, cost_micro_usd=5, unpriced_requests=1)
        for number, (pipeline, status) in enumerate(
            [("triage", RunStatus.COMPLETED)] * 3 + [("triage", RunStatus.FAILED), ("report", None)]
        ):
            run = await store.accept(new_run(f"r{number}", pipeline=pipeline), {})
            if status is not None:
                await store.write(move(run, status, usage=used))
        other = Parent(run_id=RunId("r0"), path=StepPath(""), entry="polite", kind=RunKind.EVAL)
        await store.accept(new_run("e-1", parent=other), {})
        report, triage = await _found(store)
        assert (report.name, report.statuses, report.usage) == ("report", {"running": 1}, Usage())
        assert (report.p50_s, report.p95_s) == (None, None)
        assert (triage.name, triage.statuses) == ("triage", {"completed": 3, "failed": 1})
        assert triage.usage == Usage(input_tokens=28, cost_micro_usd=20, unpriced_requests=4)
        assert triage.p50_s is not None
        assert triage.p95_s is not None
        assert 0 <= triage.p50_s <= triage.p95_s < 60

    async def test_the_conditions_choose_runs(self, store: StateStore) -> None:
        for name, team in (("a", "north"), ("b", "south"), ("c", "north")):
            await store.accept(new_run(name, pipeline=f"p{name}", metadata={"team": team}), {})
        at = (await store.run(RunId("b"))).created_at
        north = Reach(metadata={"team": "north"})
        for conditions, names in (
            ({"pipeline": "pb"}, ["pb"]),
            ({"reach": north}, ["pa", "pc"]),
            ({"reach": north, "by": FigureGroup.MODEL}, []),
            ({"since": at + 3600}, []),
            ({"until": at - 3600}, []),
        ):
            assert [each.name for each in await _found(store, **conditions)] == names

    async def test_a_period_begins_with_the_hour_in_utc(self, store: StateStore) -> None:
        await in_state(store, RunStatus.COMPLETED, "a")
        run = await store.run(RunId("a"))
        [hour], [whole] = await asyncio.gather(_found(store, every=Every.HOUR), _found(store, since=1.5))
        assert hour.at == run.created_at // 3600 * 3600
        assert whole.at == 1.5
        assert hour.statuses == whole.statuses == {"completed": 1}

    async def test_model_calls_are_counted_by_agent_and_by_model(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        calls = [_call(seq, seconds=float(seq)) for seq in range(1, 21)]
        small = {"detail": {"model": "test:small"}}
        await store.write(
            writes(
                run,
                *calls,
                _call(21, seconds=90, status=EntryStatus.FAILED, **small),
                _call(22, seconds=90, kind=EntryKind.DECISION, fingerprint=UNFINISHED, **small),
                _call(23, seconds=1, detail={"agent": None, "model": None}),
                entry(24, usage=Usage(requests=1)),
                entry(25),
            )
        )
        nameless, large, small_one = await _found(store, by=FigureGroup.MODEL)
        assert (nameless.name, nameless.statuses) == ("", {"completed": 2})
        assert (large.name, large.statuses) == ("test:large", {"completed": 20})
        assert large.usage == Usage(input_tokens=2000, output_tokens=200, requests=20, cost_micro_usd=40_000)
        assert (large.p50_s, large.p95_s) == (10.0, 19.0)
        assert (small_one.name, small_one.statuses) == ("test:small", {"failed": 1, "unfinished": 1})
        assert (small_one.p50_s, small_one.usage.requests) == (None, 2)
        by_agent = await _found(store, by=FigureGroup.AGENT, every=Every.HOUR)
        assert [(each.name, each.count) for each in by_agent] == [("", 2), ("writer", 22)]
