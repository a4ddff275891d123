"""Accepting runs and finding them again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent, Queued, RunKind
from flujo.domain.run import RunQuery, RunRecord, RunStatus, Write
from flujo.exceptions import (
    ResumeConflict,
    RunConflict,
    RunNotFound,
)
from flujo.testing.store_suite.examples import (
    RUN,
    OpenStore,
    entry,
    new_run,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


class RunsSuite:
    """Runs are stored once and unchanged, and are found by what people type."""

    async def test_an_accepted_run_is_stored_unchanged(self, store: StateStore) -> None:
        metadata = {"tenant": "acme", "tries": 3, "ratio": 0.5, "vip": True, "note": None}
        given = new_run(metadata=metadata, user_id="ann", lock_digest="l" * 64)
        accepted = await store.accept(given, {})
        found = await store.run(RUN)
        for record in (accepted, found):
            assert (record.pipeline, record.closure) == (given.pipeline, given.closure)
            assert (record.input, record.context) == (given.input, given.context)
            assert (record.user_id, record.lock_digest) == ("ann", "l" * 64)
            assert record.metadata == metadata
            assert (record.status, record.fence, record.claims) == (RunStatus.RUNNING, 1, 1)
            assert record.output is record.error is record.context_now is None
        assert found.owner == accepted.owner
        assert found.created_at == accepted.created_at > 0

    async def test_a_run_can_be_accepted_without_being_claimed(self, store: StateStore) -> None:
        record = await store.accept(new_run(), {}, claim=False)
        assert (record.status, record.fence, record.owner) == (RunStatus.ACCEPTED, 0, None)
        claimed = await store.claim(RUN, statuses=[RunStatus.ACCEPTED])
        assert (claimed.status, claimed.fence) == (RunStatus.RUNNING, 1)

    async def test_a_run_keeps_its_place_in_a_queue_its_origin_and_its_deadline(
        self, store: StateStore
    ) -> None:
        parent = Parent(run_id=RunId("parent"), path=StepPath("launch[2]"), entry="launch")
        queued = Queued(queue="mail", key="acme", priority=2, delay_s=90)
        accepted = await store.accept(new_run(parent=parent, queued=queued, life_s=3600.0), {}, claim=False)
        for record in (accepted, await store.run(RUN)):
            assert (record.kind, record.parent) == (RunKind.TASK, parent)
            assert record.ends_by == record.created_at + 3600
            assert record.queued == Queued(
                queue="mail", key="acme", priority=2, available_at=record.created_at + 90
            )

    async def test_a_case_is_listed_only_by_its_kind(self, store: StateStore) -> None:
        accepted = await store.accept(new_run(is_case=True), {})
        for record in (accepted, await store.run(RUN)):
            assert (record.kind, record.parent) == (RunKind.CASE, None)
        assert await store.runs(RunQuery()) == []
        assert [each.run_id for each in await store.runs(RunQuery(kinds=(RunKind.CASE,)))] == [RUN]

    async def test_accepting_the_same_run_again_returns_the_stored_one(self, store: StateStore) -> None:
        await store.accept(new_run(), {})
        with pytest.raises(ResumeConflict) as caught:
            await store.accept(new_run(), {})
        assert caught.value.facts["record"].run_id == RUN
        assert caught.value.facts["record"].fence == 1

    @pytest.mark.parametrize(
        ("changes", "differs"),
        [
            ({"closure": "d" * 64}, "another version"),
            ({"input": b"1"}, "another input"),
            ({"pipeline": "other"}, "another pipeline"),
            ({"context": b'{"label":"x"}'}, "`label`"),
            ({"context": b'{"label":null}'}, "`label`"),
            ({"context": b'{"label":"","user_id":"bob"}'}, "`user_id`"),
            ({"context": b"{}"}, "`label`"),
        ],
    )
    async def test_an_existing_id_of_a_run_with_another_identity_is_a_conflict(
        self, store: StateStore, changes: dict[str, Any], differs: str
    ) -> None:
        first = await store.accept(new_run(), {})
        with pytest.raises(RunConflict, match=differs):
            await store.accept(new_run(**changes), {})
        stored = await store.run(RUN)
        assert (stored.closure, stored.context, stored.fence) == (first.closure, first.context, first.fence)

    async def test_a_large_context_that_is_stored_apart_is_compared_too(self, store: StateStore) -> None:
        large, other = (b'{"label":"%s"}' % (letter * 200_000) for letter in (b"a", b"b"))
        await store.accept(new_run(context=large), {})
        with pytest.raises(ResumeConflict):
            await store.accept(new_run(context=large), {})
        with pytest.raises(RunConflict, match="`label`"):
            await store.accept(new_run(context=other), {})

    async def test_of_two_concurrent_accepts_with_different_contexts_one_is_a_conflict(
        self, open_store: OpenStore
    ) -> None:
        one, other = await open_store(), await open_store()
        tries = [
            store.accept(new_run(context=context), {})
            for store, context in (
                (one, b'{"label":"a"}'),
                (one, b'{"label":"b"}'),
                (other, b'{"label":"c"}'),
            )
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(each).__name__ for each in results) == ["RunConflict", "RunConflict", "RunRecord"]

    async def test_metadata_is_not_part_of_the_identity_of_a_run(self, store: StateStore) -> None:
        await store.accept(new_run(metadata={"tenant": "a"}), {})
        with pytest.raises(ResumeConflict):
            await store.accept(new_run(metadata={"tenant": "b"}), {})

    async def test_one_of_many_concurrent_accepts_of_one_id_succeeds(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        tries = [store.accept(new_run(), {}) for store in stores for _ in range(4)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, RunRecord) for result in results) == 1
        assert all(isinstance(result, RunRecord | ResumeConflict) for result in results)

    async def test_an_unknown_run_is_not_found(self, store: StateStore) -> None:
        with pytest.raises(RunNotFound):
            await store.run(RunId("nobody"))
        with pytest.raises(RunNotFound):
            await store.claim(RunId("nobody"), statuses=list(RunStatus))
        with pytest.raises(RunNotFound):
            await store.write(Write(run_id=RunId("nobody"), fence=1, entries=(entry(1),)))

    async def test_a_run_is_found_by_id_by_unique_prefix_and_by_last(self, store: StateStore) -> None:
        for run_id in ("ab1", "ab12", "ac_%", "zz"):
            await store.accept(new_run(run_id), {})
        found = {text: (await store.find(text)).run_id for text in ("ab1", "ab12", "ac", "z", "@last")}
        assert found == {"ab1": "ab1", "ab12": "ab12", "ac": "ac_%", "z": "zz", "@last": "zz"}

    async def test_a_name_that_matches_no_run_or_several_is_not_found(self, store: StateStore) -> None:
        for run_id in ("ab1", "ab12", "ac"):
            await store.accept(new_run(run_id), {})
        for text in ("", "a", "x", "%", "_", "a%", "' OR 1=1 --", "a\x00", "AB", "@last2"):
            with pytest.raises(RunNotFound):
                await store.find(text)

    async def test_an_ambiguous_prefix_lists_the_candidates(self, store: StateStore) -> None:
        for run_id in ("ab1", "ab2"):
            await store.accept(new_run(run_id), {})
        with pytest.raises(RunNotFound, match="ab1, ab2"):
            await store.find("ab")
