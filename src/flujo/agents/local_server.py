"""A llama.cpp server in a separate process: started by the first request to a local model, stopped when idle.

Agents call `address`; `python -m flujo.agents.local_server` is the server process. They share a folder with
three files per model: a lock that is held while a server starts or stops; a state file with the server's
socket, touched by each request, so that its age is the idle time; and a log.

The server listens on a Unix socket in a folder that only this user can enter, and not on a port: after a
server has died, any program could listen on its port and receive the prompts.
"""

import contextlib
import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flujo.agents.local_weights import locked
from flujo.domain.commands import command
from flujo.domain.host import cores
from flujo.exceptions import ModelUnavailable, ProviderUnavailable

CONTEXT_TOKENS = 4096
START_TIMEOUT_S = 120.0
_HEALTH_TIMEOUT_S = 5.0
_MAX_FOLDER = 80
"""The longest path of a socket's folder in bytes; the system's limit for a socket's path is 103 or 107."""


@dataclass(frozen=True, slots=True)
class Address:
    """The socket of a server, in a folder that only this user can enter."""

    socket: Path
    pid: int
    model: str
    """The id of the model in the server's API."""

    @property
    def is_private(self) -> bool:
        """Whether only this user can have made what is at the socket's path."""
        return _is_private(self.socket.parent)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files that the server of one model shares with its clients."""

    state: Path
    lock: Path
    log: Path

    @classmethod
    def of(cls, model: Path, cache_dir: Path) -> "_Files":
        status = model.stat()
        identity = f"{model.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
        stem = f"{model.stem[:40]}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        folder = cache_dir.absolute() / "servers"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_private(folder):
            raise ModelUnavailable(
                f"local models are not started: other users can write to {folder}, or it belongs to one",
                hint=f"make it your own: `{command('chmod', '700', str(folder))}`; "
                "or set FLUJO_CACHE_DIR to another folder",
                model=model.name,
                retryable=False,
            )
        return cls(folder / f"{stem}.json", folder / f"{stem}.lock", folder / f"{stem}.log")


def require_runtime() -> None:
    """Raise unless llama.cpp is installed.

    Raises:
        ProviderUnavailable: naming the extra to install.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ProviderUnavailable(
            "local models need a package that is not installed: xllamacpp",
            hint=command("pip", "install", "flujo[local]"),
            provider="local",
            retryable=False,
        )


def address(model: Path, *, cache_dir: Path, idle_s: float, threads: int | None = None) -> Address:
    """Return the address of the server for the file `model`; start the server when none is running.

    Blocks until the server accepts requests: less than a second for a small model.

    Args:
        model: a verified `.gguf` file.
        cache_dir: the user's cache folder for Flujo; processes with the same folder share the server.
        idle_s: how long a newly started server keeps running without a request.
        threads: the number of compute threads. Default: the idle cores, at least one.

    Raises:
        ProviderUnavailable: xllamacpp is not installed.
        ModelUnavailable: the server does not start; the message contains the end of its log.
    """
    require_runtime()
    files = _Files.of(model, cache_dir)
    with locked(files.lock):
        running = _read(files.state)
        if running is not None and _is_healthy(running):
            files.state.touch()
            return running
        if running is not None:
            _remove(running)
        files.state.unlink(missing_ok=True)
        return _start(model, files, idle_s, threads or _idle_threads())


def _read(state: Path) -> Address | None:
    try:
        data = json.loads(state.read_text())
        return Address(Path(data["socket"]), int(data["pid"]), str(data["model"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_healthy(server: Address) -> bool:
    """Return whether the server answers at its socket, and is this user's."""
    if not server.is_private:
        return False
    connection = http.client.HTTPConnection("localhost", timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_HEALTH_TIMEOUT_S)
        connection.sock.connect(str(server.socket))
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_private(folder: Path) -> bool:
    """Return whether a folder is this user's, and no other user can write to it or enter it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _remove(server: Address) -> None:
    """Remove the socket of a dead server, and its folder."""
    with contextlib.suppress(OSError):
        server.socket.unlink(missing_ok=True)
        server.socket.parent.rmdir()


def _idle_threads() -> int:
    """Return the number of compute threads; sharing cores with other work slows llama.cpp down badly."""
    return max(1, min(8, int(cores() - os.getloadavg()[0]) - 1))


def _start(model: Path, files: _Files, idle_s: float, threads: int) -> Address:
    """Start the process, detached from this one, and wait until it is ready."""
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-P",  # nothing is imported from the working directory
        "-m",
        "flujo.agents.local_server",
        str(model),
        str(files.state),
        str(files.lock),
    ]
    command += [str(idle_s), str(threads), str(writing)]
    try:
        with files.log.open("wb") as log:
            subprocess.run(  # noqa: S603  # ourselves; the path of the model is one argument
                command,
                cwd=files.state.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
                check=False,
            )
        os.close(writing)
        writing = -1
        # When the process dies for any reason, the pipe ends without a byte.
        ready = select.select([reading], [], [], START_TIMEOUT_S)[0] and os.read(reading, 1)
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
    started = _read(files.state) if ready else None
    if started is None:
        raise _did_not_start(model, files.log)
    return started


def _did_not_start(model: Path, log: Path) -> ModelUnavailable:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    end = "\n".join(lines[-6:]) or "its log is empty"
    return ModelUnavailable(
        f"the server for {model.name!r} did not start; the end of its log is:\n{end}",
        hint=f"the whole log is {log}",
        model=model.name,
        retryable=True,
    )


# The process -------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """Serve one model until it has been idle for `idle_s`."""
    model, state, lock, idle_s, threads, ready = arguments
    if os.fork():
        os._exit(0)  # init adopts the grandchild, so its starter need not wait for it
    server, own = _serve(Path(model), int(threads))
    _publish(Path(state), own)
    with contextlib.suppress(BrokenPipeError):  # the starter is gone; the next client finds the server
        os.write(int(ready), b"!")
    os.close(int(ready))
    while not _may_leave(server, own, Path(state), Path(lock), float(idle_s)):
        time.sleep(min(1.0, float(idle_s) / 4))
    _remove(own)
    os._exit(0)  # llama.cpp's threads end with the process; there is nothing to flush


def _serve(model: Path, threads: int) -> tuple[Any, Address]:
    import xllamacpp as untyped

    xllamacpp: Any = untyped
    listening = _private_folder() / "flujo.sock"
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {model.stem}
    parameters.hostnames = [str(listening)]  # a name that ends with `.sock` is a Unix socket
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = threads
    parameters.endpoint_metrics = True
    parameters.ui = False
    server = xllamacpp.Server(parameters)
    if server.listening_address != f"unix://{listening}":
        raise OSError(f"the server listens at {server.listening_address}, and not at the socket {listening}")
    return server, Address(listening, os.getpid(), model.stem)


def _private_folder() -> Path:
    """Make a folder that only this user can enter, with a path that is short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="flujo-"))
    if len(os.fsencode(made)) <= _MAX_FOLDER:
        return made
    made.rmdir()
    return Path(tempfile.mkdtemp(prefix="flujo-", dir="/tmp"))


def _publish(state: Path, own: Address) -> None:
    """Write the state file atomically, readable only for this user."""
    draft = state.with_suffix(f".{own.pid}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        json.dump({"socket": str(own.socket), "pid": own.pid, "model": own.model}, file)
    draft.replace(state)


def _may_leave(server: Any, own: Address, state: Path, lock: Path, idle_s: float) -> bool:
    """Return whether the server may stop; if so, delete its state file so that no client uses it."""
    if _is_busy(server):
        with contextlib.suppress(OSError):
            if _read(state) == own:
                state.touch()
        return False
    with _lock_if_free(lock) as held:
        if not held:
            return False  # a client is connecting
        if _read(state) != own:
            return True  # another server has replaced this one, or the folder is gone
        if time.time() - state.stat().st_mtime < idle_s:  # the file system's clock on both sides
            return False
        state.unlink(missing_ok=True)
        return True


def _is_busy(server: Any) -> bool:
    return any(
        line.startswith(("llamacpp:requests_processing ", "llamacpp:requests_deferred "))
        and line[-2:] != " 0"
        for line in str(server.handle_metrics()).splitlines()
    )


@contextlib.contextmanager
def _lock_if_free(path: Path) -> Iterator[bool]:
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
    except OSError:
        yield False


if __name__ == "__main__":
    main(sys.argv[1:])
