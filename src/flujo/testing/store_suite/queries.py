"""Listings of runs, with conditions that may be hostile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.reach import Reach
from flujo.domain.run import (
    Pause,
    PauseKind,
    RunCondition,
    RunCursor,
    RunGroup,
    RunOrder,
    RunQuery,
    RunStatus,
    Write,
)
from flujo.exceptions import (
    SettingsError,
)
from flujo.testing.store_suite.examples import (
    NEVER_S,
    RUN,
    SHORT_S,
    OpenStore,
    ask,
    in_state,
    listed,
    move,
    new_run,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


_TEAMS = [("a", "triage", "north"), ("b", "triage", "south"), ("c", "report", "north")]


class QueriesSuite:
    """A listing has exactly the runs that match its conditions."""

    async def test_matching_runs_are_listed_newest_first(self, store: StateStore) -> None:
        for number in range(5):
            await store.accept(new_run(f"run-{number}", user_id="ann" if number % 2 else "bob"), {})
        first = await store.run(RunId("run-0"))
        await store.write(move(first, RunStatus.COMPLETED))
        await store.accept(new_run("other", pipeline="other"), {})
        assert await listed(store) == ["other", "run-4", "run-3", "run-2", "run-1", "run-0"]
        assert await listed(store, limit=2) == ["other", "run-4"]
        assert await listed(store, statuses=(RunStatus.COMPLETED, RunStatus.FAILED)) == ["run-0"]
        assert await listed(store, pipeline="triage", user_id="ann") == ["run-3", "run-1"]

    async def test_metadata_is_compared_as_json(self, store: StateStore) -> None:
        quoted = 'it\'s "so" \\ %'
        kinds: dict[str, Any] = {
            "bool": True,
            "float": 1.0,
            "int": 1,
            "list": [1],
            "null": None,
            "quoted": quoted,
            "text": "1",
        }
        for name, value in kinds.items():
            await store.accept(new_run(name, metadata={"n": value, "m": "x" if name == "int" else "y"}), {})
        await store.accept(new_run("without"), {})
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"n": 1}, ["float", "int"]),
            ({"n": 1.0}, ["float", "int"]),
            ({"n": True}, ["bool"]),
            ({"n": "1"}, ["text"]),
            ({"n": None}, ["null"]),
            ({"n": quoted}, ["quoted"]),
            ({"n": 1, "m": "x"}, ["int"]),
            ({"missing": None}, []),
            ({"n": "[1]"}, []),
        ]
        for wanted, found in cases:
            assert (wanted, sorted(await listed(store, metadata=wanted))) == (wanted, found)

    async def test_a_listing_has_only_the_runs_within_a_reach(self, store: StateStore) -> None:
        for name, pipeline, team in (
            ("a", "triage", "north"),
            ("b", "triage", "south"),
            ("c", "report", "north"),
        ):
            await store.accept(new_run(name, pipeline=pipeline, metadata={"team": team}), {})
        within: list[tuple[Reach, list[str]]] = [
            (Reach(blueprints=("triage", "report")), ["a", "b", "c"]),
            (Reach(blueprints=("triage",), metadata={"team": "north"}), ["a"]),
            (Reach(queues=("support",)), []),
        ]
        for reach, names in within:
            query = RunQuery(reach=reach, order=RunOrder.OLDEST)
            assert [each.run_id for each in await store.runs(query)] == names
            assert sum((await store.count_runs(query, RunGroup.STATUS)).values()) == len(names)

    async def test_a_hostile_metadata_key_is_refused_everywhere(self, store: StateStore) -> None:
        hostile = ("", "a') = 1 OR 1=1 --", 'a"', "a.b", "$", "a b", "1a", "ä", "a\x00", "a]", "$.a", "a\n")
        for key in (*hostile, "x" * 64):
            with pytest.raises(SettingsError):
                await store.runs(RunQuery(metadata={key: 1}))
            with pytest.raises(SettingsError):
                await store.accept(new_run(metadata={key: 1}), {})

    async def test_a_condition_may_be_a_list_a_comparison_or_nested(self, store: StateStore) -> None:
        kinds: dict[str, Any] = {
            "five": {"n": 5, "order": {"total": 5.5, "place": "Bonn"}},
            "six": {"n": 6, "order": {"total": 60, "place": "bonn"}},
            "text": {"n": "6", "order": {"total": "60", "place": "Ä"}},
            "null": {"n": None, "order": {"total": None}},
            "true": {"n": True, "order": [{"total": 60}]},
            "other": {"m": 5, "order": "total"},
        }
        for name, metadata in kinds.items():
            await store.accept(new_run(name, metadata=metadata), {})
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"n": [5, "6"]}, ["five", "text"]),
            ({"n": [None, True]}, ["null", "true"]),
            ({"n": {">=": 5}}, ["five", "six"]),
            ({"n": {">": 5, "<": 6.5}}, ["six"]),
            ({"n": {">": "5"}}, ["text"]),
            ({"n": {"!=": 5}}, ["null", "six", "text", "true"]),
            ({"n": {"!=": True}}, ["five", "null", "six", "text"]),
            ({"order": {"total": 60}}, ["six"]),
            ({"order": {"total": {"<=": 5.5}}}, ["five"]),
            ({"order": {"total": {"!=": None}}}, ["five", "six", "text"]),
            ({"order": {"place": {">": "Z"}}}, ["six", "text"]),
            ({"order": {"place": ["Bonn", "Ä"]}, "n": {"<": 6}}, ["five"]),
            ({"m": 5}, ["other"]),
        ]
        for wanted, found in cases:
            assert (wanted, sorted(await listed(store, metadata=wanted))) == (wanted, found)

    async def test_a_condition_that_cannot_be_compared_is_refused(self, store: StateStore) -> None:
        values: tuple[Any, ...] = (
            float("nan"),
            2**70,
            "a\x00b",
            "\ud800",
            [],
            [[1]],
            list(range(101)),
            {},
            {">": None},
            {">": True},
            {">": [1]},
            {">": 1, "x": 1},
            {"a.b": 1},
            {"a' OR 1=1 --": 1},
            {1: 1},
            object(),
        )
        for value in values:
            with pytest.raises(SettingsError):
                await store.runs(RunQuery(metadata={"key": value}))
            with pytest.raises(SettingsError):
                await store.count_runs(RunQuery(metadata={"key": value}), RunGroup.STATUS)

    async def test_a_query_out_of_bounds_is_refused(self, store: StateStore) -> None:
        with pytest.raises(SettingsError):
            await store.runs(RunQuery(limit=0))
        with pytest.raises(SettingsError):
            await store.runs(RunQuery(metadata={f"k{number}": 1 for number in range(17)}))

    async def test_a_time_or_a_cursor_that_cannot_be_compared_is_refused(self, store: StateStore) -> None:
        cursor = RunCursor(RunOrder.NEWEST, 1.0, "run-1")
        for query in (
            RunQuery(since=float("nan")),
            RunQuery(until=float("inf")),
            RunQuery(after=RunCursor(RunOrder.NEWEST, float("nan"), "run-1")),
            RunQuery(after=cursor, order=RunOrder.OLDEST),
        ):
            with pytest.raises(SettingsError):
                await store.runs(query)

    @pytest.mark.parametrize("order", RunOrder)
    async def test_pages_together_are_the_whole_list_while_runs_are_accepted(
        self, store: StateStore, order: RunOrder
    ) -> None:
        for number in range(9):
            await store.accept(new_run(f"run-{number}"), {})
        whole = await listed(store, order=order)
        assert sorted(whole) == [f"run-{number}" for number in range(9)]
        found: list[str] = []
        after: RunCursor | None = None
        for size in (2, 3, 1, 4, 5):
            page = await store.runs(RunQuery(order=order, after=after, limit=size))
            rest = await store.count_runs(RunQuery(order=order, after=after, limit=1), RunGroup.STATUS)
            assert sum(rest.values()) >= len(page)
            found += [record.run_id for record in page]
            after = RunCursor.of(page[-1], order) if page else after
            await store.accept(new_run(f"new-{size}"), {})
        assert [run_id for run_id in found if run_id in whole] == whole
        assert len(found) == len(set(found))

    async def test_a_list_is_bounded_by_times_of_its_order(self, store: StateStore) -> None:
        for name in ("a", "b", "c"):
            await store.accept(new_run(name), {}, claim=name == "a")
            await asyncio.sleep(0.002)  # so that each run has a time of its own
        middle = (await store.run(RunId("b"))).created_at
        assert await listed(store, since=middle) == ["c", "b"]
        assert await listed(store, until=middle) == ["a"]
        assert await listed(store, since=middle, order=RunOrder.OLDEST) == ["b", "c"]
        await store.write(move(await store.run(RunId("a")), RunStatus.COMPLETED))
        assert await listed(store, order=RunOrder.UPDATED) == ["a", "c", "b"]
        changed = (await store.run(RunId("a"))).updated_at
        assert await listed(store, since=changed, order=RunOrder.UPDATED) == ["a"]

    async def test_runs_are_counted_by_group(self, store: StateStore) -> None:
        for number in range(5):
            user = {"user_id": "ann"} if number % 2 else {}
            await store.accept(new_run(f"run-{number}", **user), {}, claim=number == 0)
        await store.accept(new_run("other", pipeline="other"), {}, claim=False)
        assert await store.count_runs(RunQuery(limit=1), RunGroup.STATUS) == {"running": 1, "accepted": 5}
        assert await store.count_runs(RunQuery(), RunGroup.USER) == {None: 4, "ann": 2}
        accepted = RunQuery(statuses=(RunStatus.ACCEPTED,))
        assert await store.count_runs(accepted, RunGroup.BLUEPRINT) == {"triage": 4, "other": 1}
        assert await store.count_runs(RunQuery(user_id="bob"), RunGroup.STATUS) == {}

    async def test_a_run_is_orphaned_when_its_lease_has_ended(self, open_store: OpenStore) -> None:
        store = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        await store.accept(new_run("cut-off"), {})
        other = await open_store()
        await other.accept(new_run("living"), {})
        await in_state(other, RunStatus.COMPLETED, "completed")
        orphaned = RunQuery(statuses=(RunCondition.ORPHANED,))
        await asyncio.sleep(SHORT_S * 2)
        assert await listed(other, statuses=orphaned.statuses) == ["cut-off"]
        assert await other.count_runs(orphaned, RunGroup.STATUS) == {"running": 1}
        both = (RunCondition.ORPHANED, RunStatus.COMPLETED)
        assert sorted(await listed(other, statuses=both)) == ["completed", "cut-off"]

    async def test_a_run_is_answered_when_it_is_paused_without_an_open_question(
        self, store: StateStore
    ) -> None:
        for name in ("one", "two"):
            run = await store.accept(new_run(name), {})
            await ask(store, run, "first", "second")
            await store.write(move(run, RunStatus.PAUSED))
        answered = (RunCondition.ANSWERED,)
        await store.answer(RunId("one"), StepPath("first"), b"1")
        assert await listed(store, statuses=answered) == []
        assert await listed(store, pause=StepPath("first")) == ["two"]
        await store.answer(RunId("one"), StepPath("second"), b"2")
        assert await listed(store, statuses=answered) == ["one"]
        assert sorted(await listed(store, statuses=(RunStatus.PAUSED,))) == ["one", "two"]

    async def test_a_run_is_in_doubt_while_a_call_of_it_is(self, store: StateStore) -> None:
        for name, kind in (("asks", PauseKind.QUESTION), ("doubts", PauseKind.DOUBT)):
            run = await store.accept(new_run(name), {})
            pause = Pause(pause_id=StepPath("pay"), message="?", kind=kind)
            await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,)))
            await store.write(move(run, RunStatus.PAUSED))
        assert await listed(store, statuses=(RunCondition.IN_DOUBT,)) == ["doubts"]
        await store.answer(RunId("doubts"), StepPath("pay"), b'{"resolution":"retry"}')
        assert await listed(store, statuses=(RunCondition.IN_DOUBT,)) == []

    async def test_a_listing_shows_the_earliest_deadline(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [
            Pause(pause_id=StepPath(name), message="?", deadline_s=s) for name, s in (("a", 90), ("b", 60))
        ]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        (listed,) = await store.runs(RunQuery())
        assert listed.deadline_at == (await store.pauses(RUN))[1].deadline_at
