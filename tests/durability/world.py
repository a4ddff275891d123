"""The outside world, in its own process: it logs every effect before it replies, and is the oracle of the tests."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warm

if TYPE_CHECKING:
    from collections.abc import Iterator

LATE_S = 0.2


class _Handler(socketserver.StreamRequestHandler):
    """One effect per connection: it happens and is on disk before the caller gets a reply."""

    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return  # the caller was killed before it sent anything
        asked = json.loads(line)
        happened = json.dumps({"key": asked["key"], "args": asked.get("args")}) + "\n"
        log = os.open(self.server.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # type: ignore[attr-defined]
        os.write(log, happened.encode())
        os.fsync(log)
        os.close(log)
        match asked.get("mode", "answer"):
            case "drop":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            case "hang":
                self.rfile.read()  # until the caller disconnects
            case "late":
                time.sleep(LATE_S)
                self.wfile.write(b'{"ok": true}\n')
            case "fail":
                self.wfile.write(b'{"ok": false}\n')
            case _:
                self.wfile.write(b'{"ok": true}\n')


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


class World:
    """A client of the world: programs cause effects, and tests read the effects that happened."""

    def __init__(self, folder: Path) -> None:
        self._address = str(folder / "world")
        self._log = folder / "world.log"

    def effect(self, key: str, args: Any = None, mode: str = "answer") -> None:
        """Cause an effect. Raises ConnectionError when the world does not confirm it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._address)
            connection.sendall(json.dumps({"key": key, "args": args, "mode": mode}).encode() + b"\n")
            answer = connection.makefile().readline()
        if not answer or not json.loads(answer)["ok"]:
            raise ConnectionError(f"the world did not confirm {key!r}")

    def effects(self, prefix: str = "") -> list[str]:
        """Return the keys of all effects, in order."""
        if not self._log.exists():
            return []
        keys = [json.loads(line)["key"] for line in self._log.read_text("utf-8").splitlines()]
        return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]

    def causes(self, prefix: str = "") -> dict[str, list[Any]]:
        """Return for each key the arguments of its effects, in order."""
        found: dict[str, list[Any]] = {}
        for line in self._log.read_text("utf-8").splitlines() if self._log.exists() else ():
            effect = json.loads(line)
            if effect["key"].startswith(prefix):
                found.setdefault(effect["key"].removeprefix(prefix), []).append(effect["args"])
        return found


def verdict(arguments: list[Any], *, is_recorded: bool) -> str:
    """Return what the world says about the effects of one call: `arguments` are those of each effect."""
    if not arguments:
        return "LOST" if is_recorded else "NOT_MADE"
    if any(each != arguments[0] for each in arguments):
        return "DIVERGED"
    return "EXACTLY_ONCE" if len(arguments) == 1 else "DUPLICATED"


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Start the world; it stops when the test ends for any reason."""
    command = [sys.executable, __file__, str(folder)]
    with warm.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == "ready\n"
        yield World(folder)
        server.stdin.close()


def _serve(folder: Path) -> None:
    with _Server(str(folder / "world"), _Handler) as server:
        server.log = str(folder / "world.log")  # type: ignore[attr-defined]
        import threading

        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
