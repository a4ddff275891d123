"""Sends spans and metrics from a thread of its own, so that a slow collector slows no run.

The thread opens the SDK, builds the spans, and gives them to the SDK, which sends them in batches from
another thread. Both queues are bounded: what does not fit is dropped and counted.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from flujo.domain.forks import NO_FORK, renew_in_children
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.telemetry.outlet import Outlet

    Work = Callable[[Outlet], None]

EXIT_S = 2.0
"""The longest time that the end of a process waits for what is not sent yet."""

OPENING_S = 10.0
"""The longest time that it waits before that for the import of the SDK, which takes 0.1 s of CPU time."""

log = logger("flujo.telemetry")


class Exporter:
    """The queue and the thread of a process.

    Args:
        connect: opens the SDK; called in the thread, because its import takes as long as a short run.
        max_waiting: the length of the queue.
    """

    def __init__(self, connect: Callable[[], Outlet], *, max_waiting: int) -> None:
        self._connect = connect
        self._max_waiting = max_waiting
        self.dropped = 0
        """How much did not fit into the queue."""
        self._is_off = False
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the thread of the parent process, and what it has not sent."""
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self.outlet: Outlet | None = None
        """The SDK, once it is open."""
        self._is_opened = threading.Event()
        self._closes_at_exit = False

    def put(self, work: Work) -> None:
        """Do `work` in the thread, later; drop it when too much waits."""
        if self._is_off:
            return
        if self._queue.qsize() >= self._max_waiting:
            self.dropped += 1
            return
        self._queue.put(work)
        if self._thread is None:
            self._start()

    def flush(self, timeout_s: float) -> bool:
        """Send what waits; return whether the collector has taken it or refused it within the time."""
        if self._thread is None:
            return True
        done = threading.Event()

        def flushed(outlet: Outlet) -> None:
            outlet.flush(timeout_s)
            done.set()

        self._queue.put(flushed)
        return done.wait(timeout_s)

    def close(self, timeout_s: float = EXIT_S, opening_s: float = OPENING_S) -> None:
        """Send what waits and end the thread; `timeout_s` after the SDK is open, the rest is lost."""
        with self._guard:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self._queue.put(None)
        self._is_opened.wait(opening_s)
        thread.join(timeout_s)
        if self.dropped:
            log.warning("telemetry: %d records did not fit into the queue and were dropped", self.dropped)

    def _start(self) -> None:
        with self._guard, suppress(RuntimeError):  # the interpreter ends, and nothing more can be sent
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="flujo-telemetry", daemon=True)
                thread.start()
                self._thread = thread
                if not self._closes_at_exit:
                    self._closes_at_exit = True
                    # `atexit` is too late: no thread can be started then, and the SDK needs some.
                    threading._register_atexit(self.close)  # type: ignore[attr-defined]

    def _work(self) -> None:
        try:
            with NO_FORK:
                self.outlet = outlet = self._connect()
        except Exception as error:  # noqa: BLE001 - a plugin or a variable of the SDK: runs continue
            log.warning("telemetry is off: %s: %s", type(error).__name__, error)
            self._is_off = True
            return
        finally:
            self._is_opened.set()
        warned_at = -60.0
        while (work := self._queue.get()) is not None:
            try:
                work(outlet)
            except Exception as error:  # noqa: BLE001 - processors and exporters are foreign code
                if time.monotonic() - warned_at >= 60:
                    warned_at = time.monotonic()
                    log.warning("telemetry: %s: %s", type(error).__name__, error)
        outlet.close()
