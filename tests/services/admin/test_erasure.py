"""A person is erased: the runs with all that belongs to them, what names the person, and the bytes in files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
import zstandard

from flujo.domain import canonical
from flujo.domain.acts import Actor, Verb, Via
from flujo.domain.erasure import Subject
from flujo.domain.evaluations import Evaluation
from flujo.domain.journal import RunId
from flujo.domain.pipeline import CachePolicy
from flujo.domain.queues import RunKind
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import ContinueAsNewStep, HumanInTheLoopStep, Step, StepConfig, Text
from flujo.exceptions import ErasureRefused, RunNotFound, SettingsError, StateBackendUnavailable
from flujo.services.access import sessions
from flujo.services.admin.erasure import Paused, erase, read_subject
from flujo.services.admin.purge import purge
from flujo.services.runs.runner import Flujo
from flujo.state.sql import database, erasure, tables
from flujo.state.sql.tables import metadata
from flujo.state.store import SqlStateStore
from support import World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.erasure import Proof
    from flujo.domain.pipeline import Pipeline

ADA = Actor("ada", Via.CLI)
ANA = Subject("user_id", "ana-CANARY")
BOB = "bob"
OF_A_USER = {"type": "object", "properties": {"user_id": {"type": "string"}, "now": {"type": "string"}}}
BIG = 20_000


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    """A store in a database of its own."""
    made = SqlStateStore(store_uri)
    yield made
    await made.aclose()


def tree(*, asks: bool = False) -> Pipeline:
    """Return a pipeline with a large value, a cached answer, a call with a key and a background task."""
    world = World()
    steps: list[Any] = [
        Step("large", world.add("large", lambda data: data.ljust(BIG)), enforce_idempotency=True),
        call("cached", world.add("cached", lambda data: data[:40]), cache=CachePolicy()),
        Step("task", world.add("task"), config=StepConfig(execution_mode="background")),
    ]
    if asks:
        steps.append(HumanInTheLoopStep("ask", message=Text("is {{ input }} right?")))
    return pipeline(*steps, name="letters", context_schema=OF_A_USER)


async def run(store: SqlStateStore, user: str, run_id: str, value: str, **more: Any) -> None:
    """Execute a run of a person until it ends or waits, with its task."""
    asks = more.pop("asks", False)
    async with Flujo[Any, Any, Any](
        tree(asks=asks), store=store, cache=store.cache(), recovery=False
    ) as runner:
        await runner.run_result_async(value, run_id=run_id, initial_context_data={"user_id": user}, **more)


async def counts(store: SqlStateStore) -> dict[str, int]:
    """Return how many rows each table has."""

    def count(connection: sa.Connection) -> dict[str, int]:
        return {
            table.name: int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
            for table in metadata.sorted_tables
        }

    return await store.read(count)


async def add_rows(store: SqlStateStore, run_id: str, user: str) -> None:
    """Add to a run what these pipelines do not write: a message, a line of the feed, a score, a counter."""
    await store.add_evaluations(
        [
            Evaluation(
                key=f"{run_id}-{number}",
                run_id=RunId(scored),
                pipeline="letters",
                closure="c",
                user_id=user,
                evaluator="person",
                score=0.5,
                reason=f"{user} wrote well",
                by="ada",
            )
            for number, scored in enumerate((run_id, "purged-long-ago"))
        ]
    )
    payload = canonical.encode(f"a message about {user}")

    def insert(connection: sa.Connection) -> None:
        at = {"created_at": 1.0, "available_at": 1.0, "tries": 0, "digest": b"d"}
        connection.execute(
            tables.outbox.insert().values(run_id=run_id, target="t", event="failed", payload=payload, **at)
        )
        connection.execute(
            tables.feed.insert().values(run_id=run_id, number=1, at=1.0, kind="text", data=payload)
        )
        scope = canonical.encode({"user": user}).decode()
        for name, key in (("budget:team", scope), ("budget:all", "{}")):
            found = tables.limits.c.name == name, tables.limits.c.key == key
            connection.execute(tables.limits.delete().where(*found))
            connection.execute(tables.limits.insert().values(name=name, key=key, window=0, used=5, held=0))

    await store.write_apart(insert)


async def erased(store: SqlStateStore, paused: Paused | None = None, **more: Any) -> Proof:
    return await erase(store, ANA, actor=ADA, paused=paused, **more)


async def test_nothing_of_a_person_is_left_and_everything_of_others_is(store: SqlStateStore) -> None:
    await run(store, BOB, "bob-1", "a letter of Bob")
    await add_rows(store, "bob-1", BOB)
    before = await counts(store)
    await run(store, ANA.value, "ana-1", "a letter of Ana")
    await add_rows(store, "ana-1", ANA.value)
    proof = await erased(store)
    after = await counts(store)
    acts = before.pop("acts"), after.pop("acts")
    assert after == before
    assert acts[1] == acts[0] + 3, "the family, what belongs to no run, and the proof"
    removed = {each.table: each.removed for each in proof.tables}
    assert removed.pop("blobs") >= 1
    assert {name for name, count in removed.items() if not count} == {
        "pauses",
        "budget_holds",
        "events",
        "sessions",
    } | ({"acts"} if not proof.count("acts").removed else set())
    assert (proof.count("runs").removed, proof.count("evaluations").removed) == (2, 2)
    assert proof.count("blobs").kept >= 1, "the files of the pipeline, which Bob's run names too"
    assert "others" in proof.count("blobs").why


async def test_a_run_with_many_entries_is_erased_in_parts_with_the_same_proof(
    store: SqlStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []
    for most in (erasure.ENTRIES, 1):
        monkeypatch.setattr(erasure, "ENTRIES", most)
        await run(store, ANA.value, "ana-1", "a letter of Ana")
        await add_rows(store, "ana-1", ANA.value)
        before = len(await store.read(lambda c: c.execute(sa.select(tables.acts.c.id)).all()))
        removed.append({each.table: each.removed for each in (await erased(store)).tables})
        transactions = len(await store.read(lambda c: c.execute(sa.select(tables.acts.c.id)).all())) - before
        assert (transactions > 10) == (most == 1), "each has an act with its counts"
    assert removed[0] == removed[1]
    assert (await counts(store))["runs"] == 0


async def test_an_erasure_that_was_interrupted_amid_a_run_is_finished_by_the_next_and_not_by_a_purge(
    store: SqlStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(store, ANA.value, "ana-1", "a letter of Ana")
    whole = await counts(store)
    monkeypatch.setattr(erasure, "ENTRIES", 1)
    erase_part, parts = erasure.erase_part, iter(range(3))

    def interrupted(*given: Any) -> bool:
        if next(parts, None) is None:
            raise ErasureRefused("stop here")
        return erase_part(*given)

    monkeypatch.setattr(erasure, "erase_part", interrupted)
    with pytest.raises(ErasureRefused, match="stop here"):
        await erased(store)
    left = await counts(store)
    assert 0 < left["journal"] < whole["journal"]
    [hidden] = await store.read(
        lambda c: c.scalars(sa.select(tables.runs.c.run_id).where(tables.runs.c.wish == "purge"))
    )
    with pytest.raises(RunNotFound):
        await store.run(RunId(hidden))
    await purge(store, [RunStatus.COMPLETED, RunStatus.CANCELLED], 3600.0)
    assert (await counts(store))["journal"] == left["journal"]
    monkeypatch.setattr(erasure, "erase_part", erase_part)
    proof = await erased(store)
    assert (proof.count("runs").removed, proof.count("journal").removed) == (2, whole["journal"])
    assert (await counts(store))["runs"] == 0


async def test_the_proof_is_an_act_that_does_not_name_the_person(store: SqlStateStore) -> None:
    await run(store, ANA.value, "r-1", "a letter")
    proof = await erased(store)
    acts = await store.read(lambda c: c.execute(sa.select(tables.acts)).mappings().all())
    assert {(act["verb"], act["object"], act["by"], act["run_id"]) for act in acts} == {
        (str(Verb.ERASE), ANA.digest, "ada", None)
    }
    assert canonical.decode(acts[-1]["after"]) == canonical.decode(canonical.encode(proof.to_json()))
    assert ANA.value not in str(acts)
    assert proof.subject == canonical.digest(canonical.encode({"user_id": ANA.value}))
    again = await erased(store)
    assert sum(each.removed for each in again.tables) == 0, "the next proof begins anew"


async def test_a_run_that_waits_is_cancelled_or_kept_and_never_by_default(store: SqlStateStore) -> None:
    await run(store, ANA.value, "asks", "a question", asks=True)
    await run(store, ANA.value, "done", "a letter")
    before = await counts(store)
    with pytest.raises(ErasureRefused, match="`paused`") as refused:
        await erased(store)
    assert "--cancel-paused" in str(refused.value.hint)
    assert "--keep-paused" in str(refused.value.hint)
    assert await counts(store) == before
    proof = await erased(store, Paused.KEEP)
    assert (proof.count("runs").removed, proof.count("runs").kept) == (2, 2), "each with its task"
    assert "--keep-paused" in proof.count("runs").why
    assert (await store.pauses(RunId("asks")))[0].is_open
    proof = await erased(store, Paused.CANCEL)
    assert proof.count("runs").removed == 2
    assert proof.count("runs").why == "1 of them waited and were cancelled"
    assert (await counts(store))["pauses"] == 0


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.ACCEPTED])
async def test_a_live_run_is_refused_before_anything_is_deleted(store: SqlStateStore, status: str) -> None:
    for run_id in ("first", "live"):
        await run(store, ANA.value, run_id, "a letter")
    chosen = tables.runs.update().where(tables.runs.c.run_id == "live")
    await store.write_apart(lambda c: c.execute(chosen.values(status=str(status))))
    before = await counts(store)
    for paused in (None, *Paused):
        with pytest.raises(ErasureRefused, match="a process executes it") as refused:
            await erased(store, paused)
    assert "flujo tasks cancel live" in str(refused.value.hint)
    assert await counts(store) == before


async def test_a_run_that_changed_since_it_was_found_is_refused_under_its_lock(store: SqlStateStore) -> None:
    await run(store, ANA.value, "asks", "a question", asks=True)
    with pytest.raises(ErasureRefused):
        await store.erase_runs(ANA, [RunId("asks")], actor=ADA, cancel_paused=False)
    assert (await store.run(RunId("asks"))).status is RunStatus.PAUSED


async def test_forks_go_with_the_run_whatever_their_own_user(store: SqlStateStore) -> None:
    await run(store, ANA.value, "first", "a letter")
    async with Flujo[Any, Any, Any](tree(), store=store, recovery=False) as runner:
        await runner.fork_async("first", at="task", new_run_id="fork")

    def estrange(connection: sa.Connection) -> None:
        connection.execute(tables.runs.update().where(tables.runs.c.run_id != "first").values(user_id=None))

    await store.write_apart(estrange)
    [family] = await store.families_of(ANA)
    assert {run.run_id for run in family.runs} >= {"first", "fork"}
    assert len(family.runs) == 4
    await erased(store, Paused.CANCEL, batch=1)
    assert (await counts(store))["runs"] == 0


async def test_a_chain_goes_whole(store: SqlStateStore) -> None:
    chain = pipeline(
        ContinueAsNewStep("next", input="{{ input + 1 }}", when="input < 3"),
        context_schema=OF_A_USER,
        input_schema={"type": "integer"},
    )
    async with Flujo[Any, Any, Any](chain, store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id="c", initial_context_data={"user_id": ANA.value})
    one = tables.runs.update().where(tables.runs.c.run_id != "c~2")
    await store.write_apart(lambda c: c.execute(one.values(user_id=BOB)))
    [family] = await store.families_of(ANA)
    assert sorted(run.run_id for run in family.runs) == ["c", "c~2", "c~3"]
    assert (await erased(store)).count("runs").removed == 3


async def test_metadata_name_a_person_too_as_text_or_as_a_number(store: SqlStateStore) -> None:
    for run_id, customer in (("text", "7"), ("number", 7), ("other", 8)):
        await run(store, BOB, run_id, f"a letter of {customer}", metadata={"customer": customer})
    proof = await erase(store, read_subject("metadata.customer=7"), actor=ADA)
    assert proof.field == "metadata.customer"
    assert [run.run_id for run in await store.runs(RunQuery(kinds=(RunKind.RUN,)))] == ["other"]


async def test_a_score_of_a_purged_run_and_a_counter_go_without_a_run(store: SqlStateStore) -> None:
    await run(store, ANA.value, "old", "a letter")
    await add_rows(store, "old", ANA.value)
    await purge(store, [RunStatus.COMPLETED], 0.0)
    proof = await erased(store)
    assert (proof.count("evaluations").removed, proof.count("limits").removed) == (2, 1)
    assert [each.scope for each in await store.budget_counters()] == ["{}"]


async def test_logins_of_a_user_go_and_those_of_others_stay(store: SqlStateStore) -> None:
    for name in (ANA.value, BOB):
        secret, _ = await sessions.begin(store, name, "hash", lives_s=60.0, address="10.0.0.1")
        await sessions.end(store, secret)
        await sessions.begin(store, name, "hash", lives_s=60.0, address="10.0.0.1")
        await sessions.record_refusal(store, name, address="10.0.0.1")
    proof = await erase(store, read_subject(f"metadata.name={ANA.value}"), actor=ADA)
    assert proof.count("sessions").looked_at == 0, "a name in metadata is not that of a user"
    proof = await erased(store)
    removed = {each.table: each.removed for each in proof.tables if each.removed}
    assert removed == {"sessions": 1, "acts": 4}, "two logins, a logout and a refusal"
    assert (proof.count("sessions").kept, proof.count("acts").kept) == (0, 0)
    left = await store.read(lambda c: c.execute(sa.select(tables.sessions.c.name)).scalars().all())
    assert left == [BOB]
    named = sa.select(tables.acts.c.object).where(tables.acts.c.verb != str(Verb.ERASE))
    assert set(await store.read(lambda c: c.execute(named).scalars().all())) == {BOB}


async def test_a_counter_stays_while_a_run_of_the_person_is_left(store: SqlStateStore) -> None:
    await run(store, ANA.value, "asks", "a question", asks=True)
    await add_rows(store, "asks", ANA.value)
    proof = await erased(store, Paused.KEEP)
    assert (proof.count("limits").removed, proof.count("limits").kept) == (0, 1)
    assert proof.count("evaluations").kept == 1


@pytest.mark.parametrize("text", ["", "user_id", "user_id=", "name=ana", "metadata.=x", "metadata.a b=x"])
def test_a_subject_is_a_user_or_a_value_of_metadata(text: str) -> None:
    with pytest.raises(SettingsError):
        read_subject(text)


# The bytes -----------------------------------------------------------------------------------------------

MARK = b"CANARY"


async def _of_both(store: SqlStateStore) -> None:
    """Write runs of two people, and change rows, so that pages have remains of earlier versions."""
    for number in range(3):
        await run(store, ANA.value, f"ana-{number}", f"{number} {ANA.value} lives in CANARY street")
        await add_rows(store, f"ana-{number}", ANA.value)
    await run(store, ANA.value, "asks", f"is {ANA.value} here?", asks=True)
    await run(store, BOB, "bob-1", "a letter of Bob")

    def rewrite(connection: sa.Connection) -> None:
        for _ in range(3):
            connection.execute(tables.runs.update().values(claims=tables.runs.c.claims + 1))

    await store.write_apart(rewrite)


def found_in(folder: Path, *, without: str = "") -> list[str]:
    """Return the files below a folder that have the mark, in their bytes."""
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (without and without in path.parts) and MARK in path.read_bytes()
    ]


async def _in_blobs(store: SqlStateStore) -> list[str]:
    """Return the contents that have the mark once they are decompressed."""
    rows = await store.read(lambda c: c.execute(sa.select(tables.blobs)).mappings().all())
    return [
        row["digest"]
        for row in rows
        if MARK in (zstandard.decompress(row["data"]) if row["encoding"] == "zstd" else bytes(row["data"]))
    ]


async def test_no_byte_of_a_person_is_left_in_the_files_of_sqlite(sqlite_uri: str) -> None:
    folder = Path(str(sa.make_url(sqlite_uri).database)).parent
    store, other = SqlStateStore(sqlite_uri), SqlStateStore(sqlite_uri)
    await _of_both(store)
    assert (await other.run(RunId("bob-1"))).user_id == BOB, "a second store has the database open too"
    assert found_in(folder)
    assert await _in_blobs(store)
    proof = await erased(store, Paused.CANCEL)
    assert proof.is_overwritten
    assert (found_in(folder), await _in_blobs(store)) == ([], [])
    assert (await other.run(RunId("bob-1"))).status is RunStatus.COMPLETED
    await store.aclose()
    await other.aclose()
    assert found_in(folder) == []


async def test_a_log_that_another_process_reads_is_an_error_and_the_next_erasure_writes_the_proof(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    store = SqlStateStore(sqlite_uri, retry_s=0.1)
    await run(store, ANA.value, "ana-1", "a letter")
    with closing(sqlite3.connect(str(sa.make_url(sqlite_uri).database))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        with pytest.raises(StateBackendUnavailable, match="a process reads from it"):
            await erased(store)
    assert (await counts(store))["runs"] == 0
    proof = await erased(store)
    assert proof.count("runs").removed == 2, "by the erasure that failed"
    await store.aclose()


async def test_no_byte_of_a_person_is_left_in_the_tables_of_postgres(postgres_uri: str) -> None:
    with psycopg.connect(postgres_uri) as connection:
        [data] = connection.execute("SHOW data_directory").fetchone() or [""]
    store = SqlStateStore(postgres_uri)
    await _of_both(store)
    proof = await erased(store, Paused.CANCEL)
    assert not proof.is_overwritten
    proof = await erased(store, vacuum_full=True)
    assert proof.is_overwritten
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    folder = Path(data)
    assert (found_in(folder / "base"), await _in_blobs(store)) == ([], [])
    assert found_in(folder, without="pg_wal") == []
    assert any("pg_wal" in place for place in proof.out_of_reach)
    await store.aclose()
