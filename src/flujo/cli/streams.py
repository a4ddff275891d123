"""The standard streams of the process: stdout carries the results of the command and nothing else.

Code of a step, C libraries and subprocesses write to file descriptor 1, which leads to stderr; the results
have a descriptor of their own. A stream that is closed, full or no longer read never ends a command in the
middle.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import sys
from contextlib import redirect_stdout
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

P = ParamSpec("P")
T = TypeVar("T")

STDIN, STDOUT, STDERR = 0, 1, 2


class Sink(io.FileIO):
    """A descriptor that takes every write. The first failure is kept, and what follows is dropped."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        """Write the data; waits for a descriptor that does not block."""
        size = memoryview(data).nbytes
        while self.failure is None:
            try:
                written: int | None = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])
            except OSError as error:
                self.failure = error
        return size


class Streams:
    """The streams of this process; made once, at its start."""

    def __init__(self) -> None:
        is_closed = sys.stdout is None
        encoding = sys.stdout.encoding if sys.stdout else "utf-8"
        _fill_closed()
        # A read-only descriptor stands for a closed one: each write to it fails in the same way.
        target = os.open(os.devnull, os.O_RDONLY) if is_closed else STDOUT
        self._results = Sink(fcntl.fcntl(target, fcntl.F_DUPFD_CLOEXEC, STDERR + 1), "w")
        os.dup2(STDERR, STDOUT)
        sys.stdout = _text(self._results, encoding)
        sys.stderr = _text(Sink(STDERR, "w", closefd=False), encoding)

    def close(self, code: str | int | None) -> str | int | None:
        """Report lost results in one line; return the exit code, which is then not 0."""
        sys.stdout.flush()
        failure = self._results.failure
        if failure is None or failure.errno == errno.EPIPE:  # the reader has what it wanted
            return code
        why = "it is closed" if failure.errno == errno.EBADF else failure.strerror
        sys.stderr.write(f"error: the output cannot be written to stdout: {why}\n")
        return code or 1


def results_apart(command: Callable[P, T]) -> Callable[P, T]:
    """Return a command within which `print`, and all else that uses `sys.stdout`, writes to stderr."""

    @wraps(command)
    def apart(*args: P.args, **options: P.kwargs) -> T:
        with redirect_stdout(sys.stderr):
            return command(*args, **options)

    return apart


def _fill_closed() -> None:
    """Open closed standard descriptors, so that no database or socket gets one of their numbers."""
    for number in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


def _text(sink: Sink, encoding: str) -> io.TextIOWrapper:
    # Output never fails on an encoding.
    return io.TextIOWrapper(io.BufferedWriter(sink), encoding, "backslashreplace", line_buffering=True)
