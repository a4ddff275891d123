"""A pooler in transaction mode between Flujo and Postgres: the real PgBouncer, with fewer servers than clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.state import migrations
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import entry, move, new_run, writes
from support import PROGRAMS, World, start

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """
[databases]
* = host={server} port={port} user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture
def pooled_uri(empty_postgres_uri: str, pooler: str) -> Iterator[str]:
    """An empty database of this test's own, by way of PgBouncer, which may open two connections to it."""
    url = sa.make_url(empty_postgres_uri)
    folder = Path(tempfile.mkdtemp(prefix="flujo-pool-"))
    folder.chmod(0o777)
    port = int(str(url.query.get("port") or url.port or 5432))
    server = url.query.get("host") or url.host
    (folder / "ini").write_text(CONFIGURATION.format(folder=folder, server=server, port=port))
    owner = Path(str(server)).owner() if str(server).startswith("/") else "nobody"
    other_user = ["-u", owner] if os.geteuid() == 0 else []  # it refuses to run as root
    uri = url.set(host=None, port=None, query={"host": str(folder), "port": str(port)})
    with subprocess.Popen(
        [pooler, "-q", *other_user, str(folder / "ini")], stderr=subprocess.DEVNULL
    ) as program:
        try:
            _wait_for(uri.render_as_string(hide_password=False), program)
            yield uri.render_as_string(hide_password=False)
        finally:
            program.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for(uri: str, program: subprocess.Popen[bytes]) -> None:
    while True:
        assert program.poll() is None, "PgBouncer has ended"
        try:
            psycopg.connect(uri, connect_timeout=1).close()
        except psycopg.OperationalError:
            continue
        return


@pytest.mark.guarantee("G15")
async def test_many_stores_share_two_servers(pooled_uri: str) -> None:
    migrations.migrate(pooled_uri)
    stores = [SqlStateStore(pooled_uri, lease_s=0.6, renew_s=0.1) for _ in range(4)]

    async def walk(store: SqlStateStore, name: str) -> None:
        run = await store.accept(new_run(name, metadata={"team": "blue"}), {})
        for seq in range(1, 9):  # often enough that psycopg would prepare what it sends
            await asyncio.gather(store.write(writes(run, entry(seq))), store.run(run.run_id))
        await store.write(move(run, RunStatus.COMPLETED, entries=8))

    jobs = [(store, f"{number}-{each}") for number, store in enumerate(stores) for each in range(5)]
    await asyncio.gather(*(walk(*job) for job in jobs))
    for store, name in jobs:
        assert (await store.run(RunId(name))).status is RunStatus.COMPLETED
        assert len(await store.entries(RunId(name))) == 8
    await asyncio.gather(*(store.aclose() for store in stores))


@pytest.mark.parametrize("name", sorted(PROGRAMS))
async def test_every_kind_of_step_runs_behind_a_pooler(pooled_uri: str, name: str) -> None:
    migrations.migrate(pooled_uri)
    store = SqlStateStore(pooled_uri)
    result = await start(PROGRAMS[name].build(World()), store, 1)
    assert result.output == PROGRAMS[name].output
    await store.aclose()
