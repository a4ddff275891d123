"""How many examples the property tests try."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FLUJO_FUZZ", "0"))
"""Multiplies the examples; 0 takes a quarter of them, which are the same in each run, as `make test` does."""


def tries(count: int) -> settings:
    """Return the settings of a test that tries `count` examples."""
    return settings(
        max_examples=count * TIMES or count // 4,
        # Findings of `make soak` must not fail unrelated changes.
        derandomize=not TIMES,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
