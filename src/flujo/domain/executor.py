"""The port that executes sync callables, and how an exit of foreign code reaches its caller."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

GRACE_S = 5.0
"""How long code may take to stop after a run or a time limit has cancelled it."""

UNCLOSED: list[Coroutine[Any, Any, Any]] = []
"""Coroutines that ignore `close`: they never run again, and their deletion would only print errors."""


class CodeExit(Exception):
    """Foreign code raised something that is not an `Exception`: it exits, or what it awaited was cancelled.

    Args:
        raised: what it raised.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__()
        self.raised = raised
        self.__cause__ = raised


class BatchedItems(AsyncIterator[T]):
    """An async iterator that can return several items at once, for sync iterators."""

    @abstractmethod
    async def take(self, count: int) -> list[T]:
        """Return the next items: those that arrive quickly, `count` at most; none at the end."""


class Executor(Protocol):
    """Executes one attempt of one sync callable of a leaf step.

    The engine handles retries, timeouts, budget, intents and journal entries, so an executor knows neither
    runs nor the journal. Async callables and callables that take `context` are not submitted, because they
    share objects of this process.
    """

    async def submit(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, or raise its exception.

        Cancelling the caller drops the result. Queued work then never starts; running work may continue, and
        nothing waits for it.
        """
        ...
