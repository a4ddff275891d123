"""Values outside the database: who keeps their bytes, and how a reference finds them while a run executes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from flujo.exceptions import SyncInAsync

if TYPE_CHECKING:
    import asyncio

    from flujo.domain.models import ContextReference

T = TypeVar("T")


@runtime_checkable
class StateProvider(Protocol):
    """Keeps bytes under keys: write one for whatever storage you have, and give it to the runner by an id.

    Flujo's own keys are `sha256/` and 64 hexadecimal digits, and are written again with nothing but the same
    bytes; any other text may be a key that somebody else has filled. A provider whose `put` has the bytes
    verified by the other side says so with `verifies_writes = True`; all others are read back.
    """

    async def get(self, key: str) -> bytes:
        """Return the bytes under `key`.

        Raises:
            LookupError | FileNotFoundError: there are none. Whatever else it raises is worth retrying.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, durably: when this returns, no crash can lose it."""
        ...


class Blobs(Protocol):
    """What a reference asks of the run around it."""

    is_starting: bool
    """Whether values given in the place of references are taken, because the run begins with them."""
    loop: asyncio.AbstractEventLoop
    """Where the providers are awaited."""

    def take(self, data: bytes) -> Mapping[str, Any]:
        """Return the pointer of what is stored before the run is accepted."""
        ...

    async def put(self, data: bytes, provider_id: str | None) -> Mapping[str, Any]:
        """Return the pointer of what is stored and verified by then."""
        ...

    async def get(self, reference: ContextReference[Any], field: str) -> bytes:
        """Return the bytes that a reference points to, checked."""
        ...


BLOBS: ContextVar[Blobs | None] = ContextVar("flujo_blobs", default=None)
"""The blobs of the run around: context variables reach the threads of sync callables too."""


def from_thread(work: Callable[[], Coroutine[Any, Any, T]], blobs: Blobs, name: str) -> T:
    """Return what `work` gives, awaited where the run's providers are at home, or here when that has ended.

    Raises:
        SyncInAsync: an event loop is running in this thread, and would wait for itself.
    """
    import asyncio  # late: whoever only checks a blueprint has no use for it

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if blobs.loop.is_running():
            return asyncio.run_coroutine_threadsafe(work(), blobs.loop).result()
        return asyncio.run(work())
    raise SyncInAsync(
        f"`{name}_sync` was called inside a running event loop", hint=f"inside async code: `await {name}(…)`"
    )
