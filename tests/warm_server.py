"""Forks Python programs that have imported Flujo already: a command then starts in a tenth of the time.

    python warm_server.py SOCKET [--cold]

A client connects to SOCKET, sends a line of JSON (`argv`, `cwd`, `env`, `new_session`, `closed`) with its three standard
streams, and gets `pid N` and, when the program has ended, `status N` as `subprocess` writes it. The program is a
process of its own like any other: it has its own pid, can be killed and frozen, and ends as Python ends. It is
killed when its client goes away. This server ends when its own standard input does. With `--cold` it has imported nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

MOST = 1 << 20
"""Bytes of a request."""
LARGE, MADV_COLLAPSE = 2 << 20, 25
"""Bytes of a large page, and the advice to make one of many small ones (Linux 6.1)."""
OWN_ENDS = ("flujo.services.executors.dask", "flujo.services.executors.ray")
"""What registers functions for the exit of a process that cost more than most commands, whether or not they have work."""
WHEN_NEEDED = (
    "anyio._backends._asyncio",
    "cel_expr_python",
    "genai_prices.data",
    "mcp.client.stdio",
    "mcp.client.streamable_http",
    "mcp.server.mcpserver",
    "pydantic_ai.models.openai",
    "typer.main",
    "uvicorn",
)
"""What a command imports when it calls a model or evaluates an expression: up to a second of CPU."""


def preload() -> None:
    """Import what commands import, and compile what they compile; nothing that starts a thread."""
    import flujo

    for module in pkgutil.walk_packages(flujo.__path__, "flujo."):
        if not module.name.startswith(("flujo.testing", "flujo.__main__", *OWN_ENDS)):
            importlib.import_module(module.name)
    for name in WHEN_NEEDED:
        importlib.import_module(name)
    from flujo.services.binding import module_origins
    from flujo.state.sql import migrations
    from flujo.state.sql.statements import statements_for
    from flujo.state.sql.tables import SCHEMA

    for schema in (None, SCHEMA):
        statements_for(schema)
    module_origins.version("pydantic")  # reads the names of all installed files
    with tempfile.TemporaryDirectory() as folder:
        migrations.migrate(f"sqlite:///{folder}/state.db")
        build_commands(Path(folder) / "demo")
    gc.collect()
    gc.freeze()  # so that a child neither looks through these objects nor copies their pages
    use_large_pages()


def build_commands(folder: Path) -> None:
    """Build the commands and their parameters, and check a new project; nothing of the project is imported."""
    import typer.main

    from flujo.cli.app import app, imported
    from flujo.cli.root_help import COMMANDS
    from flujo.services.admin.scaffold import scaffold
    from flujo.services.checks.validation import compiled
    from flujo.services.project.project import find_project

    scaffold(folder, "demo")
    compiled(find_project(folder), "blueprints/hello.yaml")
    commands = [
        typer.main.get_command(app),
        *(imported(name) for section in COMMANDS.values() for name in section),
    ]
    for command in commands:
        for each in (command, *getattr(command, "commands", {}).values()):
            each.make_context("flujo", [], resilient_parsing=True)


def use_large_pages() -> None:
    """Use pages of 2 MiB where Linux can: a fork then copies a table of 100 pages, and not of 50,000."""
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, mode, _, _, _, *file = line.split()
        if mode == "rw-p" and file in ([], ["[heap]"]):
            first, end = (int(each, 16) for each in addresses.split("-"))
            for page in range(-(-first // LARGE) * LARGE, end - LARGE + 1, LARGE):
                # A kernel without this advice refuses it, and nothing changes.
                advise(ctypes.c_void_p(page), ctypes.c_size_t(LARGE), MADV_COLLAPSE)


class Program:
    """The program that this process has become, and how it ends."""

    status: int | None = None
    """Its exit code; None leaves the end to Python."""

    @classmethod
    def run(cls, request: dict[str, Any]) -> None:
        """Execute it; Python reports what it raises."""
        try:
            execute(request)
            cls.status = 0
        except SystemExit as end:
            cls.status = end.code if isinstance(end.code, int) else None if end.code else 0
            raise
        except Exception:
            cls.status = 1
            raise

    @classmethod
    def end(cls) -> None:
        """End the process where Python begins to take its modules apart, which costs more than most commands.

        Python has joined the threads and called what the program registered for its exit.
        """
        if cls.status is None:
            return
        gc.collect()  # as Python does: objects in circles may have finalizers
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()
        except OSError:
            return  # Python reports it, and changes the exit code
        os._exit(cls.status & 0xFF)


class Server:
    """Listens on a socket, and forks for each request."""

    def __init__(self, path: str) -> None:
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(f"{path}.new")
        self._door.listen(64)
        Path(f"{path}.new").rename(path)  # who sees the socket can connect
        self._wake, self._woken = socket.socketpair()  # written to by Python when a child has ended
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._clients: dict[int, socket.socket] = {}
        """By the pid of their program."""
        self._ready = selectors.DefaultSelector()
        for source in (self._door, self._woken, sys.stdin):
            self._ready.register(source, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any]:
        """Serve until standard input ends; returns in a child alone, with its request."""
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is sys.stdin:
                    sys.exit()
                elif key.fileobj is self._woken:
                    self._woken.recv(4096)
                    self._reap()
                elif key.fileobj is self._door:
                    if request := self._fork():
                        return request
                elif key.data in self._clients:  # a client says nothing more, so this is its end
                    os.kill(key.data, signal.SIGKILL)
                    self._ready.unregister(key.fileobj)

    def _fork(self) -> dict[str, Any] | None:
        client, _ = self._door.accept()
        request, streams = _request(client)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            self._ready.close()
            for each in (self._door, self._wake, self._woken, client, *self._clients.values()):
                each.close()
            _become(request, streams)
            return request
        for stream in streams:
            os.close(stream)
        self._clients[pid] = client
        self._ready.register(client, selectors.EVENT_READ, pid)
        client.sendall(b"pid %d\n" % pid)
        return None

    def _reap(self) -> None:
        """Report the children that have ended."""
        while self._clients:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._clients.pop(pid) as client, contextlib.suppress(OSError, KeyError):
                self._ready.unregister(client)
                client.sendall(b"status %d\n" % os.waitstatus_to_exitcode(status))


def _request(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    text, streams, _, _ = socket.recv_fds(client, MOST, 3)
    while not text.endswith(b"\n"):
        text += client.recv(MOST)
    return json.loads(text), streams


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Make this process what the client would have started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(streams) + 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in what a shell starts in the background
    if request["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
    sys.stdout, sys.stderr = _writer(1, "strict"), _writer(2, "backslashreplace")
    for number in request["closed"]:
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)  # as Python does
        os.close(number)


def _writer(number: int, errors: str) -> io.TextIOWrapper:
    raw = open(number, "wb", closefd=False)  # noqa: SIM115 - as above
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    by_line = number == 2 or os.isatty(number)
    return io.TextIOWrapper(raw, "utf-8", errors, line_buffering=by_line, write_through=unbuffered)


def execute(request: dict[str, Any]) -> None:
    """Do what `python ARGV` does with `-c CODE`, `-m MODULE` or a file."""
    argv: list[str] = request["argv"]
    added = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = [*added, *(each for each in sys.path[1:] if each not in added)]
    match argv:
        case ["-c", code, *_]:
            sys.argv = ["-c", *argv[2:]]
            sys.path.insert(0, "")
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case ["-m", module, *_]:
            sys.argv = argv[1:]
            sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m`
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case _:
            file = argv[0]
            sys.argv = argv
            sys.path.insert(0, os.path.dirname(os.path.abspath(file)))  # noqa: PTH100, PTH120 - as `python FILE`
            runpy.run_path(file, run_name="__main__")


if __name__ == "__main__":
    atexit.register(Program.end)  # the first to be registered is the last to be called
    if "--cold" not in sys.argv:
        preload()
    Program.run(Server(sys.argv[1]).serve())
