"""What the outside knows of agents whose processes are killed: a ledger of effects, a model, and barriers.

The tools of `agent_program.py` write into the ledger from processes that die. The model and the barriers are in the
process of the test, which kills.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import sqlite3
import threading
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from agents.provider_server import Fault, Response
from durability.world import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Call = tuple[str, Any]
"""A tool and its arguments."""


class Ledger:
    """Effects outside the process: a file that is only appended to, and a database that knows each key once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ledger.jsonl"
        self._database = folder / "bookings.db"

    def append(self, tool: str, place: str, why: str) -> None:
        """Write a line to the file: an effect, or for `idempotent` tools a request."""
        line = json.dumps({"tool": tool, "place": place, "why": why}) + "\n"
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.fsync(file)
        os.close(file)

    def book(self, key: str, place: str) -> None:
        """Write a row to the database, unless the key is known."""
        with closing(sqlite3.connect(self._database, timeout=60)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS bookings (key TEXT PRIMARY KEY, place TEXT)")
            database.execute("INSERT OR IGNORE INTO bookings VALUES (?, ?)", (key, place))

    def calls(self, run: str) -> dict[tuple[str, str], list[str]]:
        """Return the arguments of each call of a run, by tool and place, in order."""
        found: dict[tuple[str, str], list[str]] = {}
        for line in self._file.read_text("utf-8").splitlines() if self._file.exists() else ():
            entry = json.loads(line)
            if entry["place"].startswith(f"{run}:"):
                where = entry["tool"], entry["place"].removeprefix(f"{run}:")
                found.setdefault(where, []).append(entry["why"])
        return found

    def verdicts(self, run: str, recorded: set[str]) -> dict[tuple[str, str], str]:
        """Return the verdict on each call of a run; `recorded` are the places of its journal.

        A call under a known key has no effect, but it counts for DIVERGED.
        """
        calls = self.calls(run)
        booked = self._booked(run)
        found = {}
        for (tool, place), arguments in calls.items():
            effects = arguments
            if tool == "note" and len(set(arguments)) == 1:
                effects = arguments[:1] * booked[place]
            found[tool, place] = verdict(effects, is_recorded=place in recorded)
        known = {place for _, place in calls}
        return found | {("?", place): "LOST" for place in recorded - known}

    def _booked(self, run: str) -> Counter[str]:
        if not self._database.exists():
            return Counter()
        with closing(sqlite3.connect(self._database, timeout=60)) as database:
            rows = database.execute("SELECT place FROM bookings").fetchall()
        return Counter(row[0].removeprefix(f"{run}:") for row in rows if row[0].startswith(f"{run}:"))


@dataclass
class Model:
    """A model with a script per conversation. What it writes differs with each request, as with a real one.

    The first message names the conversation: `RUN PATH`. An item of a script is an answer, a fault, or a list of
    tools; a pair of a fault and an item fails at the first request.
    """

    SCRIPTS: ClassVar[dict[str, list[Any]]] = {
        "work": [
            ["look", "note", "pay"],
            (Fault.SERVER_ERROR, ["pay", "note"]),
            (Fault.CUT_IN_EVENT, ["refuse", "look"]),
            "no",
            ["note", "note"],
            "All of it is done.",
        ],
        "spare": [["pay", "look"], Fault.SERVER_ERROR],
        "desk": [["grant", "grant", "shop", "assistant"], ["grant", "shop"], "Granted."],
        "assistant": [["pay"], "Helped."],
        "talk": [["look"], ["look"], "Talked."],
    }
    reached: Callable[[], None]
    """Called with each request, before it is answered."""
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each turn was requested, by run and path."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: dict[str, Any]) -> Response:
        """Return the response to a request."""
        users = [message["content"] for message in request["messages"] if message["role"] == "user"]
        run, conversation = users[0].split()
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        place = f"{conversation}/turn[{turn}]"
        with self._lock:
            self.requests[run, place] += 1
            count = self.requests[run, place]
            why = f"request {self.requests.total()}"
        self.reached()
        name = conversation.rpartition("/")[2]
        said = self.SCRIPTS["assistant" if name.startswith("tool[") else name][turn]
        if isinstance(said, tuple):
            fault, said = said
            if count == 1:
                return Response.of(fault)
        if not isinstance(said, list):
            return Response.of(said)
        calls = [(tool, _arguments(tool, run, f"{place}/tool[{n}]", why)) for n, tool in enumerate(said)]
        return Response(tool_call=calls[0], more_calls=tuple(calls[1:]))


def _arguments(tool: str, run: str, place: str, why: str) -> dict[str, str]:
    """Return the arguments of a call; an agent as a tool gets the name of its conversation."""
    return {"prompt": f"{run} {place}"} if tool == "assistant" else {"place": f"{run}:{place}", "why": why}


class Barriers:
    """Counts the barriers that the process of a run reaches, and kills it at the fatal one."""

    def __init__(self) -> None:
        self.path = ""
        self.passed = 0
        self._fatal = 0
        self._delay_s = 0.0
        self._pid = 0
        self._is_armed = True
        self._lock = threading.Condition(threading.RLock())

    def arm(self, fatal: int, pid: int, delay_s: float = 0.0) -> None:
        """Kill a process at its `fatal`-th barrier; with a delay, that long after it has passed the barrier."""
        with self._lock:
            self._fatal, self._delay_s, self._pid, self._is_armed = fatal, delay_s, pid, True
            self._lock.notify_all()

    def disarm(self) -> None:
        """Forget the process, which has ended; the next one waits at its first barrier until it is known."""
        with self._lock:
            self.passed, self._is_armed = 0, False
            self._lock.notify_all()

    def reach(self) -> None:
        """Pass a barrier, or be killed at it."""
        with self._lock:
            self._lock.wait_for(lambda: self._is_armed, 60)
            self.passed += 1
            if self.passed != self._fatal:
                return
            if self._delay_s:
                threading.Timer(self._delay_s, self._kill, [self._pid]).start()
            else:
                self._kill(self._pid)
                self._lock.wait_for(lambda: not self._is_armed, 60)

    def _kill(self, pid: int) -> None:
        with self._lock:
            if self._is_armed and pid == self._pid:
                os.kill(pid, signal.SIGKILL)


class _Gate(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        if self.rfile.readline():
            self.server.barriers.reach()  # type: ignore[attr-defined]  # set by `barriers`
            try:
                self.wfile.write(b"go\n")
            except OSError:
                return  # the process was killed here


class _Gates(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def barriers(folder: Path) -> Iterator[Barriers]:
    """Serve barriers to the processes of `folder`."""
    made = Barriers()
    made.path = str(folder / "barriers")
    with _Gates(made.path, _Gate) as server:
        server.barriers = made  # type: ignore[attr-defined]  # the handler finds it here
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def pass_barrier(path: str) -> None:
    """Pass a barrier in another process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"here\n")
        connection.makefile().readline()
