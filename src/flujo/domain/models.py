"""The models of the Python API: contexts, resources, references, limits and results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
)
from typing_extensions import TypeVar  # with defaults, which `typing` has since 3.13

from flujo.domain.context_references import ContextReference as ContextReference  # the manual's import path
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.run import Pause, RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import ResourcesMissing, SettingsError

Out = TypeVar("Out", default=Any)
Ctx = TypeVar("Ctx", bound="PipelineContext", default=Any)


class PipelineContext(BaseModel):
    """The typed state of a run: extend it with fields; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AppResources:
    """What steps need from the application (pools, clients): passed to callables, never journaled.

    Extend it with annotated fields. Tests may leave out unused ones: a missing field without a default is an
    error only when a step reads it.
    """

    def __init__(self, **resources: Any) -> None:
        """Set the resources by field name.

        Raises:
            SettingsError: a name is not a field.
        """
        fields = self._fields()
        for name, value in resources.items():
            if name not in fields:
                raise SettingsError(
                    f"{type(self).__name__} has no resource {name!r}",
                    hint=f"its fields are {', '.join(fields) or 'none'}",
                )
            setattr(self, name, value)

    if not TYPE_CHECKING:  # else type checkers would accept every attribute name

        def __getattr__(self, name: str) -> Any:
            if name in self._fields():
                raise ResourcesMissing(
                    f"{type(self).__name__} was created without {name!r}, which a step reads",
                    hint=f"pass it where the resources are created: {type(self).__name__}({name}=…)",
                    resource=name,
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return tuple(name for base in reversed(cls.__mro__) for name in inspect.get_annotations(base))


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


class StepResult(BaseModel):
    """One step of a finished or paused run, from the journal."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: str
    kind: str
    status: Literal["completed", "failed", "skipped", "paused", "running"]
    attempt: int = 1
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    seconds: float = 0.0
    cached: bool = False
    """Whether the answer came from a cache, so that the step was not executed."""


class PipelineResult(BaseModel, Generic[Out, Ctx]):
    """The result of a run."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    run_id: RunId
    status: RunStatus
    output: Out = None  # type: ignore[assignment]  # typed for callers that check `success` first
    """The output of a completed run; None for any other run."""
    context: Ctx | None = None
    steps: tuple[StepResult, ...] = ()
    usage: Usage = NOTHING
    unconfirmed: Usage = NOTHING
    """The largest possible usage of requests that may or may not have been made; not included in `usage`."""
    error: ErrorInfo | None = None
    pauses: tuple[Pause, ...] = ()
    """The open questions of a paused run."""
    note: str = ""
    """A note: why the run was not continued in this process."""

    _cause: BaseException | None = PrivateAttr(default=None)

    @property
    def success(self) -> bool:
        """Whether the run completed."""
        return self.status is RunStatus.COMPLETED

    @property
    def cause(self) -> BaseException | None:
        """The exception behind `error`, in the process where the step failed."""
        return self._cause


Metadata = Mapping[str, str | int | float | bool | None]
