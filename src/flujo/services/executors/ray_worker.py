"""What the workers of a Ray cluster call: functions that are imported by name, with bytes as arguments."""

from __future__ import annotations

import atexit
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.services.executors.shipped_code import moved
from flujo.services.executors.wire import ProjectOnWorker
from flujo.services.executors.worker import close_hosts, execute

if TYPE_CHECKING:
    from collections.abc import Sequence


def execute_all(units: Sequence[bytes], project: bytes, has_own_code: bool) -> list[bytes]:
    """Execute units one after the other, and return their answers; see `worker.execute`.

    Args:
        units: units, from `wire.encoded_unit`.
        project: a project, from `ProjectOnWorker.encoded`.
        has_own_code: whether this process was started in a folder with the modules that were sent to it.
    """
    here = _here(project, has_own_code)
    return [execute(unit, here) for unit in units]


@cache
def _here(project: bytes, has_own_code: bool) -> bytes:
    """Return the project with its folder on this host, whose resources are closed with this process."""
    atexit.register(close_hosts)
    return moved(ProjectOnWorker.decoded(project), str(Path.cwd())).encoded() if has_own_code else project


def about_worker() -> dict[str, str]:
    """Return the versions of this process, and its host."""
    return {"python": platform.python_version(), "flujo": version("flujo"), "host": platform.node()}
