"""What the workers of a Dask cluster call: functions that are imported by name, with bytes as arguments.

Each belongs to the event loop on which Dask calls it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import platform
from collections import deque
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import uuid4

from flujo.services.executors.worker import answer, close_hosts

if TYPE_CHECKING:
    from collections.abc import Sequence

PROCESS = uuid4().hex
"""The identity of this process. A worker that was restarted under the same address has another one."""

_UNDER_WAY: dict[str, asyncio.Task[list[bytes]]] = {}
_ABANDONED: deque[str] = deque(maxlen=1000)
"""The last batches that must not begin, because no caller waits for them. Most of them never arrive."""


def about_worker() -> dict[str, str]:
    """Return the identity of this process, its versions, its host and its pid."""
    return {
        "process": PROCESS,
        "python": platform.python_version(),
        "flujo": version("flujo"),
        "host": platform.node(),
        "pid": str(os.getpid()),
    }


async def execute_batch(
    process: str, batch: str, units: Sequence[bytes], project: bytes
) -> list[bytes] | None:
    """Execute units one after the other, and return their answers; see `worker.execute`.

    Args:
        process: the process that they were sent to, as `PROCESS` names it there.
        batch: the id under which `abandon` stops them.
        units: units, from `wire.encoded_unit`.
        project: a project, from `ProjectOnWorker.encoded`.

    Returns:
        None if this is another process, or the batch was abandoned; then nothing more is executed.
    """
    if process != PROCESS or batch in _ABANDONED:
        return None
    _close_at_exit()
    task = _UNDER_WAY[batch] = asyncio.ensure_future(_answers(units, project))
    try:
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()
    finally:
        task.cancel()
        del _UNDER_WAY[batch]


async def _answers(units: Sequence[bytes], project: bytes) -> list[bytes]:
    return [await answer(unit, project) for unit in units]


async def abandon(batch: str) -> None:
    """Stop a batch for which no caller waits: its queued units never begin, and async code is cancelled.

    A thread cannot be stopped: its callable continues, another thread takes its place, and its result is
    dropped.
    """
    if (task := _UNDER_WAY.get(batch)) is not None:
        task.cancel()
    else:
        _ABANDONED.append(batch)


@cache
def _close_at_exit() -> None:
    atexit.register(close_hosts)
