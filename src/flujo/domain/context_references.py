"""Values stored outside the database: the provider protocol, and the access of a running step to them."""

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
    """Stores bytes under keys: implement it for your storage, and pass it to the runner under an id.

    Flujo's own keys are `sha256/` and 64 hexadecimal digits; a second write has the same bytes. Any other
    key may be filled by other programs. Flujo reads each written value back, unless the provider sets
    `verifies_writes = True` because its storage verifies writes.
    """

    async def get(self, key: str) -> bytes:
        """Return the bytes under `key`.

        Raises:
            LookupError | FileNotFoundError: there are none. Any other exception counts as retryable.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` under `key`; it must be durable when this returns."""
        ...


class Blobs(Protocol):
    """The interface between a reference and the run that uses it."""

    is_starting: bool
    """Whether plain values are accepted in place of references, as they are at the start of a run."""
    loop: asyncio.AbstractEventLoop
    """The event loop of the providers."""

    def take(self, data: bytes) -> Mapping[str, Any]:
        """Return the pointer of a value that will be stored before the run is accepted."""
        ...

    async def put(self, data: bytes, provider_id: str | None) -> Mapping[str, Any]:
        """Store and verify a value, and return its pointer."""
        ...

    async def get(self, reference: ContextReference[Any], field: str) -> bytes:
        """Return the verified bytes of a reference."""
        ...

    async def file(self, path: str) -> bytes:
        """Return the bytes of a file of the project.

        Raises:
            FileRefused: it cannot or must not be read.
        """
        ...


BLOBS: ContextVar[Blobs | None] = ContextVar("flujo_blobs", default=None)
"""The blobs of the current run; context variables reach the threads of sync callables too."""


def from_thread(work: Callable[[], Coroutine[Any, Any, T]], blobs: Blobs, name: str) -> T:
    """Return the result of `work`, awaited on the event loop of the providers, or here when it has ended.

    Raises:
        SyncInAsync: an event loop is running in this thread, so waiting would block it.
    """
    import asyncio  # here, because validation of blueprints does not need it

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if blobs.loop.is_running():
            return asyncio.run_coroutine_threadsafe(work(), blobs.loop).result()
        return asyncio.run(work())
    raise SyncInAsync(
        f"`{name}_sync` was called inside a running event loop", hint=f"in async code use `await {name}(…)`"
    )


class ContextReference(BaseModel, Generic[T]):
    """A large value outside the database: the context holds this pointer, a state provider stores the bytes.

    `T` is the type that `get` returns: `bytes`, `str`, or JSON data and pydantic models, which are stored as
    JSON. A reference never changes; another value needs another reference. A reference without `sha256` is
    read unchecked; when a run starts with one, its digest is computed then and checked from there on.
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
        """Store and verify `value`, and return a reference to it.

        Its key is the value's SHA-256, so that storing the same value again changes nothing.

        Args:
            value: `bytes`, `str`, or a value that canonical JSON can encode.
            provider: the id of the provider; optional when there is only one.

        Raises:
            ProviderNotGiven: there is no such provider, or no run is executing.
            ProviderFailed: it could not store the bytes, or returns other bytes.
        """
        kind: Any = type(value) if isinstance(value, (bytes, str, BaseModel)) else Any
        made = cls if _arguments(cls) else cls[kind]  # type: ignore[index]  # pydantic's own
        pointer = await _at_hand().put(_stored(value), provider)
        return made(**pointer)

    @classmethod
    def of_sync(cls, value: T, *, provider: str | None = None) -> Self:
        """Do the same as `of`, for sync callables, which run in threads.

        Raises:
            SyncInAsync: an event loop is running in this thread.
        """
        return from_thread(lambda: cls.of(value, provider=provider), _at_hand(), "ContextReference.of")

    async def get(self) -> T:
        """Read the value from its provider, check it against `sha256` and `size`, and return it.

        Raises:
            ProviderNotGiven: the runner has no such provider.
            ReferenceMissing: the provider has no value under this key.
            ReferenceCorrupt: the bytes differ from the stored ones, or are not a `T`.
            ProviderFailed: the provider does not answer; a retry may succeed.
        """
        data = await (self._blobs or _at_hand()).get(self, self._field)
        arguments = _arguments(type(self))
        if not arguments or arguments[0] is bytes:
            return data  # type: ignore[return-value]  # T is bytes
        try:
            value: T = _read(arguments[0], data)
        except ValueError as error:
            raise ReferenceCorrupt(
                f"{self._field or 'a reference'}: blob {self.key!r} of provider {self.provider_id!r} is not "
                f"{getattr(arguments[0], '__name__', arguments[0])}",
                hint="store it with `ContextReference.of`, or declare `ContextReference[bytes]`",
                provider_id=self.provider_id,
                key=self.key,
                field=self._field,
            ) from error
        return value

    def get_sync(self) -> T:
        """Do the same as `get`, for sync callables, which run in threads.

        Raises:
            SyncInAsync: an event loop is running in this thread.
        """
        return from_thread(self.get, self._blobs or _at_hand(), "get")

    @model_validator(mode="before")
    @classmethod
    def _kept(cls, value: Any) -> Any:
        """Accept a plain value at the start of a run; anywhere else a reference comes from `of`."""
        if isinstance(value, ContextReference) or (isinstance(value, Mapping) and "provider_id" in value):
            return value
        arguments = _arguments(cls)
        if isinstance(value, Mapping) and (not arguments or arguments[0] in (bytes, str)):
            return value  # pydantic reports which key of a pointer is missing
        blobs = BLOBS.get()
        if blobs is None or not blobs.is_starting:
            raise ValueError("expected a reference; `await ContextReference.of(value)` returns one")
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
    """Return the type arguments of a reference's class."""
    return kind.__pydantic_generic_metadata__["args"]


def _stored(value: Any) -> bytes:
    """Return the bytes of a value."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case str():
            return value.encode()
        case _:
            return canonical.encode(value, what="value of a reference")


def _read(kind: Any, data: bytes) -> Any:
    """Return the value of stored bytes."""
    return TypeAdapter(kind).validate_python(data.decode() if kind is str else canonical.decode(data))


def _at_hand() -> Blobs:
    blobs = BLOBS.get()
    if blobs is None:
        raise ProviderNotGiven(
            "a reference was used outside a run, and only a run has state providers",
            hint="use it in a step, or use the one in the result's `context`",
        )
    return blobs
