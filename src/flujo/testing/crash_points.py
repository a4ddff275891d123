"""Crash points: kills a program at the first, the second, the third … of them.

The crash points are before and after every SQL statement and commit of the process, and every call of
`reach`, which a program adds around its external effects. Each kill is a real SIGKILL. POSIX only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from flujo.exceptions import SettingsError
from flujo.testing.sql_probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    Program = Callable[[int], Coroutine[Any, Any, Any]]
    """Gets the number of the crash point, so that each one has a separate run."""


@dataclass(slots=True)
class Report:
    """The result of an enumeration."""

    points: int = 0
    """The number of crash points of an uninterrupted program."""
    kills: int = 0
    """The number of processes killed at one of them; each is verified to have died of SIGKILL."""
    places: dict[str, int] = field(default_factory=dict)
    """The number of kills for each kind of crash point: `before COMMIT`, `after call`."""
    violations: list[str] = field(default_factory=list)
    """The violations, each with the crash point of the killed process."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class _Points:
    """Counts the crash points that this process passes, and kills it at the fatal one."""

    def __init__(self) -> None:
        self.passed = 0
        self.fatal: int | None = None
        self._tell: int | None = None
        self._lock = threading.Lock()

    def arm(self, fatal: int, tell: int) -> None:
        self.passed, self.fatal, self._tell = 0, fatal, tell

    def reach(self, name: str) -> None:
        if self.fatal is None:
            return
        with self._lock:
            self.passed += 1
            if self.passed == self.fatal and self._tell is not None:
                os.write(self._tell, name.encode())
                os.kill(os.getpid(), signal.SIGKILL)


_POINTS = _Points()


def reach(name: str) -> None:
    """Mark a crash point; no effect outside an enumeration."""
    _POINTS.reach(name)


def enumerate_crashes(
    program: Program,
    recover: Program,
    check: Callable[[int, Any], Iterable[str]],
    *,
    every: int = 1,
    twice: bool = False,
    first: int = 1,
) -> Report:
    """Kill `program` at its 1st, 2nd, 3rd … crash point until it ends; after each kill recover and check.

    Every execution is a forked process. Call this from a process with one thread and no open database: get
    values that are needed beforehand (the result of a run without a crash) from `in_a_fork`.

    Args:
        program: the program, which ends by itself.
        recover: continues after the killed process; returns JSON data.
        check: gets the crash point and the result of `recover`, and yields violations.
        every: kill at each n-th crash point only.
        twice: kill the recovery as well, at each of its crash points, and recover again.
        first: the first crash point.

    Raises:
        SettingsError: this process has other threads, which a forked process would not have.
    """
    _single_threaded()
    probe(reach)
    gc.freeze()  # a forked process then neither scans the imported objects nor copies their pages
    report = Report()
    point = first
    while place := _killed(program, point, run=point, report=report):
        report.places[place] = report.places.get(place, 0) + 1
        if twice:
            second = 1
            while _killed(recover, second, run=point, report=report):
                second += 1
        _checked(recover, check, point, place, report)
        point += every
    report.points = point - 1
    gc.unfreeze()
    return report


def _killed(program: Program, fatal: int, *, run: int, report: Report) -> str:
    """Run the program in a process that dies at its `fatal`-th crash point; return its kind, else `""`."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _POINTS.arm(fatal, tell)
        _end(program, run)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        place = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    died = os.waitstatus_to_exitcode(status)
    if place:
        if died != -signal.SIGKILL:
            report.violations.append(f"at {fatal} ({place}) the process ended with {died}, not by SIGKILL")
        report.kills += 1
    elif died:
        report.violations.append(f"run {run} was not killed, and its process ended with {died}")
    return place


def _checked(
    recover: Program, check: Callable[[int, Any], Iterable[str]], point: int, place: str, report: Report
) -> None:
    where = f"killed at {point} ({place})"
    try:
        seen = in_a_fork(recover, point)
    except ChildProcessError as error:
        report.violations.append(f"{where}: the recovery failed: {error}")
    else:
        report.violations += [f"{where}: {wrong}" for wrong in check(point, seen)]


def in_a_fork(program: Program, run: int) -> Any:
    """Run the program in a separate process, and return its result as JSON data.

    Raises:
        ChildProcessError: it raised; the message is its traceback.
    """
    _single_threaded()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _end(program, run, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise ChildProcessError(answer.decode()[-4000:])
    seen = json.loads(answer)
    for name in seen["modules"]:  # so that the next process need not load them again
        if name.partition(".")[0] not in ("__main__", "__mp_main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return seen["result"]


def _single_threaded() -> None:
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise SettingsError(
            f"crash points need a process with one thread, and this one has: {names}",
            hint="run the enumeration in a separate Python process",
        )


def _end(program: Program, run: int, tell: int | None = None) -> NoReturn:
    """Run in a forked process, and end it without the parent's exit handlers."""
    code, loaded = 1, len(sys.modules)  # to hold their names would copy the pages of all of them
    try:
        result = asyncio.run(program(run))
        if tell is not None:
            modules = sorted(islice(reversed(sys.modules), max(0, len(sys.modules) - loaded)))
            os.write(tell, json.dumps({"result": result, "modules": modules}).encode())
        code = 0
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        if tell is not None:
            os.write(tell, traceback.format_exc().encode())
        else:
            with contextlib.suppress(OSError):
                traceback.print_exc()
    finally:
        os._exit(code)
