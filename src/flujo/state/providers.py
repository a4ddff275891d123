"""State providers: where the bytes behind references are kept. In memory, in a folder, in a bucket."""

from __future__ import annotations

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flujo.domain.commands import command
from flujo.domain.wording import repr_short
from flujo.exceptions import ReferenceMissing, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Of our own: the event loop's default threads are few, and shared with whatever the application does there.
_THREADS = ThreadPoolExecutor(max_workers=16, thread_name_prefix="flujo-provider")


class MemoryProvider:
    """Keeps bytes in this process, for tests and for runs that are not persisted."""

    verifies_writes = True

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes:
        """Return the bytes under `key`."""
        return self.blobs[key]

    async def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`."""
        self.blobs[key] = data


class FileProvider:
    """Keeps each blob as a file of a folder; `key` is its path there, with `/` on every system.

    Args:
        folder: made at the first write. Several processes and hosts may share it.

    Raises:
        SettingsError: `folder` is not a path.
    """

    def __init__(self, folder: str | Path) -> None:
        if not str(folder) or "\0" in str(folder) or not isinstance(folder, str | Path):
            raise SettingsError(
                f"`folder` is {repr_short(folder)}, not a path", hint='write `FileProvider("documents")`'
            )
        self.folder = Path(folder)

    async def get(self, key: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ReferenceMissing: the key leads out of the folder.
            FileNotFoundError: there is no such file.
        """
        return await _in_thread(self._read, key)

    async def put(self, key: str, data: bytes) -> None:
        """Write a file: all of it or nothing, and on the disk when this returns."""
        await _in_thread(self._write, key, data)

    def _read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def _write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        missing = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        for folder in (path.parent, *(each.parent for each in missing)):
            _sync_folder(folder)

    def _path(self, key: str) -> Path:
        """Return the file of a key, which a reference in a database may name: it has to be in the folder."""
        parts = key.split("/")
        plain = not any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts)
        path = self.folder.joinpath(*parts) if plain else self.folder
        if not plain or not path.resolve().is_relative_to(self.folder.resolve()):
            raise ReferenceMissing(
                f"{key!r} is not a file inside the folder of this state provider",
                hint="a key is a relative path with `/`, without `..`, and no link leads out of the folder",
                key=key,
            )
        return path


class BucketProvider:
    """Keeps blobs in a bucket: S3 and what speaks its protocol, Google Cloud Storage, Azure.

    Needs the extra `flujo[s3]`. Credentials and the endpoint come from the environment as the cloud's own
    tools read them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …) unless `options` say otherwise.

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `az://…`.
        options: what `obstore.store.from_url` takes: `region`, `endpoint`, `client_options` …

    Raises:
        SettingsError: `url` is not that of a bucket, `options` are wrong, or the extra is not installed.
    """

    def __init__(self, url: str, **options: Any) -> None:
        if "://" not in str(url) or not isinstance(url, str):
            raise SettingsError(
                f"`url` is {repr_short(url)}, not that of a bucket",
                hint="write `s3://bucket/prefix`, `gs://…` or `az://…`",
            )
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise SettingsError(
                f"state provider {url!r} needs a package that is not installed: {error.name}",
                hint=command("pip", "install", "flujo[s3]"),
            ) from error
        # The other side refuses an upload whose bytes are not those of its checksum.
        self.verifies_writes = url.startswith("s3://")
        checked = {"checksum_algorithm": "SHA256"} if self.verifies_writes else {}
        # Bounded: after this, a retry of the step is better than waiting longer.
        patience = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
        settings: dict[str, Any] = {"retry_config": patience, **checked, **options}
        try:
            self._store: Any = from_url(url, **settings)
        except Exception as error:  # the library's own, which differ by storage
            raise SettingsError(
                f"the bucket {url!r} cannot be opened: {str(error).splitlines()[0]}",
                hint="credentials and region come from the environment, as the cloud's own tools read them",
            ) from error

    async def get(self, key: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        # The library's own async calls may abort the process at exit: its threads outlive the interpreter.
        return await _in_thread(lambda: bytes(self._store.get(key).bytes()))

    async def put(self, key: str, data: bytes) -> None:
        """Write an object; the service has it when this returns."""
        await _in_thread(self._store.put, key, data)


def open_provider(name: str, url: str, root: Path) -> FileProvider | BucketProvider:
    """Return the provider that a setting names: `file:PATH` (relative to `root`), or a bucket's URL.

    Raises:
        SettingsError: it names neither, or what it needs is not installed.
    """
    key = f"`state_providers.{name}`"
    scheme, colon, rest = url.partition(":")
    if scheme == "file" and rest.strip("/"):
        return FileProvider(root / rest.removeprefix("//"))
    if colon and rest.startswith("//"):
        try:
            return BucketProvider(url)
        except SettingsError as error:
            raise SettingsError(f"{key}: {error.message}", hint=error.hint) from error
    raise SettingsError(
        f"{key} is {url!r}, which is not a state provider",
        hint="write `file:documents`, or a bucket: `s3://bucket/prefix`",
    )


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work, *arguments)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, which the files' own fsync does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
