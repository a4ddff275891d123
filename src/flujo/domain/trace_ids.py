"""The ids of a run's trace and spans, derived from the run id: every process computes the same."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath

_FIRST_128, _FIRST_64 = 16, 8


@lru_cache(maxsize=1024)
def trace_id(run_id: RunId) -> int:
    """Return the trace id of a run: 128 bits, never 0."""
    return int.from_bytes(_digest(run_id)[:_FIRST_128]) or 1


def span_id(run_id: RunId, path: StepPath, *parts: str | int) -> int:
    """Return the span id of the run (the empty path), of a step, or of a part of a step: 64 bits, never 0."""
    return int.from_bytes(_digest(run_id, path, *parts)[:_FIRST_64]) or 1


def shown_trace_id(run_id: RunId) -> str:
    """Return the trace id of a run as tracing tools show it: 32 hexadecimal digits."""
    return f"{trace_id(run_id):032x}"


def _digest(*parts: str | int) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
