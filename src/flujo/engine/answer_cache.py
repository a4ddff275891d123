"""Cached answers: wraps a backend so that its errors do not fail a run, with one caller per key at a time."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.forks import renew_in_children
from flujo.domain.turns import Turn
from flujo.engine.error_info import described
from flujo.engine.places import without_place
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from typing import TypeAlias

    from flujo.domain.ports import CacheBackend
    from flujo.engine.places import Place
    from flujo.exceptions import NotCacheable

    Caller: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]
    """Awaits the code of a backend on behalf of a step; see `call_code`."""

_log = logger("flujo.cache")


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A cached answer: the output, and the other facts of the step that expressions may read."""

    output: Any
    facts: Mapping[str, Any] = field(default_factory=dict)


class AnswerCache:
    """A cache backend whose errors never fail a run. Of several callers with one key, one does the work."""

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend
        self._reported: set[tuple[str, str]] = set()
        self._renew()
        renew_in_children(self, type(self)._renew)

    def report(self, step: str, why: NotCacheable) -> None:
        """Log once why a step is executed every time."""
        if (step, why.message) not in self._reported:
            self._reported.add((step, why.message))
            _log.warning("step %r is not cached: %s [%s]; %s", step, why.message, why.code, why.hint)

    def _renew(self) -> None:
        """Forget the callers of the parent process."""
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[Turn, int]] = {}
        """A turn for each key, and how many callers hold it or wait for it."""

    async def find(self, key: str, call: Caller) -> CachedAnswer | None:
        """Return a cached answer; None when there is none or it cannot be read."""

        async def read() -> bytes | None:
            return await self._backend.get(key)

        try:
            found = await call(read())
        except Exception as error:  # noqa: BLE001 - foreign code; an error of the cache counts as a miss
            _log.warning("the cache could not be read; the step is executed: %s", described(error))
            return None
        try:
            data = None if found is None else canonical.decode(found)
        except ValueError:
            data = None
        match data:
            case {"output": output, "facts": dict(facts)}:
                return CachedAnswer(output, facts)
            case _:
                return None

    async def keep(self, key: str, answer: CachedAnswer, ttl_s: float | None, call: Caller) -> None:
        """Store an answer, unless the backend fails."""
        value = canonical.encode({"output": answer.output, "facts": dict(answer.facts)})

        async def write() -> None:
            await self._backend.put(key, value, ttl_s=ttl_s)

        try:
            await call(write())
        except Exception as error:  # noqa: BLE001 - foreign code; the answer itself is not lost
            _log.warning("an answer could not be written to the cache: %s", described(error))

    @asynccontextmanager
    async def alone(self, key: str, place: Place | None = None) -> AsyncIterator[None]:
        """Admit one caller of `key` at a time, so that later ones find the answer of the first.

        A caller that waits frees its `place`: the first caller may need one after the wait before a retry.
        """
        with self._lock:
            turn, callers = self._turns.get(key, (Turn(), 0))
            self._turns[key] = turn, callers + 1
        try:
            async with turn.taken(partial(without_place, place)):
                yield
        finally:
            with self._lock:
                turn, callers = self._turns.pop(key)
                if callers > 1:
                    self._turns[key] = turn, callers - 1
