"""Reads the transcripts of a run's attempts into its trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import canonical

if TYPE_CHECKING:
    from flujo.domain.store import BlobStore
    from flujo.services.inspection.trace import TraceNode


async def load_transcripts(store: BlobStore, root: TraceNode) -> None:
    """Replace the digest of each transcript by its `instructions`, `tools` and `messages`.

    Raises:
        CorruptState: a transcript is missing or damaged.
    """
    kept = [each for node in root.walk() for each in node.transcripts]
    blobs = await store.blobs(sorted({each["digest"] for each in kept})) if kept else {}
    for each in kept:
        each.update(canonical.decode(blobs[each.pop("digest")]))
