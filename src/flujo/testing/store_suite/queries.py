"""Listings of runs, with conditions that may be hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, RunQuery, RunStatus, Write
from flujo.exceptions import (
    SettingsError,
)
from flujo.testing.store_suite.examples import (
    RUN,
    listed,
    move,
    new_run,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


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

    async def test_a_hostile_metadata_key_is_refused_everywhere(self, store: StateStore) -> None:
        hostile = ("", "a') = 1 OR 1=1 --", 'a"', "a.b", "$", "a b", "1a", "ä", "a\x00", "a]", "$.a", "a\n")
        for key in (*hostile, "x" * 64):
            with pytest.raises(SettingsError):
                await store.runs(RunQuery(metadata={key: 1}))
            with pytest.raises(SettingsError):
                await store.accept(new_run(metadata={key: 1}), {})

    async def test_a_condition_is_a_json_scalar(self, store: StateStore) -> None:
        values: tuple[Any, ...] = (float("nan"), [1], {"a": 1}, 2**70, "a\x00b", "\ud800")
        for value in values:
            with pytest.raises(SettingsError):
                await store.runs(RunQuery(metadata={"key": value}))

    async def test_a_query_out_of_bounds_is_refused(self, store: StateStore) -> None:
        with pytest.raises(SettingsError):
            await store.runs(RunQuery(limit=0))
        with pytest.raises(SettingsError):
            await store.runs(RunQuery(metadata={f"k{number}": 1 for number in range(17)}))

    async def test_a_listing_shows_the_earliest_deadline(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [
            Pause(pause_id=StepPath(name), message="?", deadline_s=s) for name, s in (("a", 90), ("b", 60))
        ]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        (listed,) = await store.runs(RunQuery())
        assert listed.deadline_at == (await store.pauses(RUN))[1].deadline_at
