"""Dataclasses of which each step creates many: frozen for type checkers, without the cost at run time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool, **options: Any) -> Any:
        """Return `dataclass` without the frozen guard, which makes construction four times as slow."""
        return dataclasses.dataclass(unsafe_hash=frozen, **options)


__all__ = ["record"]
