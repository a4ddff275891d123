"""A run is followed from another process than its owner's, which is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import warm
from flujo.domain.run import RunQuery
from flujo.services.inspection.following import LogKind, LogLine, follow
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from flujo.domain.journal import RunId

PROGRAM = Path(__file__).with_name("followed_program.py")

pytestmark = pytest.mark.timeout(120)


def launch(uri: str, folder: Path) -> warm.Popen:
    """Start a process that executes the run."""
    return warm.Popen(
        [sys.executable, str(PROGRAM), uri, str(folder), "followed"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )


async def accepted(store: SqlStateStore) -> RunId:
    """Return the run once it is there."""
    while not (found := await store.runs(RunQuery())):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.05)
    return found[0].run_id


async def test_a_follower_sees_text_as_it_arrives_and_continues_with_the_next_owner(
    store_uri: str, tmp_path: Path
) -> None:
    first = launch(store_uri, tmp_path)
    seen: list[LogLine] = []
    async with (
        asyncio.timeout(100),
        aclosing(await SqlStateStore.open(store_uri)) as store,
        aclosing(follow(store, await accepted(store))) as lines,
    ):

        async def until(kind: LogKind, text: str = "") -> None:
            while not seen or (seen[-1].kind, seen[-1].text) != (kind, text):
                seen.append(await anext(lines))

        await until(LogKind.STARTED)  # it began before the run was followed
        (tmp_path / "begin").touch()
        await until(LogKind.LOGGED, "begun")
        (tmp_path / "Hello").touch()
        await until(LogKind.TEXT, "Hello")
        first.kill()
        await until(LogKind.LOST, "no process executes the run; it continues once one resumes it")
        second = launch(store_uri, tmp_path)
        await until(LogKind.STATUS, "running")
        await until(LogKind.TEXT, "Hello")  # a second request to the model
        (tmp_path / "and").touch()
        await until(LogKind.TEXT, " and")
        (tmp_path / "goodbye").touch()
        seen += [line async for line in lines]
    assert second.communicate(timeout=30)[0] == "Hello and goodbye\n"
    first.communicate(timeout=30)
    told = [(str(each.kind), each.path) for each in seen if each.kind is not LogKind.TEXT]
    # A log line is written up to a quarter of a second after it was logged, so it may come after the end of its step.
    assert ("logged", "begin") in told
    assert [each for each in told if each[0] not in ("status", "logged")] == [
        ("accepted", ""),
        ("started", "begin"),
        ("completed", "begin"),
        ("started", "write"),
        ("lost", ""),
        ("started", "write"),
        ("completed", "write"),
    ]
    assert (seen[-1].kind, seen[-1].text) == (LogKind.STATUS, "completed")
    numbers = [each.number for each in seen if each.provisional and each.kind is not LogKind.LOST]
    assert numbers == sorted(set(numbers))
