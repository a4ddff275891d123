"""When the writer or a reader thread fails, every pending and later call gets an error: none hangs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunQuery, RunStatus
from flujo.exceptions import StateBackendUnavailable, StateError
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, new_run, writes

if TYPE_CHECKING:
    from collections.abc import Callable


class Broken(BaseException):
    """Derives from `BaseException`, so that only the outermost handler sees it."""


def fails(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises `error`."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


async def opened(uri: str) -> Any:
    """Return a store that owns a run and keeps renewing its lease; untyped, so that tests can break its parts."""
    store = SqlStateStore(uri, lease_s=5.0, renew_s=0.05)
    await store.accept(new_run(), {})
    return store


async def outcomes(store: Any) -> list[BaseException | None]:
    """Return the outcomes of consecutive writes until one fails; raise `TimeoutError` when one hangs."""
    ended: list[BaseException | None] = []
    record = await store.run(RUN)
    async with asyncio.timeout(60):
        for seq in range(1, 4):
            try:
                await store.write(writes(record, entry(seq)))
            except StateError as error:
                ended.append(error)
            else:
                ended.append(None)
            await asyncio.sleep(0.1)
    return ended


@pytest.mark.parametrize(
    ("part", "callback"),
    [
        ("_leases", "seconds_to_renewal"),
        ("_leases", "begin_renewal"),
        ("_leases", "renewed"),
        ("writer._batches.holes", "succeeded"),
        ("writer._batches.holes", "before"),
        ("writer._batches", "append"),
        ("writer", "_attempt"),
    ],
)
@pytest.mark.guarantee("G13")
async def test_every_request_fails_after_the_writer_has_stopped(
    sqlite_uri: str, part: str, callback: str
) -> None:
    store = await opened(sqlite_uri)
    owner: Any = store
    for name in part.split("."):
        owner = getattr(owner, name)
    setattr(owner, callback, fails(Broken("of all")))
    ended = await outcomes(store)
    assert isinstance(ended[-1], StateError)
    assert "the writer has stopped: Broken: of all" in str(ended[-1])
    assert isinstance(ended[-1].__cause__, Broken)
    assert ended[-1].hint
    later: list[Callable[[], Any]] = [
        lambda: store.accept(new_run("other"), {}),
        lambda: store.claim(RUN, statuses=[RunStatus.RUNNING]),
        lambda: store.answer(RUN, "ask", b"1"),
    ]
    async with asyncio.timeout(60):
        for request in later:
            with pytest.raises(StateError, match="the writer has stopped"):
                await request()
        assert (await store.run(RUN)).status is RunStatus.RUNNING  # reading needs no writer
        await store.aclose()


@pytest.mark.guarantee("G13")
async def test_waiting_requests_fail_when_the_writer_stops(sqlite_uri: str) -> None:
    store = await opened(sqlite_uri)
    record = await store.run(RUN)
    store.writer._batches.append = fails(Broken())

    async def write(seq: int) -> object:  # a request that comes too late is refused at once
        return await store.write(writes(record, entry(seq)))

    async with asyncio.timeout(60):
        ended = await asyncio.gather(*map(write, range(1, 700)), return_exceptions=True)
    assert all(isinstance(each, StateError) for each in ended)
    await store.aclose()


async def test_a_request_made_while_the_writer_ends_does_not_hang(sqlite_uri: str) -> None:
    store = await opened(sqlite_uri)
    record = await store.run(RUN)
    store.writer.close()
    store.writer._closing.clear()  # `submit` has checked, and the thread ends before the request is enqueued
    async with asyncio.timeout(60):
        with pytest.raises(StateBackendUnavailable, match="closed"):
            await store.write(writes(record, entry(1)))
    await store.aclose()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("odd")])
@pytest.mark.parametrize("callback", ["renew", "give_back"])
async def test_a_failed_lease_renewal_does_not_stop_writes(
    sqlite_uri: str, callback: str, error: Exception
) -> None:
    store = await opened(sqlite_uri)
    setattr(store._leases, callback, fails(error))
    assert await outcomes(store) == [None] * 3
    await store.aclose()


async def test_a_file_that_cannot_be_checked_is_retried(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(sqlite_uri)
    real, path = os.stat, store.database.url.database
    failures = iter([PermissionError(13, "Permission denied"), OSError(116, "Stale file handle")])

    def stat(name: Any, *more: Any, **options: Any) -> Any:
        if name == path and (failure := next(failures, None)):
            raise failure
        return real(name, *more, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert await outcomes(store) == [None] * 3
    await store.aclose()


async def test_a_folder_replaced_by_a_file_counts_as_a_deleted_database(sqlite_uri: str) -> None:
    store = await opened(sqlite_uri)
    record = await store.run(RUN)
    folder = Path(store.database.url.database).parent
    folder.rename(folder.with_name("away"))
    folder.touch()
    async with asyncio.timeout(60):
        with pytest.raises(StateBackendUnavailable, match="deleted or replaced"):
            await store.write(writes(record, entry(1)))
    await store.aclose()


@pytest.mark.parametrize("where", ["question", "turn"])
async def test_after_a_failed_reader_pending_reads_fail_and_later_ones_succeed(
    sqlite_uri: str, where: str
) -> None:
    store = await opened(sqlite_uri)
    if where == "turn":
        store._readers._opened = fails(Broken("of all"))
    async with asyncio.timeout(60):
        broken = store.read(fails(Broken("of all")))
        ended = await asyncio.gather(
            broken, *(store.read(lambda _: 1) for _ in range(20)), return_exceptions=True
        )
        failed = [each for each in ended if isinstance(each, StateError)]
        assert failed, ended
        assert all("a read has failed: Broken: of all" in str(each) for each in failed)
        assert isinstance(failed[0].__cause__, Broken)
        store._readers._opened = store._open
        assert len(await store.runs(RunQuery())) == 1
        assert await store.entries(RunId(RUN)) == []
        await store.aclose()
