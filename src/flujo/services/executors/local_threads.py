"""`kind = "threads"`: threads of their own for the callables of some steps, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.agents.thread_pool import ThreadPool
from flujo.domain.executor import ExecutorFacts
from flujo.services.executors.this_host import require_here, this_host

if TYPE_CHECKING:
    from flujo.domain.executor import Unit


class Threads:
    """Executes units in at most `size` threads; async callables run on the event loop.

    Args:
        name: the executor's name in flujo.toml.
        size: how many sync callables are executed at once; the others wait.
    """

    leaves_process = False

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._size = size
        self._pool = ThreadPool(size)

    async def submit(self, unit: Unit) -> Any:
        """Execute a unit; see `Executor`. Work that runs in a thread cannot be stopped."""
        require_here(unit.needs, self.name)
        if unit.here is None:
            raise ValueError("a unit that travelled is executed by its worker")
        return await unit.here(self._pool)

    async def check(self) -> ExecutorFacts:
        """Return the number of threads, and what this host has."""
        return ExecutorFacts(workers=self._size, has=this_host())

    async def aclose(self) -> None:
        """Do nothing: idle threads end with the process."""
