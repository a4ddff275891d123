"""The journal: entries and blobs are stored once, complete and in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, EntryStatus, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus, Write
from flujo.domain.usage import Usage
from flujo.exceptions import (
    CorruptState,
    JournalConflict,
)
from flujo.testing.store_suite.examples import (
    RUN,
    entry,
    move,
    new_run,
    writes,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


class JournalSuite:
    """Entries and blobs are returned byte for byte."""

    async def test_every_field_of_an_entry_is_returned(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        usage = Usage(1, 2, 3, 4, 5_000_000_000, 6)
        given = [
            entry(1, "a", status=EntryStatus.FAILED, error=b'{"code":"FLJ401"}', output=None, usage=usage),
            entry(2, "a", attempt=2, started_at=1.1, ended_at=2.7),
            entry(3, "a", kind=EntryKind.DECISION, status=EntryStatus.SKIPPED, output=None),
            entry(4, "a/b[2]:c/ü", kind=EntryKind.ANSWER),
            entry(5, "a", kind=EntryKind.DONE, usage=usage),
        ]
        await store.write(writes(run, *given))
        assert await store.entries(RUN) == given
        assert (await store.progress(RUN)).usage == usage + usage
        assert (await store.progress(RUN)).last_seq == 5

    async def test_a_level_holds_direct_children_only(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        paths = ["a", "loop", "loop[0]", "loop[0]/x", "loop[0]/x:y", "loop[1]", "loopy", "loop:z"]
        await store.write(writes(run, *(entry(seq, path) for seq, path in enumerate(paths, 1))))

        async def level(parent: str) -> list[str]:
            return [each.path for each in await store.entries(RUN, parent=StepPath(parent))]

        assert await level("") == ["a", "loop", "loopy"]
        assert await level("loop") == ["loop[0]", "loop[1]", "loop:z"]
        assert await level("loop[0]") == ["loop[0]/x"]
        assert await level("nothing") == []

    async def test_ranges_have_a_level_of_their_own(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        paths = ["map[0]", "map[1]", "map[0..1]", "map[1]/x", "map[2]", "map[2]/inner[0..9]", "map[2..3]"]
        await store.write(writes(run, *(entry(seq, path) for seq, path in enumerate(paths, 1))))

        async def level(parent: str) -> list[str]:
            return [each.path for each in await store.entries(RUN, parent=StepPath(parent))]

        assert await level("map") == ["map[0]", "map[1]", "map[2]"]
        assert await level("map[..]") == ["map[0..1]", "map[2..3]"]
        assert await level("map[2]/inner[..]") == ["map[2]/inner[0..9]"]
        await store.write(writes(run, entry(8, "map[4..5]")))
        assert await level("map[..]") == ["map[0..1]", "map[2..3]", "map[4..5]"]
        later = await store.entries(RUN, parent=StepPath("map[..]"), after=3)
        assert [each.path for each in later] == ["map[2..3]", "map[4..5]"]

    async def test_the_entries_at_some_paths_are_returned_in_order(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        given = [entry(seq, f"map[{seq % 4}]", attempt=seq) for seq in range(1, 13)]
        await store.write(writes(run, *given))
        wanted = [StepPath("map[3]"), StepPath("map[0]"), StepPath("map[9]")]
        assert await store.entries(RUN, paths=wanted) == [each for each in given if each.path in wanted]
        assert await store.entries(RUN, paths=[]) == []

    async def test_the_entries_behind_a_number_are_returned_in_order(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        given = [entry(seq) for seq in range(1, 8)]
        await store.write(writes(run, *given))
        assert await store.entries(RUN, after=0) == given
        assert await store.entries(RUN, after=4) == given[4:]
        assert await store.entries(RUN, after=7) == await store.entries(RUN, after=70) == []

    async def test_writes_of_one_run_keep_their_order(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        waiting = [store.write(writes(run, entry(seq))) for seq in range(1, 101)]
        await asyncio.gather(*waiting)
        assert [each.seq for each in await store.entries(RUN)] == list(range(1, 101))

    async def test_concurrent_writes_of_many_runs_do_not_mix(self, store: StateStore) -> None:
        async def walk(name: str) -> None:
            run = await store.accept(new_run(name), {})
            for seq in range(1, 6):
                await store.write(writes(run, entry(seq, output=canonical.encode(f"{name} {seq}"))))
            await store.write(move(run, RunStatus.COMPLETED, output=canonical.encode(name), entries=5))

        names = [f"run-{number}" for number in range(40)]
        await asyncio.gather(*(walk(name) for name in names))
        for name in names:
            outputs = [canonical.decode(each.output or b"") for each in await store.entries(RunId(name))]
            assert outputs == [f"{name} {seq}" for seq in range(1, 6)]
            assert (await store.run(RunId(name))).output == canonical.encode(name)

    async def test_writing_the_same_entry_again_is_accepted_and_a_different_one_is_refused(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1)))
        await store.write(writes(run, entry(1), entry(2)))
        with pytest.raises(JournalConflict):
            await store.write(writes(run, entry(2, output=b'"other"')))
        with pytest.raises(JournalConflict):
            await store.write(writes(run, entry(3, "step_1")))
        assert await store.entries(RUN) == [entry(1), entry(2)]

    async def test_blobs_are_stored_with_the_run_and_with_a_write(self, store: StateStore) -> None:
        first, second = b"closure" * 1000, bytes(range(256))
        digests = [canonical.digest(data) for data in (first, second)]
        run = await store.accept(new_run(), {digests[0]: first})
        await store.write(Write(run_id=RUN, fence=run.fence, blobs={digests[1]: second, digests[0]: first}))
        assert await store.blobs(digests) == {digests[0]: first, digests[1]: second}
        assert await store.blobs([]) == {}

    async def test_a_missing_blob_is_corrupt_state(self, store: StateStore) -> None:
        with pytest.raises(CorruptState):
            await store.blobs(["0" * 64])
