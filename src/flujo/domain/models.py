"""What users of the library hold in their hands: contexts, resources, limits and results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)
from typing_extensions import TypeVar  # with defaults, which `typing` has since 3.13

from flujo.domain import canonical
from flujo.domain.context_references import BLOBS, Blobs, from_thread
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.run import Pause, RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import ProviderNotGiven, ReferenceCorrupt, ResourcesMissing, SettingsError

Out = TypeVar("Out", default=Any)
Ctx = TypeVar("Ctx", bound="PipelineContext", default=Any)
T = TypeVar("T")


class PipelineContext(BaseModel):
    """The typed state of a run: extend it with fields; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AppResources:
    """What steps need from the application (pools, clients): handed to callables that ask, never journaled.

    Extend it with annotated fields. What a test does not use may be left out: a field that was not given and
    has no default is an error only when a step reads it.
    """

    def __init__(self, **resources: Any) -> None:
        """Take the resources by the names of the class's fields.

        Raises:
            SettingsError: a name that is no field.
        """
        fields = self._fields()
        for name, value in resources.items():
            if name not in fields:
                raise SettingsError(
                    f"{type(self).__name__} has no resource {name!r}",
                    hint=f"its fields are {', '.join(fields) or 'none'}",
                )
            setattr(self, name, value)

    if not TYPE_CHECKING:  # else a type checker would take every name for a resource

        def __getattr__(self, name: str) -> Any:
            if name in self._fields():
                raise ResourcesMissing(
                    f"{type(self).__name__} was made without {name!r}, and a step asks for it",
                    hint=f"give it where the resources are made: {type(self).__name__}({name}=…)",
                    resource=name,
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return tuple(name for base in reversed(cls.__mro__) for name in inspect.get_annotations(base))


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


class StepResult(BaseModel):
    """One step of a finished or paused run, as the journal has it."""

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
    """Whether the step was not run, because a cache had its answer."""


class PipelineResult(BaseModel, Generic[Out, Ctx]):
    """How a run came out."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    run_id: RunId
    status: RunStatus
    output: Out = None  # type: ignore[assignment]  # typed for those who look at `success` first
    """What came out of a completed run; None of any other."""
    context: Ctx | None = None
    steps: tuple[StepResult, ...] = ()
    usage: Usage = NOTHING
    unconfirmed: Usage = NOTHING
    """What requests may have used at most of which nobody knows whether they were made; beside `usage`."""
    error: ErrorInfo | None = None
    pauses: tuple[Pause, ...] = ()
    """The open questions of a paused run."""
    note: str = ""
    """What else there is to say: why the run was not gone on with here."""

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
