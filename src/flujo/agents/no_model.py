"""The source of a model that gets no request, for a replay: it compares what an agent would send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from pydantic_ai.models import Model


@dataclass(slots=True)
class NoModel:
    """A model without a key, which cannot be opened."""

    key_name: str | None = None
    secrets: tuple[str, ...] = ()
    limits: None = None
    is_free: bool = True
    has_tool_protocol: bool = True

    @property
    def answered_with(self) -> Mapping[str, Any]:
        """What decides its answers: nothing."""
        return {}

    async def prepare(self) -> None:
        """Download nothing."""

    def open(self) -> AbstractAsyncContextManager[Model]:
        """Refuse to open the model.

        Raises:
            AssertionError: always.
        """
        raise AssertionError("a replay sends no request to a model")
