"""Values outside the database: who keeps their bytes, and how a reference finds them while a run executes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationInfo, model_validator

from flujo.domain import canonical
from flujo.exceptions import ProviderNotGiven, ReferenceCorrupt, SyncInAsync

if TYPE_CHECKING:
    import asyncio

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


class ContextReference(BaseModel, Generic[T]):
    """A large value outside the database: the context holds this pointer, a state provider the bytes.

    `T` says what `get` gives: `bytes`, `str`, or JSON data and pydantic models, which are kept as JSON. A
    reference is one value and never changes; another value is another reference. One without `sha256` is
    read as it is; where a run starts with one, the digest is taken then, and holds from there on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider_id: str
    key: str
    sha256: str | None = None
    size: int | None = Field(default=None, ge=0)
    """In bytes."""

    _blobs: Blobs | None = PrivateAttr(default=None)
    _field: str = PrivateAttr(default="")

    @classmethod
    async def of(cls, value: T, *, provider: str | None = None) -> Self:
        """Return a reference to `value`, which is stored and verified by then.

        Its key is the value's SHA-256, so that storing the same again changes nothing.

        Args:
            value: `bytes`, `str`, or what canonical JSON can hold.
            provider: the id of the provider; may be left out when there is only one.

        Raises:
            ProviderNotGiven: there is no such provider, or no run to take it from.
            ProviderFailed: it could not store the bytes, or gives others back.
        """
        kind: Any = type(value) if isinstance(value, (bytes, str, BaseModel)) else Any
        made = cls if _arguments(cls) else cls[kind]  # type: ignore[index]  # pydantic's own
        pointer = await _at_hand().put(_stored(value), provider)
        return made(**pointer)

    @classmethod
    def of_sync(cls, value: T, *, provider: str | None = None) -> Self:
        """Return what `of` returns, from code that runs in a thread: a callable without `async`.

        Raises:
            SyncInAsync: an event loop is running in this thread.
        """
        return from_thread(lambda: cls.of(value, provider=provider), _at_hand(), "ContextReference.of")

    async def get(self) -> T:
        """Return the value, read from its provider at each call, and checked against `sha256` and `size`.

        Raises:
            ProviderNotGiven: the runner has no such provider.
            ReferenceMissing: the provider has nothing under this key.
            ReferenceCorrupt: it gives other bytes than were stored, or bytes that are no `T`.
            ProviderFailed: it does not answer; worth retrying.
        """
        data = await (self._blobs or _at_hand()).get(self, self._field)
        arguments = _arguments(type(self))
        if not arguments or arguments[0] is bytes:
            return data  # type: ignore[return-value]  # T is bytes
        try:
            value: T = _read(arguments[0], data)
        except ValueError as error:
            raise ReferenceCorrupt(
                f"{self._field or 'a reference'}: blob {self.key!r} of provider {self.provider_id!r} is no "
                f"{getattr(arguments[0], '__name__', arguments[0])}",
                hint="store it through `ContextReference.of`, or declare `ContextReference[bytes]`",
                provider_id=self.provider_id,
                key=self.key,
                field=self._field,
            ) from error
        return value

    def get_sync(self) -> T:
        """Return what `get` returns, from code that runs in a thread: a callable without `async`.

        Raises:
            SyncInAsync: an event loop is running in this thread.
        """
        return from_thread(self.get, self._blobs or _at_hand(), "get")

    @model_validator(mode="before")
    @classmethod
    def _kept(cls, value: Any) -> Any:
        """Take a value itself where a run starts; anywhere else a reference is made with `of`."""
        if isinstance(value, ContextReference) or (isinstance(value, Mapping) and "provider_id" in value):
            return value
        arguments = _arguments(cls)
        if isinstance(value, Mapping) and (not arguments or arguments[0] in (bytes, str)):
            return value  # pydantic says which key of a pointer is missing
        blobs = BLOBS.get()
        if blobs is None or not blobs.is_starting:
            raise ValueError("a reference is wanted here: `await ContextReference.of(value)` makes one")
        return blobs.take(_stored(TypeAdapter(arguments[0] if arguments else bytes).validate_python(value)))

    @model_validator(mode="after")
    def _placed(self, info: ValidationInfo) -> Self:
        self._blobs = BLOBS.get() or self._blobs
        self._field = f"`context.{info.field_name}`" if info.field_name else self._field
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContextReference) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def _value(self) -> tuple[Any, ...]:
        return self.provider_id, self.key, self.sha256, self.size


def _arguments(kind: type[BaseModel]) -> tuple[Any, ...]:
    """Return what a reference's class was given in brackets."""
    return kind.__pydantic_generic_metadata__["args"]


def _stored(value: Any) -> bytes:
    """Return the bytes that stand for a value."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case str():
            return value.encode()
        case _:
            return canonical.encode(value, what="value of a reference")


def _read(kind: Any, data: bytes) -> Any:
    """Return the value that bytes stand for."""
    return TypeAdapter(kind).validate_python(data.decode() if kind is str else canonical.decode(data))


def _at_hand() -> Blobs:
    blobs = BLOBS.get()
    if blobs is None:
        raise ProviderNotGiven(
            "a reference is used outside a run, and only a run has state providers",
            hint="use it in a step, or take it from the result's `context`",
        )
    return blobs
