"""A peer that is a server of its own: started before the measurement, stopped after it.

W9 kills the process that runs the steps, never the server, so its two processes use their parent's server.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, os.environ["FLUJO_BENCH_HARNESS"])

_RUNNING = "FLUJO_BENCH_SERVER"
_START_S = 60
_STOP_S = 10

Ports = dict[str, int]


@contextmanager
def running(names: tuple[str, ...], command: Callable[[Path, Ports], list[str]]) -> Iterator[Ports]:
    """Start the server, or use that of the parent process; yield the named ports.

    Args:
        names: what the ports are for. The server listens on the first one when it is ready.
        command: returns the command line for a folder and the ports.
    """
    if _RUNNING in os.environ:
        yield json.loads(os.environ[_RUNNING])
        return
    folder = (
        Path(sys.argv[sys.argv.index("--workdir") + 1]).resolve() if "--workdir" in sys.argv else Path.cwd()
    )
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command(folder, ports), cwd=folder, stdout=log, stderr=log)
    try:
        _wait(server, ports[names[0]], folder / "server.log")
        os.environ[_RUNNING] = json.dumps(ports)
        yield ports
    finally:
        server.terminate()
        try:
            server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server accepts connections.

    Raises:
        SystemExit: it has ended, or does not listen in time.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode}: {log.read_text('utf-8')[-600:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"the server does not listen after {_START_S} s: {log.read_text('utf-8')[-600:]}")
