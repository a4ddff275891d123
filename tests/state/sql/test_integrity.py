"""`flujo doctor` reports each damage in the newest runs with its run, and nothing for sound runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import Intent, IntentState, Pause, RunQuery, Write
from flujo.domain.usage import Usage
from flujo.exceptions import CorruptState
from flujo.state.sql import migrations
from flujo.state.sql.integrity import soundness
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import entry, new_run
from support import PROGRAMS, World, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUNS = [RunId("first"), RunId("second"), RunId("third")]
EVERYTHING = PROGRAMS["everything"]

DAMAGE = {
    "UPDATE {p}journal SET output = {bytes} WHERE run_id = 'second' AND seq = 2": "journal entry 2",
    "UPDATE {p}journal SET usage = {used} WHERE run_id = 'second' AND seq = 2": "journal entry 2",
    "UPDATE {p}journal SET ended_at = ended_at + 1 WHERE run_id = 'second' AND seq = 3": "journal entry 3",
    "DELETE FROM {p}journal WHERE run_id = 'second' AND seq = 4": "journal entry 4 is missing",
    "UPDATE {p}runs SET input = {bytes} WHERE run_id = 'second'": "run second is corrupt",
    "UPDATE {p}runs SET closure = 'none' WHERE run_id = 'second'": "the content none is missing",
}


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    """A store with three completed runs."""
    made = SqlStateStore(store_uri)
    for run_id in RUNS:
        await start(EVERYTHING.build(World()), made, 1, run_id=run_id)
    yield made
    await made.aclose()


def change(store: SqlStateStore, statement: str) -> None:
    """Change rows without the store; `{bytes}` and `{used}` stand for foreign bytes."""
    made = "decode('{}', 'hex')" if store.database.is_postgres else "x'{}'"
    garbage, used = (made.format(data.hex()) for data in (b"{} ", b'{"requests":1}'))
    text = statement.format(p=store.database.table_prefix, bytes=garbage, used=used)
    with store.database.writing() as connection:
        connection.exec_driver_sql(text)


async def test_undamaged_runs_have_no_findings(store: SqlStateStore, store_uri: str) -> None:
    found = soundness(store_uri)
    assert (found.runs, found.damaged) == (3, ())
    assert found.entries == sum([len(await store.entries(run_id)) for run_id in RUNS])


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize(("statement", "told"), DAMAGE.items())
async def test_damage_is_reported_with_its_run(
    store: SqlStateStore, store_uri: str, statement: str, told: str
) -> None:
    change(store, statement)
    found = soundness(store_uri)
    assert found.runs == 3
    assert {each.run_id for each in found.damaged} == {"second"}
    assert any(told in each.error.message for each in found.damaged), found


async def test_a_damaged_blob_is_reported_for_each_run_that_needs_it(
    store: SqlStateStore, store_uri: str
) -> None:
    change(store, "UPDATE {p}blobs SET data = {bytes}")
    found = soundness(store_uri)
    assert {each.run_id for each in found.damaged} == set(RUNS)
    assert all(isinstance(each.error, CorruptState) for each in found.damaged)


async def test_the_pinned_files_of_a_run_are_checked(store_uri: str) -> None:
    file = b"steps: []"
    closure = canonical.encode({"files": {"walk.yaml": canonical.digest(file)}})
    kept = {canonical.digest(content): content for content in (file, closure)}
    store = SqlStateStore(store_uri)
    await store.accept(replace(new_run(), closure=canonical.digest(closure)), kept)
    assert soundness(store_uri).damaged == ()
    change(store, f"DELETE FROM {{p}}blobs WHERE digest = '{canonical.digest(file)}'")
    [damage] = soundness(store_uri).damaged
    assert f"the content {canonical.digest(file)} is missing" in damage.error.message
    await store.aclose()


async def test_metadata_that_is_not_json_is_reported_and_listings_still_work(
    sqlite_uri: str,
) -> None:
    store = SqlStateStore(sqlite_uri)
    await start(EVERYTHING.build(World()), store, 1)
    change(store, "UPDATE {p}runs SET metadata = '{{oh'")
    [damage] = soundness(sqlite_uri).damaged
    assert (damage.run_id, "run run: its metadata" in damage.error.message) == ("run", True)
    with pytest.raises(CorruptState, match="metadata of a run"):
        await store.runs(RunQuery())
    with pytest.raises(CorruptState, match="run run: its metadata"):
        await store.run(RunId("run"))
    await store.aclose()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE {p}pauses SET message = 'Other?'", "question 'q'"),
        ("UPDATE {p}intents SET tool = 'other'", "call "),
        ("UPDATE {p}budget_holds SET number = 7", "hold 7"),
    ],
)
async def test_questions_calls_and_holds_are_checked_too(store_uri: str, statement: str, told: str) -> None:
    store = SqlStateStore(store_uri)
    closure = canonical.encode({"python": "walk"})
    run = await store.accept(
        replace(new_run(), closure=canonical.digest(closure)), {canonical.digest(closure): closure}
    )
    path, used = StepPath("q"), Usage(requests=1)
    call = Intent(key="k", path=path, tool="a:b", state=IntentState.DONE, input=b"1")
    await store.write(
        Write(
            run_id=run.run_id,
            fence=run.fence,
            entries=(entry(1),),
            pauses=(Pause(pause_id=path, message="Shall we?"),),
            intents=(call,),
            holds=(Hold(path=path, number=1, state=HoldState.HELD, usage=used),),
        )
    )
    assert soundness(store_uri).damaged == ()
    change(store, statement)
    [damage] = soundness(store_uri).damaged
    assert told in damage.error.message
    await store.aclose()


async def test_only_the_newest_runs_are_checked(store: SqlStateStore, store_uri: str) -> None:
    change(store, "DELETE FROM {p}journal WHERE run_id = 'first' AND seq = 1")
    assert soundness(store_uri, newest=2) == soundness(store_uri, newest=2, most_entries=20_000)
    assert soundness(store_uri, newest=2).runs == 2
    assert soundness(store_uri, most_entries=1).runs == 1, "the newest run, damaged or not"
    assert [each.run_id for each in soundness(store_uri).damaged] == ["first"]


def test_a_database_without_runs_has_no_findings(sqlite_uri: str) -> None:
    migrations.migrate(sqlite_uri)
    assert soundness(sqlite_uri).runs == 0
