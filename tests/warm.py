"""Starts Python programs without the second in which they import Flujo; see `warm_server.py`.

`run` and `Popen` are used as those of `subprocess` with `text=True`, for a `command` that begins with `sys.executable` or is the
`flujo` of this environment; `on_path` is a folder with a `flujo` for shells.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import printed_commands

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLOSED = -9
"""A stream that the program does not have, as after `>&-` in a shell."""

SHARED = "FLUJO_TESTS_WARM_SERVER"
"""Names the folder of a server that other processes use too."""

_HERE = Path(__file__).parent
# Not for the processes of tests: some run the tests of a changed copy of Flujo.
_GIVEN = os.environ.pop(SHARED, None)
# The server may start in the middle of a test, which has its own project on the path, its own environment and folder.
_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, sys.path)))}
_SHIM = """\
#!{python} -ISE
import json, os, signal, socket, sys, time
while not os.path.exists({path!r}):
    time.sleep(0.01)
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
request = {{"argv": [*{words!r}, *sys.argv[1:]], "cwd": os.getcwd(), "env": dict(os.environ), "new_session": False, "closed": []}}
socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
said = server.makefile()
pid = int(said.readline().split()[1])
for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(name, lambda number, _: os.kill(pid, number))
status = int(said.readline().split()[1])
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def start(*options: str) -> Path:
    """Start a server that ends with this process; return the folder of its socket, which appears when it is ready."""
    folder = Path(tempfile.mkdtemp(prefix="flujo-warm-"))
    (folder / "bin").mkdir()
    for name, words in (("flujo", ["-m", "flujo"]), ("python-warm", [])):
        program = folder / "bin" / name
        program.write_text(_SHIM.format(python=sys.executable, path=str(folder / "socket"), words=words))
        program.chmod(0o755)
    log = (folder / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, _HERE / "warm_server.py", folder / "socket", *options],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd=_HERE,
        env=_ENVIRONMENT,
    )
    log.close()

    def end() -> None:
        assert server.stdin is not None
        server.stdin.close()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:  # a loaded machine
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return folder


@cache
def _folder() -> Path:
    """Return the folder of the server that this process uses, when it is ready."""
    folder = Path(_GIVEN) if _GIVEN else start()
    until = time.monotonic() + 300
    while not (folder / "socket").exists():
        assert time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.01)
    return folder


def on_path() -> Path:
    """Return a folder that holds a `flujo` which the server runs."""
    return _folder() / "bin"


def python() -> str:
    """Return a Python for `FILE ARGUMENTS…` that the server runs, for programs that Flujo starts."""
    return str((Path(_GIVEN) if _GIVEN else _folder()) / "bin/python-warm")


class Popen:
    """A started program: what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.args = [str(word) for word in command]
        self.returncode: Any = None
        self._given: list[int] = []
        self._mine: list[int] = []
        self._closed: list[int] = []
        self.stdin: Any = self._stream(stdin, 0)
        self.stdout: Any = self._stream(stdout, 1)
        self.stderr: Any = self._stream(stderr, 2)
        request = {
            "argv": self._argv(),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "new_session": start_new_session,
            "closed": self._closed,
        }
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(_folder() / "socket"))
        socket.send_fds(self._server, [json.dumps(request).encode() + b"\n"], self._given)
        for each in self._mine:
            os.close(each)
        self._told = b""
        self.pid = self._next("pid", None)

    def _argv(self) -> list[str]:
        program, *words = self.args
        if program == sys.executable:
            return words
        assert Path(program) == Path(sys.executable).parent / "flujo", program
        return ["-m", "flujo", *words]

    def _stream(self, wanted: int | IO[Any] | None, number: int) -> Any:
        """Note the descriptor that the program gets; return our end of a pipe."""
        if wanted == subprocess.PIPE:
            reading, writing = os.pipe()
            theirs, ours = (reading, writing) if number == 0 else (writing, reading)
            self._given.append(theirs)
            self._mine.append(theirs)
            return os.fdopen(ours, "r" if number else "w")
        if wanted in (subprocess.DEVNULL, CLOSED):
            self._closed += [number] if wanted == CLOSED else []
            self._mine.append(os.open(os.devnull, os.O_RDWR))
            self._given.append(self._mine[-1])
        elif wanted == subprocess.STDOUT:
            self._given.append(self._given[1])
        elif wanted is None:
            self._given.append(number)
        else:
            self._given.append(wanted if isinstance(wanted, int) else wanted.fileno())
        return None

    def _next(self, what: str, timeout: float | None) -> int:
        """Return the number that the server says next."""
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._told:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._server], [], [], left)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            more = self._server.recv(100)
            assert more, f"the server ended: {(_folder() / 'log').read_text()}"
            self._told += more
        line, _, self._told = self._told.partition(b"\n")
        word, number = line.decode().split()
        assert word == what
        return int(number)

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when the program has ended."""
        if self.returncode is None:
            self.returncode = self._next("status", timeout)
            self._server.close()
        return int(self.returncode)

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:  # noqa: A002 - as subprocess
        """Write the input, read both outputs to their ends, and wait."""
        read: dict[int, str] = {}
        streams = [(number, each) for number, each in ((1, self.stdout), (2, self.stderr)) if each]
        threads = [
            threading.Thread(target=lambda n=number, s=each: read.__setitem__(n, s.read()), daemon=True)
            for number, each in streams
        ]
        for thread in threads:
            thread.start()
        if self.stdin:
            with self.stdin as stdin:
                stdin.write(input or "")
        until = None if timeout is None else time.monotonic() + timeout
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        for _, stream in streams:
            stream.close()
        for output in read.values():
            printed_commands.check(output)
        return read.get(1, ""), read.get(2, "")

    def send_signal(self, number: int) -> None:
        """Send a signal to the program, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the program."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the program to end."""
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream:
                stream.close()
        self.wait()


def run(
    command: Sequence[str | Path],
    *,
    check: bool = False,
    capture_output: bool = False,
    timeout: float | None = None,
    input: str | None = None,  # noqa: A002 - as subprocess
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run` does."""
    if capture_output:
        more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        more["stdin"] = subprocess.PIPE
    program = Popen(command, **more)
    try:
        out, err = program.communicate(input, timeout)
    except BaseException:
        program.kill()
        program.wait()
        raise
    done = subprocess.CompletedProcess(program.args, program.wait(), out, err)
    if check:
        done.check_returncode()
    return done
