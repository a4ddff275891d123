"""A run as one file: it comes back as it was, and a file that is not as it was written is refused."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from durability.random_programs import AGENTS, AROUND, HUMAN
from durability.simulated import Simulation
from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import (
    CorruptState,
    ExportDamaged,
    ExportMasked,
    ExportTooNew,
    FlujoError,
    RunNotFound,
    SecretInValue,
    StateBackendUnavailable,
)
from flujo.governance.sink import Gate
from flujo.services.replay.export import _packed, export_run, write_file
from flujo.services.replay.pull import pull
from flujo.services.replay.recording import recorded_family
from flujo.services.replay.run_file import RunFile
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite.imports import CONTENT, DIGEST, TASK, recorded, task
from support import StoppingStore, World, everything, start

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.ports import StateStore
    from flujo.domain.recorded_run import RecordedRun

ADA = Actor("ada", Via.CLI)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate of this test's own, which knows one secret."""
    known = Gate()
    known.know(["hunter2-hunter2"], of="SHOP_KEY")
    monkeypatch.setattr("flujo.services.replay.export.GATE", known)
    return known


def file_with(*runs: RecordedRun) -> RunFile:
    return RunFile({run.run_id: run for run in runs}, {DIGEST: CONTENT}, set())


async def family_file(*runs: RecordedRun) -> bytes:
    return await export_run(file_with(*runs), runs[0].run_id)


def lines_of(data: bytes) -> list[dict[str, Any]]:
    text = zstandard.ZstdDecompressor().decompress(data)
    return [json.loads(line) for line in text.splitlines()]


def packed(lines: list[dict[str, Any]], *, sign: bool = True) -> bytes:
    """Return a file of these lines, as another tool could write it."""
    if sign:
        text = b"".join(canonical.encode(line) + b"\n" for line in lines[:-1])
        lines = [
            *lines[:-1],
            {**lines[-1], "lines": len(lines) - 1, "digest": canonical.digest(text)},
        ]
    return zstandard.compress(b"".join(canonical.encode(line) + b"\n" for line in lines))


async def test_an_exported_run_has_everything_that_is_recorded() -> None:
    run = recorded(RunStatus.PAUSED)
    file = RunFile.read(await family_file(run), "x")
    assert (file.run_id, list(file.runs)) == (run.run_id, [run.run_id])
    found = file.runs[run.run_id]
    assert found.record == run.record
    assert found.difference(run) == ""
    assert await file.blobs([DIGEST]) == {DIGEST: CONTENT}
    assert await file.ledger(run.run_id) == run.ledger
    assert (await file.find("@last")).run_id == (await file.find(run.run_id[:3])).run_id == run.run_id


@pytest.mark.parametrize("seeds", [range(3), range(3, 6)], ids=str)
async def test_export_import_export_gives_the_same_run(
    store: StateStore, seeds: range, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="flujo")  # the simulated database is often away
    for seed in seeds:
        simulation = Simulation(seed, also=(*HUMAN, *AROUND, *AGENTS))
        await asyncio.to_thread(simulation.run)  # in an event loop of its own
        for run in simulation.database.runs.values():
            run.record = replace(run.record, run_id=RunId(f"run-{seed}"))
            run.acts = [replace(act, run_id=run.record.run_id) for act in run.acts]
        runs = {run.record.run_id: run for run in simulation.database.runs.values()}
        source = MemoryStateStore(replace(simulation.database, runs=runs))
        await _goes_around(source, store, RunId(f"run-{seed}"))


async def _goes_around(source: StateStore, target: StateStore, run_id: RunId) -> None:
    """Check that a run is the same after an export, an import and a second export, and after a pull."""
    file = RunFile.read(await export_run(source, run_id), "x")
    assert file.runs[run_id].difference(await _one(source, run_id)) == ""
    pulled = await pull(file, run_id, target, actor=ADA, origin="a file")
    assert run_id in pulled.new
    again = RunFile.read(await export_run(target, run_id), "y")
    there = file.runs[run_id].pulled()
    assert again.runs[run_id].difference(there) == ""
    assert again.runs[run_id].blobs == there.blobs
    assert again.runs[run_id].record.closure == there.record.closure
    assert (await pull(source, run_id, target, actor=ADA, origin="elsewhere")).new == []


async def _one(source: StateStore, run_id: RunId) -> RecordedRun:
    return (await recorded_family(source, run_id))[0]


@pytest.mark.parametrize("allowed", [1, 4, 9, 100])
async def test_a_run_goes_from_database_to_database_wherever_it_was_cut_off(
    store: StateStore, allowed: int
) -> None:
    source, world = MemoryStateStore(), World()
    try:
        await start(everything(world), StoppingStore(source, allowed), {"n": 1})
    except StateBackendUnavailable:
        pass
    await _goes_around(source, store, RunId("run"))


async def test_background_tasks_are_in_the_file_of_their_parent() -> None:
    launching = replace(recorded().entries[1], detail=None, output=canonical.encode({"task_id": TASK}))
    parent = replace(recorded(), entries=(recorded().entries[0], launching))
    file = RunFile.read(await family_file(parent, task()), "x")
    assert list(file.runs) == [parent.run_id, TASK]
    alone = RunFile.read(await family_file(parent), "x")
    assert list(alone.runs) == [parent.run_id]


async def test_a_run_with_a_missing_content_is_not_exported() -> None:
    run = recorded()
    with pytest.raises(CorruptState, match=DIGEST):
        await export_run(RunFile({run.run_id: run}, {}, set()), run.run_id)
    with pytest.raises(RunNotFound):
        await export_run(file_with(run), RunId("other"))


async def test_the_lines_can_be_read_by_other_tools() -> None:
    start_line, *between, end = lines_of(await family_file(recorded()))
    assert (start_line["format"], start_line["version"], start_line["runs"]) == ("flujo-run", 1, ["run-1"])
    assert (end["type"], end["lines"]) == ("end", len(between) + 1)
    kinds = [line["type"] for line in between]
    assert kinds == [
        *("run", "entry", "entry", "pause", "pause", "intent", "act", "act", "hold", "time", "time"),
        "content",
    ]
    assert between[-1] == {"type": "content", "digest": DIGEST, "json": {"python": "triage"}}


async def test_contents_of_any_kind_come_back() -> None:
    contents = [b'{"a":[1,null]}', "ä\n".encode(), b"\x00\xff", b"nul \x00", b'{"b": 1}', b""]
    run = recorded(closure=canonical.digest(contents[0]))
    blobs = {canonical.digest(each): each for each in contents}
    run = replace(run, blobs=blobs)
    file = RunFile.read(_packed([run])[0], "x")
    assert file.runs[run.run_id].blobs == blobs


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda lines: lines[2].update(output="changed"),
            "line 3: the digest of journal entry 1 at 'step_1'",
        ),
        (lambda lines: lines.pop(2), "line 3: journal entry 1 is missing"),
        (lambda lines: lines[2].pop("path"), "line 3: 'path' is missing"),
        (lambda lines: lines[1].update(status="happy"), "line 2: 'happy' is not a valid RunStatus"),
        (lambda lines: lines[12].update(json="changed"), f"line 13: the digest of content {DIGEST} differs"),
        (lambda lines: lines[5].update(type="other"), "line 6: version 1 has no lines of type 'other'"),
        (lambda lines: lines[0].update(format="x"), "it is not the file of a run"),
        (lambda lines: lines[0].update(version="x"), "its version is 'x'"),
        (lambda lines: lines[0].update(runs=["run-1", "run-2"]), "it lacks a run that its first line names"),
        (lambda lines: lines.__setitem__(3, [1]), "line 4:"),
    ],
)
async def test_a_changed_line_is_named(change: Any, why: str) -> None:
    lines = lines_of(await family_file(recorded()))
    change(lines)
    with pytest.raises(ExportDamaged) as raised:
        RunFile.read(packed(lines), "a.jsonl.zst")
    assert raised.value.message.startswith(f"a.jsonl.zst is damaged: {why}")


async def test_a_change_that_no_line_shows_is_found_by_the_digest_over_all() -> None:
    lines = lines_of(await family_file(recorded()))
    lines[1]["user_id"] = "somebody else"
    with pytest.raises(ExportDamaged, match="the digest over its lines differs"):
        RunFile.read(packed(lines, sign=False), "x")


async def test_a_file_that_was_cut_off_or_is_something_else_is_refused() -> None:
    data = await family_file(recorded())
    lines = lines_of(data)
    for damaged in (
        data[:-9],
        data[:4],
        b"",
        b"hello",
        data + b"x",
        zstandard.compress(b""),
        packed(lines[:-1], sign=False),
    ):
        with pytest.raises(ExportDamaged):
            RunFile.read(damaged, "x")
    for place in range(0, len(data), 37):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ExportDamaged):
            RunFile.read(flipped, "x")


async def test_a_file_that_was_compressed_from_a_pipe_is_read() -> None:
    data = await family_file(recorded())
    text = zstandard.ZstdDecompressor().decompress(data)
    packer = zstandard.ZstdCompressor().compressobj()  # which does not know the size in advance
    piped = packer.compress(text) + packer.flush()
    assert RunFile.read(piped, "x").run_id == "run-1"
    with pytest.raises(ExportDamaged):
        RunFile.read(piped[:-20], "x")


async def test_a_newer_version_is_another_error() -> None:
    lines = lines_of(await family_file(recorded()))
    lines[0]["version"] = 2
    with pytest.raises(ExportTooNew) as raised:
        RunFile.read(packed(lines), "x")
    assert (raised.value.version, raised.value.file) == (2, "x")


async def test_known_secrets_are_masked_and_the_digests_stay(gate: Gate) -> None:
    secret = "hunter2-hunter2"
    run = recorded(output=canonical.encode({"said": f"the key is {secret}"}), error=None)
    told = replace(run.entries[1], output=canonical.encode(secret))
    act = Act(verb=Verb.RETRY, actor=ADA, run_id=run.run_id, after=canonical.encode(secret), at=1.0)
    run = replace(run, entries=(run.entries[0], told), acts=(act,))
    data = await family_file(run)
    assert secret.encode() not in zstandard.ZstdDecompressor().decompress(data)
    file = RunFile.read(data, "x")
    assert file.runs[run.run_id].entries[1].output == b'"***"'
    line = next(line for line in lines_of(data) if line.get("seq") == 2)
    assert (line["digest"], line["masked"]) == (told.digest(), True)


async def test_a_masked_content_is_shown_but_not_imported(gate: Gate) -> None:
    content = b"use hunter2-hunter2 to log in"
    digest = canonical.digest(content)
    run = recorded(closure=digest)
    file = RunFile.read(_packed([replace(run, blobs={digest: content})])[0], "x")
    assert file.masked == {digest}
    assert file.runs[run.run_id].blobs == {digest: b"use *** to log in"}


async def test_a_masked_pinned_file_is_not_executed_elsewhere(gate: Gate) -> None:
    prompt = b"use hunter2-hunter2 to log in"
    manifest = canonical.encode(
        {"entry": "a.yaml", "files": {"p.md": canonical.digest(prompt)}, "overrides": {}}
    )
    run = recorded(closure=canonical.digest(manifest))
    blobs = {canonical.digest(each): each for each in (prompt, manifest)}
    source = RunFile({run.run_id: replace(run, blobs=blobs)}, blobs, set())
    file = RunFile.read(await export_run(source, run.run_id), "x")
    with pytest.raises(ExportMasked):
        await pull(file, run.run_id, MemoryStateStore(), actor=ADA, origin="x")


async def test_a_run_with_a_secret_that_cannot_be_masked_is_not_exported(gate: Gate) -> None:
    binary = b"\x00\xff hunter2-hunter2"
    for run in (
        recorded(metadata={"hunter2-hunter2": 1}),
        replace(recorded(closure=canonical.digest(binary)), blobs={canonical.digest(binary): binary}),
    ):
        with pytest.raises(SecretInValue):
            _packed([run])


async def test_a_file_is_written_whole_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.zst"
    written = await write_file(file_with(recorded()), recorded().run_id, path)
    assert (written.size, written.masked) == (path.stat().st_size, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert RunFile.open(path).run_id == "run-1"
    with pytest.raises(FlujoError, match="cannot be written"):
        await write_file(file_with(recorded()), recorded().run_id, tmp_path / "none" / "x")
    with pytest.raises(ExportDamaged, match="cannot be read"):
        RunFile.open(tmp_path / "none")
    assert list(tmp_path.iterdir()) == [path]  # noqa: ASYNC240 - a test
