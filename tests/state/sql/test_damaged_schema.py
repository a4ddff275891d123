"""A SQLite file with a damaged schema: every read and write ends with a typed error, or works."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

import pytest

from flujo.domain.run import RunQuery, RunStatus
from flujo.exceptions import CorruptState, FlujoError, StateError
from flujo.state.sql import durability, integrity, migrations
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

FLIPS = 50 * int(os.environ.get("FLUJO_FLIPS", "0")) or 25
"""How many damaged files are read."""
PAGE = 4096


@pytest.fixture
async def whole(tmp_path: Path, migrated_file: Path) -> bytes:
    """The bytes of a file with a run, in one piece."""
    path = tmp_path / "whole.db"
    shutil.copy(migrated_file, path)
    async with aclosing(await SqlStateStore.open(f"sqlite:///{path}")) as store:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1)))
        await store.write(move(run, RunStatus.COMPLETED, entries=1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


def _schema_pages(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT pageno FROM dbstat WHERE name IN ('sqlite_schema', 'sqlite_master')"
        )
        return [page for (page,) in found]


def _damaged(data: bytes, start: int, chance: random.Random) -> bytes:
    """Return the file with one damage in the page that begins at `start`."""
    changed = bytearray(data)
    at = start + chance.randrange(PAGE - 16)
    match chance.randrange(4):
        case 0:
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            changed[at : at + 4] = b"\xff\xfe\x00\xff"
        case 2:
            changed[at : at + 16] = bytes(16)
        case _:
            for _ in range(20):
                changed[start + chance.randrange(PAGE)] = chance.randrange(256)
    return bytes(changed)


async def _use(uri: str) -> list[FlujoError]:
    """Use a database through every door; return the errors, all typed."""
    found = []
    doors: list[Callable[[], object]] = [
        lambda: migrations.status(uri),
        lambda: migrations.script(uri),
        lambda: integrity.soundness(uri),
        lambda: durability.durability(uri, "FULL"),
    ]
    for door in doors:
        try:
            door()
        except FlujoError as error:
            found.append(error)
    store = SqlStateStore(uri, retry_s=0.0)
    requests: list[Callable[[], Awaitable[object]]] = [
        lambda: store.run(RUN),
        lambda: store.find("@last"),
        lambda: store.runs(RunQuery()),
        lambda: store.entries(RUN),
        lambda: store.acts(RUN),
        lambda: store.due(),
        lambda: store.count_purgeable([RunStatus.COMPLETED], 0.0),
        lambda: store.accept(new_run("new"), {}),
        lambda: store.cache().get("a" * 64),
    ]
    async with aclosing(store):
        for request in requests:
            try:
                await request()
            except FlujoError as error:
                found.append(error)
    try:
        migrations.migrate(uri)
    except FlujoError as error:
        found.append(error)
    return found


@pytest.mark.guarantee("G7")
@pytest.mark.timeout(3600)
async def test_every_damage_of_the_schema_is_a_typed_error_or_harmless(tmp_path: Path, whole: bytes) -> None:
    chance = random.Random(25)
    pages = _schema_pages(tmp_path / "whole.db")
    codes = set()
    for number in range(FLIPS):
        path = tmp_path / f"{number}.db"
        path.write_bytes(_damaged(whole, (chance.choice(pages) - 1) * PAGE, chance))
        codes |= {type(error) for error in await _use(f"sqlite:///{path}")}
        path.unlink()
    assert CorruptState in codes
    assert all(issubclass(code, StateError) for code in codes), codes


CHANGES = {
    "a dropped table": "DROP TABLE journal",
    "a renamed column": "ALTER TABLE runs RENAME COLUMN status TO state",
    "a revision that is not text": "UPDATE schema_info SET revision = x'fffe'",
    "a reader that is not text": "UPDATE schema_info SET revision = '0999', oldest_reader = x'fffe'",
    "a revision that is not UTF-8": "UPDATE schema_info SET revision = CAST(x'fffe' AS TEXT)",
    "a version that is not text": "DELETE FROM schema_info; UPDATE alembic_version SET version_num = x'00ff'",
    "an unknown version": "DELETE FROM schema_info; UPDATE alembic_version SET version_num = 'garbage'",
    "a name that is not UTF-8": "PRAGMA writable_schema = ON; "
    "UPDATE sqlite_schema SET sql = CAST(x'43524541544520fffe' AS TEXT) WHERE name = 'runs'",
    "a table without its text": "PRAGMA writable_schema = ON; "
    "UPDATE sqlite_schema SET sql = NULL WHERE name = 'runs'",
    "a cut schema": "PRAGMA writable_schema = ON; "
    "UPDATE sqlite_schema SET sql = substr(sql, 1, 40) WHERE name = 'runs'",
}


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("what", CHANGES)
async def test_a_changed_schema_is_a_typed_error(tmp_path: Path, whole: bytes, what: str) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(CHANGES[what])
    assert await _use(f"sqlite:///{path}")


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("size", [0, 1, 50, 99, 100, 2_000, PAGE, 3 * PAGE + 17])
async def test_a_truncated_file_is_a_typed_error_or_a_new_file(
    tmp_path: Path, whole: bytes, size: int
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(whole[:size])
    assert await _use(f"sqlite:///{path}")
