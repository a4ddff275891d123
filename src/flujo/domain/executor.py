"""Where the work of a callable is done: the port behind which threads stand today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Executor(Protocol):
    """Does one unit of work: one attempt of one plain callable of a leaf step, with its arguments.

    Retries, time limits, budget, intent and entry stay with the engine, so an executor knows neither runs
    nor the journal. Async callables, and callables that take `context`, are not submitted: they share
    objects of this process.
    """

    async def submit(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Cancelling the caller drops the result. Work that has not begun by then never begins; work that has
        begun may go on, and nothing waits for it.
        """
        ...
