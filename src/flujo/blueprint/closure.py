"""The closure of a pipeline: the files that a run pins when it is accepted, and the overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.exceptions import CorruptState

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Closure:
    """All inputs of a compiled pipeline, which a run pins when it is accepted."""

    entry: str
    files: Mapping[str, bytes]
    """Blueprints and prompt files by their project paths."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    unlocked: bool = False
    """Whether it replaced a locked closure and is not locked itself."""

    def manifest(self) -> bytes:
        """Return canonical JSON: the entry, the SHA-256 of each file, the overrides."""
        files = {path: canonical.digest(data) for path, data in self.files.items()}
        said = {"entry": self.entry, "files": files, "overrides": dict(self.overrides)}
        return canonical.encode(said | ({"unlocked": True} if self.unlocked else {}))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the manifest; equal closures have equal digests."""
        return canonical.digest(self.manifest())

    def blobs(self) -> dict[str, bytes]:
        """Return the manifest and the files by their digests."""
        contents = (self.manifest(), *self.files.values())
        return {canonical.digest(data): data for data in contents}

    @classmethod
    def load(cls, manifest: bytes, blobs: Mapping[str, bytes]) -> Closure:
        """Return the closure that `manifest` describes, with its files from `blobs` (digest → bytes).

        Raises:
            CorruptState: a file is not among the blobs.
        """
        said = canonical.decode(manifest)
        missing = [path for path, digest in said["files"].items() if digest not in blobs]
        if missing:
            raise CorruptState(
                f"the run's pinned file {missing[0]!r} is not in the database", path=missing[0]
            )
        files = {path: blobs[digest] for path, digest in said["files"].items()}
        return cls(said["entry"], files, said["overrides"], said.get("unlocked", False))
