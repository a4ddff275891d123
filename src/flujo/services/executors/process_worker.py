"""The main program of a worker process: `python -m flujo.services.executors.process_worker`.

It reads units from its standard input and writes answers to its standard output, each with its length before
it (4 bytes, big-endian). When its input ends, the process of the run is gone, and it ends as well.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from queue import SimpleQueue
from typing import IO

LENGTH = struct.Struct(">I")


def read_frame(source: IO[bytes]) -> bytes | None:
    """Return the next frame; None at the end of the input, or when the rest of a frame is missing."""
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = source.read(length)
    return data if len(data) == length else None


def write_frame(pipe: IO[bytes], data: bytes) -> None:
    """Write one frame, and flush it."""
    pipe.write(LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def main() -> None:
    """Execute units until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what callables print must not be read as an answer
    units: SimpleQueue[bytes] = SimpleQueue()
    idle = threading.Event()
    idle.set()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, units, idle), daemon=True).start()
    from flujo.services.executors.worker import execute

    project = units.get()
    while True:
        unit = units.get()
        write_frame(answers, execute(unit, project))
        idle.set()


def _receive(source: IO[bytes], units: SimpleQueue[bytes], idle: threading.Event) -> None:
    """Take frames from the input; at its end, end this process, and a unit that is under way with it."""
    while (frame := read_frame(source)) is not None:
        idle.clear()
        units.put(frame)
    if idle.is_set():
        from flujo.services.executors.worker import close_hosts

        close_hosts()
    os._exit(0)


if __name__ == "__main__":
    main()
