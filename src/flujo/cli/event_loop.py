"""Runs the coroutine of a command, and lets the process end although code of a step does not."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from flujo.domain.executor import GRACE_S, UNCLOSED
from flujo.exceptions import StepFailed

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_left_behind: list[asyncio.Task[Any]] = []


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return the result of `main`, like `asyncio.run`; tasks and threads of steps have a few seconds to end.

    Raises:
        StepFailed: a background task of a step has ended the event loop.
    """
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(_Threads())
            return runner.run(_then_leave(main))
    except SystemExit as error:
        raise StepFailed(
            f"a background task of a step raised SystemExit({error.code!r}), which ends the event loop",
            hint="raise an ordinary exception there; `flujo resume` continues the run",
        ) from error


def end_process(code: object) -> None:
    """End the process at once if tasks or threads of steps would keep it alive; return otherwise."""
    until = time.monotonic() + GRACE_S
    threads = [each for each in threading.enumerate() if not each.daemon]
    threads.remove(threading.main_thread())
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if _left_behind or UNCLOSED or any(thread.is_alive() for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


class _Threads(ThreadPoolExecutor):
    """The default executor, for `asyncio.to_thread`: the end of the loop does not wait for its threads."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - see above
        super().shutdown(wait=False, cancel_futures=True)


async def _then_leave(main: Coroutine[Any, Any, T]) -> T:
    try:
        return await main
    finally:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        stubborn = (await asyncio.wait(rest, timeout=GRACE_S))[1] if rest else ()
        for task in stubborn:
            asyncio._unregister_task(task)  # the runner would wait for it
            _left_behind.append(task)
