"""Damage in the database: every damaged row is detected and named, and no run resumes from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import (
    CorruptState,
)
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def sql(store_uri: str) -> AsyncIterator[SqlStateStore]:
    store = SqlStateStore(store_uri)
    yield store
    await store.aclose()


DAMAGE = [
    "UPDATE {p}journal SET output = {bytes} WHERE run_id = 'run-1' AND seq = 2",
    "UPDATE {p}journal SET output = NULL WHERE run_id = 'run-1' AND seq = 2",
    "UPDATE {p}journal SET status = 'failed' WHERE run_id = 'run-1' AND seq = 2",
    "UPDATE {p}journal SET kind = 'nonsense' WHERE run_id = 'run-1' AND seq = 2",
    "UPDATE {p}journal SET attempt = 7 WHERE run_id = 'run-1' AND seq = 2",
    "UPDATE {p}journal SET seq = 9 WHERE run_id = 'run-1' AND seq = 2",
    "DELETE FROM {p}journal WHERE run_id = 'run-1' AND seq = 2",
    "DELETE FROM {p}journal WHERE run_id = 'run-1' AND seq = 3",
    "UPDATE {p}blobs SET data = {bytes}",
    "UPDATE {p}blobs SET size = 5",
    "DELETE FROM {p}blobs",
]


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_journal_is_detected_and_other_runs_are_not_affected(
    sql: SqlStateStore, damage: str
) -> None:
    for name in (RUN, RunId("other")):
        run = await sql.accept(new_run(name), {})
        output = b'"' + b"y" * 40_000 + b'"' if name == RUN else b'"small"'
        await sql.write(writes(run, entry(1), entry(2, output=output), entry(3)))
        await sql.write(move(run, RunStatus.COMPLETED, entries=3))
    _damage(sql, damage)
    with pytest.raises(CorruptState) as caught:
        await sql.entries(RUN)
    assert RUN in str(caught.value) or "content" in str(caught.value) or "blob" in str(caught.value)
    assert len(await sql.entries(RunId("other"))) == 3


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("seq", [2, 3])
async def test_a_part_of_the_journal_has_no_gap(sql: SqlStateStore, seq: int) -> None:
    run = await sql.accept(new_run(), {})
    await sql.write(writes(run, entry(1), entry(2), entry(3)))
    await sql.write(move(run, RunStatus.PAUSED, context=b"{}", entries=3))
    _damage(sql, f"DELETE FROM {{p}}journal WHERE seq = {seq}")
    with pytest.raises(CorruptState, match=f"journal entry {seq} is missing"):
        await sql.entries(RUN, after=1)


@pytest.mark.guarantee("G7")
async def test_an_entry_moved_to_another_run_is_detected(sql: SqlStateStore) -> None:
    for name in (RUN, RunId("other")):
        run = await sql.accept(new_run(name), {})
        await sql.write(writes(run, entry(1)))
    _damage(sql, "DELETE FROM {p}journal WHERE run_id = 'other'")
    _damage(sql, "UPDATE {p}journal SET run_id = 'other'")
    with pytest.raises(CorruptState, match="other"):
        await sql.entries(RunId("other"))


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize(
    "column", ["input", "context", "context_now", "output", "usage", "closure", "user_id"]
)
async def test_a_damaged_run_is_detected(sql: SqlStateStore, column: str) -> None:
    run = await sql.accept(new_run(user_id="ann"), {})
    await sql.write(move(run, RunStatus.PAUSED, context=b"{}", output=b"1"))
    value = "'x'" if column in ("closure", "user_id") else "{bytes}"
    _damage(sql, f"UPDATE {{p}}runs SET {column} = {value}")
    with pytest.raises(CorruptState, match=RUN):
        await sql.run(RUN)
    if column != "output":  # which a claim would change
        with pytest.raises(CorruptState, match=RUN):
            await sql.claim(RUN, statuses=[RunStatus.PAUSED])


def _damage(store: SqlStateStore, statement: str) -> None:
    literal = "decode('7b7d20', 'hex')" if store.database.is_postgres else "x'7b7d20'"
    with store.database.writing() as connection:
        connection.execute(sa.text(statement.format(p=store.database.table_prefix, bytes=literal)))


@pytest.mark.guarantee("G7")
async def test_a_flipped_bit_in_the_file_is_detected(sqlite_uri: str, tmp_path: Path) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await store.accept(new_run(), {})
    await store.write(writes(run, entry(1, output=b'"a needle in the haystack"')))
    await store.aclose()
    path = tmp_path / "state" / "state.db"
    data = bytearray(path.read_bytes())
    data[data.index(b"needle")] ^= 1
    path.write_bytes(data)
    again = SqlStateStore(sqlite_uri)
    with pytest.raises(CorruptState, match=RUN):
        await again.entries(RUN)
    await again.aclose()
