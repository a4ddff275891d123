"""Reads the contents that the trace of a run names: transcripts and tracebacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.store import BlobStore
    from flujo.services.inspection.trace_tree import TraceNode


async def load_transcripts(store: BlobStore, root: TraceNode) -> None:
    """Replace the digest of each transcript by its `instructions`, `tools` and `messages`.

    Raises:
        CorruptState: a transcript is missing or damaged.
    """
    kept = [each for node in root.walk() for each in node.transcripts]
    blobs = await store.blobs(sorted({each["digest"] for each in kept})) if kept else {}
    for each in kept:
        each.update(canonical.decode(blobs[each.pop("digest")]))


async def load_tracebacks(store: BlobStore, root: TraceNode) -> Mapping[str, str]:
    """Return the tracebacks of a node and everything inside it by their digests, with secrets masked.

    Raises:
        CorruptState: a traceback is missing or damaged.
    """
    digests = dict.fromkeys(each for node in root.walk() for each in node.tracebacks)
    blobs = await store.blobs(list(digests)) if digests else {}
    return {digest: GATE.text(blobs[digest].decode("utf-8", "replace")) for digest in digests}
