"""The limits of a provider: requests wait in order until the limits allow them.

A request that this process allows is counted in the database of its run as well, for the limits that all
processes share: `rpm` and `tpm`.

Requests come from the event loops of any number of threads. A lock per provider guards the counts, and is not
held across an await; a waiting request is woken in its own loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import TYPE_CHECKING

from flujo.domain.agents import TIMEOUT_OF_ATTEMPT
from flujo.domain.providers import SHARED_REQUESTS
from flujo.exceptions import StateError
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from flujo.domain.providers import Allowed, RequestStore
    from flujo.domain.usage import Usage

log = logger("flujo.agents")

WINDOW_S = 60.0
_RECHECK_S = 1.0
"""How often a request looks whether the loop of the request before it has stopped, and asks the database."""


@dataclass(slots=True, eq=False)
class _Request:
    """A request that waits, or has been sent in the last 60 seconds."""

    tokens: int
    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    sent_at: float = -math.inf


class RequestLimits:
    """Lets the requests to one provider through, in the order of their arrival.

    Args:
        allowed: the limits.
        name: that of the provider in a database.
        now: returns monotonic seconds.
    """

    def __init__(
        self, allowed: Allowed, *, name: str = "", now: Callable[[], float] = time.monotonic
    ) -> None:
        self.allowed = allowed
        self._name = name
        self._now = now
        self.forget()

    def forget(self) -> None:
        """Begin anew: a forked child has none of the requests of its parent."""
        # Reentrant, because the garbage collector may close an abandoned request at any line.
        self._lock = RLock()
        self._waiting: deque[_Request] = deque()
        self._counted: deque[_Request] = deque()
        """The requests of the last 60 seconds, the oldest first."""
        self._tokens = 0
        """The tokens of the counted requests."""
        self._running = 0

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncGenerator[Slot, None]:
        """Wait until a request of at most `tokens` may be sent, and count it as running inside."""
        pid, request = os.getpid(), _Request(tokens, asyncio.get_running_loop())
        await self._wait(request)
        slot = Slot(self, request)
        try:
            async with self._counted_with_others(slot, request):
                yield slot
        finally:
            if os.getpid() == pid:
                with self._lock:
                    self._running -= 1
                    self._wake_next()

    @asynccontextmanager
    async def _counted_with_others(self, slot: Slot, request: _Request) -> AsyncGenerator[None, None]:
        """Count a request in the database of the run, once the requests of all processes allow it."""
        store, allowed, pid = SHARED_REQUESTS.get(), self.allowed, os.getpid()
        if store is None or (allowed.rpm is None and allowed.tpm is None):
            yield
            return
        try:
            with TIMEOUT_OF_ATTEMPT.get()():
                ticket = await self._admitted(store, slot.tokens)
        except BaseException:
            if os.getpid() == pid:
                self.cancel(request)
            raise
        try:
            yield
        finally:
            try:
                await store.settle_request(self._name, ticket, slot.tokens if slot.is_sent else None)
            except StateError as error:  # it counts at its worst case for a minute
                log.debug("a request to %s was not settled: %s", self._name, error)

    async def _admitted(self, store: RequestStore, tokens: int) -> int:
        while True:
            wait_s = _RECHECK_S
            try:
                admission = await store.admit_request(self._name, tokens, self.allowed, span_s=WINDOW_S)
            except StateError as error:
                if not error.retryable:
                    raise
                log.debug("a request to %s waits for the database: %s", self._name, error)
            else:
                if admission.ticket is not None:
                    return admission.ticket
                wait_s = min(admission.wait_s, _RECHECK_S)
            await asyncio.sleep(wait_s)

    async def _wait(self, request: _Request) -> None:
        with self._lock:
            self._waiting.append(request)
            delay = self._admit(request)
        if delay is None:
            return
        try:
            with TIMEOUT_OF_ATTEMPT.get()():
                while delay is not None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(delay if delay < math.inf else None):
                            await request.woken.wait()
                    request.woken.clear()
                    with self._lock:
                        delay = self._admit(request)
        except BaseException:
            with self._lock:
                if request in self._waiting:  # a forked child has forgotten it
                    self._waiting.remove(request)
                    self._wake_next()
            raise

    def _admit(self, request: _Request) -> float | None:
        """Count a request as sent and return None, or return the seconds after which to look again."""
        first = self._first()
        if first is not request:
            is_of_other_loop = first is not None and first.loop is not request.loop
            return _RECHECK_S if is_of_other_loop else math.inf
        now = self._now()
        delay = self._delay(request, now)
        if delay > 0:
            return delay
        self._waiting.remove(request)
        request.sent_at = now
        self._counted.append(request)
        self._tokens += request.tokens
        self._running += 1
        self._wake_next()
        return None

    def _delay(self, request: _Request, now: float) -> float:
        """Return the seconds until the limits may allow the first waiting request; 0 when they do."""
        allowed = self.allowed
        while self._counted and self._counted[0].sent_at + WINDOW_S <= now:
            self._tokens -= self._counted.popleft().tokens
        if allowed.max_concurrency is not None and self._running >= allowed.max_concurrency:
            return math.inf
        free_at = now
        if allowed.rpm is not None and len(self._counted) >= allowed.rpm:
            free_at = self._counted[len(self._counted) - allowed.rpm].sent_at + WINDOW_S
        if allowed.tpm is not None:
            # A request that is larger than the limit waits for a minute without others.
            over = self._tokens + min(request.tokens, allowed.tpm) - allowed.tpm
            for each in self._counted:
                if over <= 0:
                    break
                over -= each.tokens
                free_at = max(free_at, each.sent_at + WINDOW_S)
        return free_at - now

    def _first(self) -> _Request | None:
        """Return the first waiting request whose event loop runs; the others can no longer be sent."""
        return next((each for each in self._waiting if each.loop.is_running()), None)

    def _wake_next(self) -> None:
        first = self._first()
        if first is not None:
            with suppress(RuntimeError):  # its loop has just been closed
                first.loop.call_soon_threadsafe(first.woken.set)

    def correct(self, request: _Request, tokens: int) -> None:
        """Replace the reserved tokens of a request by those that its answer reports."""
        with self._lock:
            if request in self._counted:
                self._tokens += tokens - request.tokens
                request.tokens = tokens
                self._wake_next()

    def cancel(self, request: _Request) -> None:
        """Stop counting a request, because it was not sent."""
        with self._lock:
            if request in self._counted:
                self._counted.remove(request)
                self._tokens -= request.tokens
                self._wake_next()


class Slot:
    """The place of one request within the limits of its provider."""

    def __init__(self, limits: RequestLimits, request: _Request) -> None:
        self._limits = limits
        self._request = request
        self.tokens = request.tokens
        """Those of the worst case, until the request is settled."""
        self.is_sent = True
        """Whether the request counts."""

    def settle(self, used: Usage) -> None:
        """Count the tokens that the request used; a usage without a request is that of an unsent one."""
        if used.requests:
            self.tokens = used.input_tokens + used.output_tokens
            self._limits.correct(self._request, self.tokens)
        else:
            self.is_sent = False
            self._limits.cancel(self._request)


_LIMITS: dict[tuple[str, str | None], RequestLimits] = {}
"""The limits of this process by a provider's name and address, whichever runner uses it."""
_NEW = Lock()


def limits_of(name: str, address: str | None, allowed: Allowed) -> RequestLimits | None:
    """Return the limits of a provider, the same for each caller in this process; None if it has none.

    When two projects in one process give a provider different limits, those read last apply.
    """
    if not allowed.is_limited:
        return None
    where = hashlib.sha256((address or "").encode()).hexdigest()[:16]
    with _NEW:
        limits = _LIMITS.setdefault((name, address), RequestLimits(allowed, name=f"{name}@{where}"))
    limits.allowed = allowed
    return limits


def _forget() -> None:
    global _NEW
    _NEW = Lock()
    for limits in _LIMITS.values():
        limits.forget()


os.register_at_fork(after_in_child=_forget)
