"""Reads and writes the blobs behind context references, and verifies their digests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from flujo.agents.thread_pool import THREADS
from flujo.domain import canonical
from flujo.domain.context_references import BLOBS, ContextReference, StateProvider
from flujo.domain.wording import repr_short
from flujo.engine.error_info import described
from flujo.engine.foreign_code import call_storage
from flujo.exceptions import (
    FlujoError,
    ProviderFailed,
    ProviderNotGiven,
    ReferenceCorrupt,
    ReferenceMissing,
    SettingsError,
)
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.models import PipelineContext
    from flujo.services.project.files import ProjectFiles

PREFIX = "sha256/"
"""The prefix of keys of stored values; the digest follows."""

PROBE = f"{PREFIX}is-anybody-there"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def checked_providers(providers: Any) -> Mapping[str, StateProvider]:
    """Return state providers by their ids.

    Raises:
        SettingsError: an id is not a plain name, or a value is not a provider.
    """
    if not isinstance(providers, Mapping):
        raise SettingsError(
            f"`state_providers` is {repr_short(providers)}", hint="pass a mapping of ids to state providers"
        )
    for name, provider in providers.items():
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise SettingsError(
                f"{name!r} is not a valid id for a state provider",
                hint="use letters, digits, `_`, `-` and `.`",
            )
        if isinstance(provider, type) or not isinstance(provider, StateProvider):
            kind = provider.__name__ if isinstance(provider, type) else type(provider).__name__
            raise SettingsError(
                f"state provider {name!r} is `{kind}`, not an object with `async def get(key)` "
                "and `async def put(key, data)`",
                hint="docs/how-to/keep-large-data-out-of-the-database.md shows an example",
            )
    return dict(providers)


def bind_blobs(providers: Mapping[str, StateProvider], files: ProjectFiles) -> AbstractContextManager[None]:
    """Set the providers of references, and the files, in this task, its child tasks, and their threads."""
    return _AtHand(RunBlobs(providers, files, asyncio.get_running_loop()))


async def check_provider(name: str, provider: StateProvider) -> None:
    """Check that a provider responds, by reading a key that does not exist.

    Raises:
        ProviderFailed: the provider is unreachable or denies access.
    """
    with _naming(name, PROBE, "could not look for"), suppress(LookupError, FileNotFoundError):
        await call_storage(partial(provider.get, PROBE), name)


class _AtHand:
    """Sets and resets the providers. A class, because a generator per waiting run is four times as large."""

    __slots__ = ("_blobs", "_token")

    def __init__(self, blobs: RunBlobs) -> None:
        self._blobs = blobs

    def __enter__(self) -> None:
        self._token = BLOBS.set(self._blobs)

    def __exit__(self, *_: object) -> None:
        BLOBS.reset(self._token)


@contextmanager
def collect_starting_blobs(model: type[PipelineContext]) -> Iterator[StartingBlobs | None]:
    """Accept values in place of references while a context is created; yields None outside a run.

    Raises:
        ProviderNotGiven: the model has references, but there is no provider.
    """
    around = BLOBS.get()
    if not isinstance(around, RunBlobs):
        yield None
        return
    if not around.providers and (field := reference_field(model)):
        raise ProviderNotGiven(
            f"`{model.__name__}.{field}` is a `ContextReference`, but the runner has no state provider",
            hint="pass `Flujo(…, state_providers={'docs': FileProvider('documents')})`, or set in flujo.toml "
            "`[state_providers] docs = 'file:documents'`",
            field=field,
        )
    blobs = StartingBlobs(around.providers, around.files, around.loop)
    token = BLOBS.set(blobs)
    try:
        yield blobs
    finally:
        BLOBS.reset(token)


class RunBlobs:
    """The blobs of a run, by provider and key."""

    __slots__ = ("files", "loop", "providers")
    is_starting = False

    def __init__(
        self, providers: Mapping[str, StateProvider], files: ProjectFiles, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.providers = providers
        self.files = files
        self.loop = loop

    def __deepcopy__(self, _: Any) -> RunBlobs:
        return self  # a context may be copied; the connections of its providers may not

    def take(self, data: bytes) -> Mapping[str, Any]:  # noqa: ARG002 - of the port
        """Refuse: values may replace references only when a run starts."""
        raise RuntimeError("a value may replace a reference only when a run starts")

    async def put(self, data: bytes, provider_id: str | None) -> Mapping[str, Any]:
        """Store bytes under their digest, and verify the write."""
        GATE.admit(data, "the value of a reference")
        pointer = self._pointer(data, provider_id)
        name, key = pointer["provider_id"], pointer["key"]
        provider = self._provider(name, "a new value")
        with _naming(name, key, "could not write"):
            await call_storage(partial(provider.put, key, data), name)
            if getattr(provider, "verifies_writes", False):
                return pointer
            found = await call_storage(partial(provider.get, key), name)
        if canonical.digest(found) != pointer["sha256"]:
            raise ProviderFailed(
                f"state provider {name!r} returned different bytes for {key!r} than were just written",
                provider_id=name,
                key=key,
            )
        return pointer

    async def get(self, reference: ContextReference[Any], field: str) -> bytes:
        """Return the bytes behind a reference; verifies size and digest."""
        name, key, what = reference.provider_id, reference.key, field or "a reference"
        provider = self._provider(name, what)
        with _naming(name, key, "could not read"):
            try:
                data = await call_storage(partial(provider.get, key), name)
            except (LookupError, FileNotFoundError) as error:
                raise ReferenceMissing(
                    f"{what}: state provider {name!r} has nothing under {key!r}",
                    provider_id=name,
                    key=key,
                    field=field,
                ) from error
        _check(reference, data, what)
        return data

    async def file(self, path: str) -> bytes:
        """Return the bytes of a file of the project; see `ProjectFiles`."""
        return await THREADS.submit(partial(self.files.read, path))

    async def pin(self, reference: ContextReference[Any]) -> None:
        """Add the size and digest to a reference to bytes that the application stored."""
        field = reference._field
        self._provider(reference.provider_id, field or "a reference")
        if reference.sha256 is None:
            data = await self.get(reference, field)
            for name, value in (("sha256", canonical.digest(data)), ("size", len(data))):
                object.__setattr__(reference, name, value)  # frozen outside this class

    def _pointer(self, data: bytes, provider_id: str | None) -> dict[str, Any]:
        name = provider_id or self._only()
        self._provider(name, "a new value")
        digest = canonical.digest(data)
        return {"provider_id": name, "key": f"{PREFIX}{digest}", "sha256": digest, "size": len(data)}

    def _only(self) -> str:
        """Return the only provider, for a value that names none."""
        if len(self.providers) == 1:
            return next(iter(self.providers))
        raise ProviderNotGiven(
            f"a new value names no state provider, and the runner has {len(self.providers)}: "
            f"{_listed(self.providers)}",
            hint="name one: `await ContextReference.of(value, provider=…)`",
            given=tuple(self.providers),
        )

    def _provider(self, name: str, what: str) -> StateProvider:
        if name not in self.providers:
            raise ProviderNotGiven(
                f"{what} needs state provider {name!r}, but the runner has {_listed(self.providers)}",
                hint=f"pass `state_providers={{{name!r}: …}}` to every runner of this pipeline",
                provider_id=name,
                given=tuple(self.providers),
            )
        return self.providers[name]


class StartingBlobs(RunBlobs):
    """The blobs of a starting run: collects values, and stores them once the context is valid."""

    is_starting = True

    def __init__(
        self, providers: Mapping[str, StateProvider], files: ProjectFiles, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(providers, files, loop)
        self._taken: list[tuple[str, bytes]] = []

    def take(self, data: bytes) -> Mapping[str, Any]:
        """Return the pointer of a value that `store_all` stores."""
        pointer = self._pointer(data, None)
        self._taken.append((pointer["provider_id"], data))
        return pointer

    async def store_all(self, context: BaseModel) -> None:
        """Store the collected values, and complete references without a digest.

        Raises:
            ProviderNotGiven | ProviderFailed | ReferenceMissing: the run cannot start.
        """
        for name, data in self._taken:
            await self.put(data, name)
        for reference in _references(context):
            await self.pin(reference)


def reference_field(model: type[BaseModel]) -> str | None:
    """Return the first field of a model with references at any depth, or None."""
    return _reference_field(model, frozenset())


def _reference_field(model: type[BaseModel], above: frozenset[type]) -> str | None:
    for name, field in model.model_fields.items():
        for kind in _types(field.annotation):
            if issubclass(kind, ContextReference):
                return name
            if issubclass(kind, BaseModel) and kind not in above and _reference_field(kind, above | {model}):
                return name
    return None


def _types(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


def _references(value: Any) -> Iterator[ContextReference[Any]]:
    match value:
        case ContextReference():
            yield value
        case BaseModel():
            for name in type(value).model_fields:
                yield from _references(getattr(value, name))
        case Mapping():
            for item in value.values():
                yield from _references(item)
        case list() | tuple() | set() | frozenset():
            for item in value:
                yield from _references(item)
        case _:
            return  # a scalar


@contextmanager
def _naming(name: str, key: str, what: str) -> Iterator[None]:
    """Turn errors of a provider into `ProviderFailed`, which names the provider and the key."""
    try:
        yield
    except FlujoError:
        raise
    except Exception as error:  # foreign code: each storage has its own errors
        reason = described(error).splitlines()[0]  # clients list all retries in further lines
        raise ProviderFailed(
            f"state provider {name!r} {what} {key!r}: {reason}",
            provider_id=name,
            key=key,
        ) from error


def _check(reference: ContextReference[Any], data: bytes, what: str) -> None:
    if reference.size not in (None, len(data)):
        found, wanted = f"{len(data)} bytes", f"{reference.size}"
    elif reference.sha256 is not None and canonical.digest(data) != reference.sha256:
        found, wanted = f"sha256 {canonical.digest(data)}", reference.sha256
    else:
        return
    raise ReferenceCorrupt(
        f"{what}: state provider {reference.provider_id!r} has {found} under {reference.key!r}, "
        f"expected {wanted}",
        provider_id=reference.provider_id,
        key=reference.key,
        expected=reference.sha256,
        found=canonical.digest(data),
    )


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"
