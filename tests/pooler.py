"""A real PgBouncer in transaction mode in front of Postgres, with two server connections for all clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

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


@contextmanager
def behind_a_pooler(uri: str, program: str) -> Iterator[str]:
    """Yield a URI that reaches the database at `uri` through PgBouncer, whose executable is given."""
    url = sa.make_url(uri)
    folder = Path(tempfile.mkdtemp(prefix="flujo-pool-"))
    folder.chmod(0o777)
    port = int(str(url.query.get("port") or url.port or 5432))
    server = url.query.get("host") or url.host
    (folder / "ini").write_text(CONFIGURATION.format(folder=folder, server=server, port=port))
    owner = Path(str(server)).owner() if str(server).startswith("/") else "nobody"
    other_user = ["-u", owner] if os.geteuid() == 0 else []  # it refuses to run as root
    through = url.set(host=None, port=None, query={"host": str(folder), "port": str(port)})
    pooled = through.render_as_string(hide_password=False)
    command = [program, "-q", *other_user, str(folder / "ini")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as pooler:
        try:
            _wait_for(pooled, pooler)
            yield pooled
        finally:
            pooler.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for(uri: str, pooler: subprocess.Popen[bytes]) -> None:
    while True:
        assert pooler.poll() is None, "PgBouncer has ended"
        try:
            psycopg.connect(uri, connect_timeout=1).close()
        except psycopg.OperationalError:
            continue
        return
