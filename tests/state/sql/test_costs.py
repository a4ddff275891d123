"""The cost of a run in the database: bytes per step, statements, and indexes of listings. No times."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from flujo import Flujo
from flujo.domain import canonical
from flujo.domain.models import PipelineContext
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, PauseKind, RunQuery, RunStatus, Write
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, Text
from flujo.exceptions import CorruptState
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql import functions, migrations, postgres_connection, queries
from flujo.state.sql.database import LOG_PAGES
from flujo.state.sql.functions import Array, driver_text
from flujo.state.sql.postgres_arrays import ArrayDumper
from flujo.state.sql.statements import statements_for
from flujo.state.sql.tables import journal, pauses, runs
from flujo.state.store import SqlStateStore
from flujo.state.writer import families
from flujo.testing.store_suite import RUN, entry, new_run, writes
from support import StoppingStore, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 60


class Big(PipelineContext):
    """A megabyte that rarely changes, and a number that changes."""

    items: list[str] = []  # noqa: RUF012 - pydantic copies it
    count: int = 0


async def answer(data: Any) -> Any:
    return "x" * 200


async def nothing(_: Any) -> None:
    pass


async def count(data: Any, context: Big) -> Any:
    context.count += 1
    return context.count


async def touch(data: Any, context: Big) -> Any:
    context.items[0] = f"{context.count:08d}" + context.items[0][8:]
    return await count(data, context)


async def walk(uri: str, target: Callable[..., Any], given: dict[str, Any] | None = None) -> SqlStateStore:
    store = SqlStateStore(uri)
    tree = pipeline(*(call(f"s{n}", CallableRef.of(target)) for n in range(STEPS)))
    model = Big if given else None
    async with Flujo[Any, Any, Any](tree, store=store, context_model=model) as runner:
        result = await runner.run_result_async("begin", initial_context_data=given)
    assert result.success, result.error
    return store


async def stored(store: SqlStateStore, table: str) -> int:
    """Return the size in bytes of all values of a table."""

    def ask(connection: sa.Connection) -> int:
        rows = connection.execute(sa.text(f"SELECT * FROM {store.database.table_prefix}{table}"))
        return sum(
            len(value) if isinstance(value, bytes | str) else 8 for row in rows for value in row if value
        )

    return await store.read(ask)


async def test_a_step_stores_little_more_than_its_result(store_uri: str) -> None:
    store = await walk(store_uri, answer)
    assert await stored(store, "journal") / STEPS <= 1_500
    await store.aclose()


async def test_a_file_grows_by_little_more_than_the_stored_bytes(sqlite_uri: str) -> None:
    store = await walk(sqlite_uri, answer)
    pages = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'journal%'"

    def ask(connection: sa.Connection) -> int:
        return int(connection.exec_driver_sql(pages).scalar_one())

    assert await store.read(ask) / STEPS <= 1_500
    await store.aclose()


def length_of_log(uri: str) -> int:
    return Path(f"{uri.removeprefix('sqlite:///')}-wal").stat().st_size


async def test_later_commits_overwrite_the_log_of_a_file(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run, lengths = await store.accept(new_run(), {}), []
    for first in range(1, LOG_PAGES, 10):  # each of these steps changes four pages and more
        steps = (entry(seq, output=b'"%b"' % (b"x" * 15_000)) for seq in range(first, first + 10))
        await store.write(writes(run, *steps))
        lengths.append(length_of_log(sqlite_uri))
    assert max(lengths) < 1.5 * LOG_PAGES * 4096, "of four times as many pages"
    await store.aclose()


MEGABYTE = {"items": [f"{number:04d}" * 250 for number in range(1000)]}


async def test_changing_one_number_in_a_megabyte_stores_only_that_number(store_uri: str) -> None:
    store = await walk(store_uri, count, MEGABYTE)
    assert await stored(store, "journal") / STEPS <= 2_000
    await store.aclose()


async def test_changing_one_item_of_a_thousand_stores_only_that_item(store_uri: str) -> None:
    store = await walk(store_uri, touch, MEGABYTE)
    assert await stored(store, "journal") / STEPS <= 3_500  # an item of 1 kB, its result, its input
    assert await stored(store, "blobs") <= 2 * len(json.dumps(MEGABYTE))  # the context at start and end
    await store.aclose()


QUERIES = {
    "runs_by_metadata": RunQuery(metadata={"tenant": "t7", "rush": True}),
    "runs_by_user": RunQuery(user_id="user-7"),
    "runs_by_status": RunQuery(statuses=(RunStatus.PAUSED,)),
    "runs_by_age": RunQuery(limit=5),
}

FILL = """
INSERT INTO flujo.runs (run_id, pipeline, status, closure, user_id, metadata, fence, claims, recoveries, answered,
    input, context, entries, seals, created_at, updated_at)
SELECT 'run-' || n, 'p', CASE WHEN n % 500 = 0 THEN 'paused' ELSE 'completed' END, 'c', 'user-' || n % 1000,
    jsonb_build_object('tenant', 't' || n % 1000, 'rush', n % 2 = 0), 1, 1, 0, false, '1', '{}', 0, '', n, n
FROM generate_series(1, 20000) AS n
"""


@pytest.mark.parametrize("index", QUERIES)
async def test_listing_runs_uses_an_index(postgres_uri: str, index: str) -> None:
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(FILL.encode())
        connection.execute(b"VACUUM ANALYZE flujo.runs")
    store = await SqlStateStore.open(postgres_uri)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with suppress(CorruptState):  # these rows were not written by a store
        await store.runs(QUERIES[index])
    statement, parameters = next(each for each in asked if "ORDER BY" in each[0])
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        plan = connection.execute(f"EXPLAIN {statement}".encode(), parameters).fetchall()
    assert index in "\n".join(line for (line,) in plan), plan
    await store.aclose()


@pytest.mark.parametrize("index", [name for name in QUERIES if name != "runs_by_metadata"])
async def test_listing_runs_uses_an_index_on_sqlite(sqlite_uri: str, index: str) -> None:
    store = await SqlStateStore.open(sqlite_uri)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    await store.runs(QUERIES[index])
    statement, parameters = next(each for each in asked if "ORDER BY" in each[0])

    def explained(connection: sa.Connection) -> str:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "\n".join(row.detail for row in rows)

    assert index in await store.read(explained)
    await store.aclose()


@pytest.mark.parametrize(("hooks", "writes"), [((), 3), ((nothing,), 4)], ids=["alone", "watched"])
async def test_the_last_step_and_the_end_of_a_run_are_one_commit_unless_a_listener_hears_of_the_step(
    hooks: tuple[Any, ...], writes: int
) -> None:
    store: Any = StoppingStore(MemoryStateStore(), 100)
    tree = pipeline(*(call(f"s{n}", CallableRef.of(answer)) for n in range(3)))
    async with Flujo[Any, Any, Any](tree, store=store, hooks=hooks) as runner:
        result = await runner.run_result_async("begin")
    assert result.success
    assert 100 - store.allowed == writes
    assert len(await store.entries(result.run_id)) == 3


async def test_a_second_store_compiles_no_statement_again(store_uri: str) -> None:
    first = await SqlStateStore.open(store_uri)
    compiled = driver_text.cache_info().misses
    second = await SqlStateStore.open(store_uri)
    assert driver_text.cache_info().misses == compiled
    await first.aclose()
    await second.aclose()


async def test_steps_share_a_cursor_on_postgres(postgres_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqlStateStore(postgres_uri)
    run = await store.accept(new_run(), {})
    made: list[Any] = []
    cursor = postgres_connection.Connection.cursor

    def counted(*given: Any) -> Any:
        made.append(given)
        return cursor(*given)

    monkeypatch.setattr(postgres_connection.Connection, "cursor", counted)
    for seq in range(1, 21):
        await store.write(writes(run, entry(seq)))
    assert len(made) < 10  # renewals of the lease make one as well
    await store.aclose()


async def test_a_young_database_is_read_by_key(empty_postgres_uri: str) -> None:
    """Postgres plans the statements of a new database while it is empty, and keeps the plans."""
    await asyncio.to_thread(migrations.migrate, empty_postgres_uri)
    store = SqlStateStore(empty_postgres_uri)
    ask = HumanInTheLoopStep(name="ok", message=Text("ok?"))
    async with Flujo[Any, Any, Any](pipeline(ask), store=store, recovery=False) as runner:
        for number in range(20):
            await runner.run_result_async(None, run_id=f"run-{number}")
            await runner.resume_async(f"run-{number}", "yes")
    await store.aclose()
    with psycopg.connect(empty_postgres_uri) as connection:
        read = "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'flujo'"
        whole: dict[str, int] = dict(connection.execute(read).fetchall())
    assert all(whole[name] <= 20 for name in ("runs", "journal", "pauses")), whole  # a row a run


def test_an_array_arrives_as_it_was_given_whether_its_values_repeat_or_not(postgres_uri: str) -> None:
    columns: list[tuple[str, list[Any]]] = [
        ("text", ["a", "a", "a"]),
        ("text", ["ä", None, ""]),
        ("bytea", [None, None]),
        ("bytea", [b"\x00", b"\x00\x01"]),
        ("bigint", [7, 7]),
        ("integer", [-1, 2, None]),
        ("float8", [0.0, -0.0, 1.5]),
        ("boolean", [True, False, None]),
        ("text", []),
    ]
    with psycopg.connect(postgres_uri) as connection:
        connection.adapters.register_dumper(Array, ArrayDumper)
        for element, values in columns:
            query = f"SELECT CAST(%s AS {element}[])".encode()
            found = connection.execute(query, (Array(element, values),), binary=True).fetchone()
            assert repr(found) == repr((values,))


BATCHES = 500


def _settled_batches(connection: sa.Connection) -> None:
    """Make the entries and the settled waits of a run's batches, and as many runs that have ended."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL search_path = flujo")
    places = [f"each[{n}..{n}]" for n in range(BATCHES)]
    wait = {"run_id": RUN, "message": "", "asked_at": 1.0, "answered_at": 2.0, "void": False}
    wait |= {"digest": b"", "kind": "children"}
    waits = [{**wait, "pause_id": place, "position": n} for n, place in enumerate(places)]
    connection.execute(pauses.insert(), waits)
    end = {"run_id": RUN, "kind": "done", "attempt": 1, "parent": "each[..]", "status": "completed"}
    end |= {"fingerprint": "map", "started_at": 1.0, "ended_at": 2.0, "digest": b""}
    connection.execute(
        journal.insert(), [{**end, "path": each, "seq": n} for n, each in enumerate(places, 1)]
    )
    columns = [column.name for column in runs.c]
    special = {"run_id": "path", "status": "'completed'"}
    values = ", ".join(special.get(name, f"runs.{name}") for name in columns)
    into = f"INSERT INTO runs ({', '.join(columns)})"
    connection.execute(sa.text(f"{into} SELECT {values} FROM runs, journal"))


async def _with_a_wait(store: SqlStateStore) -> None:
    """Accept a run that waits for one batch of its map."""
    run = await store.accept(new_run(), {})
    asked = canonical.encode({"tasks": ["its-batch"]})
    place = StepPath("each[900..900]")
    wait = Pause(pause_id=place, message="waits", answer_schema=asked, kind=PauseKind.CHILDREN)
    await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(wait,)))


WAKE: dict[str, Callable[[sa.Connection], Any]] = {
    "progress": lambda connection: queries.progress(connection, [RUN]),
    "open waits": lambda connection: queries.open_questions(connection, [RUN]),
    "run": lambda connection: queries.records(connection, [RUN]),
    "end of a batch": lambda connection: families.wake(connection, statements_for(None), [RUN], 3.0),
}
"""What is read when a batch has ended, and when the run of its map continues."""


async def test_the_end_of_a_batch_reads_nothing_of_the_settled_ones_on_sqlite(sqlite_uri: str) -> None:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def cost(connection: sa.Connection) -> dict[str, int]:
        """Return how many hundreds of instructions each read takes."""
        nonlocal counted
        driver: Any = connection.connection.dbapi_connection
        driver.set_progress_handler(count, 100)
        found = {}
        for name, read in WAKE.items():
            counted = 0
            read(connection)
            found[name] = counted
        driver.set_progress_handler(None, 100)
        return found

    async with aclosing(await SqlStateStore.open(sqlite_uri)) as store:
        await _with_a_wait(store)
        before = await store.write_apart(cost)
        await store.write_apart(_settled_batches)
        after = await store.write_apart(cost)
    assert all(after[name] <= before[name] + 1 for name in WAKE), (before, after)


def _read_on_postgres(connection: sa.Connection) -> int:
    """Return how many rows Postgres reads from tables and indexes for a wake."""
    connection.exec_driver_sql("SET LOCAL search_path = flujo")
    connection.exec_driver_sql("ANALYZE")
    asked: list[tuple[str, Any]] = []
    fetched = functions.fetch_all

    def noted(connection: Any, statements: Any, parameters: Any) -> Any:
        asked.extend((driver_text(each, "flujo"), parameters) for each in statements)
        return fetched(connection, statements, parameters)

    with pytest.MonkeyPatch.context() as patched:
        for module in (functions, queries):
            patched.setattr(module, "fetch_all", noted)
        for read in WAKE.values():
            read(connection)

    def read_by(node: dict[str, Any]) -> float:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        is_scan = "Relation Name" in node
        return float(own * is_scan + sum(map(read_by, node.get("Plans", ()))))

    driver: Any = connection.connection.dbapi_connection
    found = 0.0
    for text, parameters in asked:
        [[[plan]]] = driver.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", parameters).fetchall()
        found += read_by(plan["Plan"])
    return round(found)


async def test_the_end_of_a_batch_reads_nothing_of_the_settled_ones_on_postgres(postgres_uri: str) -> None:
    async with aclosing(SqlStateStore(postgres_uri)) as store:
        await _with_a_wait(store)
        await store.write_apart(_settled_batches)
        assert await store.write_apart(_read_on_postgres) <= 20
