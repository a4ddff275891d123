"""What a callable declares of itself: what calling it does to the world, and whether it is announced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from flujo.domain.pipeline import Effect

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__flujo_tool__"


@dataclass(frozen=True, slots=True)
class Tool:
    """The least that a step has to say of a callable."""

    effect: Effect
    enforce_idempotency: bool

    def admits(self, effect: Effect) -> bool:
        """Return whether a step that says `effect` says at least what the callable does."""
        order = get_args(Effect)  # from what does nothing to what cannot be taken back
        return bool(order.index(effect) >= order.index(self.effect))


def tool(*, effect: Effect, enforce_idempotency: bool = False) -> Callable[[F], F]:
    """Declare what a callable does; a step that claims less is refused when it is bound.

        @flujo.tool(effect="unsafe", enforce_idempotency=True)
        async def charge(amount: int, idempotency_key: str) -> str: ...

    Args:
        effect: `read`, `idempotent`, `transactional` or `unsafe`. A step may say a stricter one.
        enforce_idempotency: whether a step has to announce its calls.
    """

    def mark(fn: F) -> F:
        setattr(fn, _MARK, Tool(effect, enforce_idempotency))
        return fn

    return mark


def declared(fn: Any) -> Tool | None:
    """Return what a callable declares of itself."""
    found = getattr(fn, _MARK, None)
    return found if isinstance(found, Tool) else None
