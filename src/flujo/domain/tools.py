"""Declarations of callables: their effect, and whether their calls are recorded before they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from flujo.domain.pipeline import Effect

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__flujo_tool__"


@dataclass(frozen=True, slots=True)
class Tool:
    """The least strict declaration that a step may have for a callable."""

    effect: Effect
    enforce_idempotency: bool

    def admits(self, effect: Effect) -> bool:
        """Return whether a step with `effect` is at least as strict as the callable."""
        order = get_args(Effect)  # from no effect to an irreversible one
        return bool(order.index(effect) >= order.index(self.effect))


def tool(*, effect: Effect, enforce_idempotency: bool = False) -> Callable[[F], F]:
    """Declare the effect of a callable; a step with a less strict one is refused when it is bound.

        @flujo.tool(effect="unsafe", enforce_idempotency=True)
        async def charge(amount: int, idempotency_key: str) -> str: ...

    Args:
        effect: `read`, `idempotent`, `transactional` or `unsafe`. A step may declare a stricter one.
        enforce_idempotency: whether a step must record its calls before it makes them.
    """

    def mark(fn: F) -> F:
        setattr(fn, _MARK, Tool(effect, enforce_idempotency))
        return fn

    return mark


def declared(fn: Any) -> Tool | None:
    """Return the declaration of a callable."""
    found = getattr(fn, _MARK, None)
    return found if isinstance(found, Tool) else None
