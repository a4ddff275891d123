"""What the parts of `TaskClient` share: its store, and the rights and the name of its principal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flujo.domain.access import Right
    from flujo.domain.acts import Actor
    from flujo.domain.reach import Reach
    from flujo.domain.store import StateStore
    from flujo.services.runs.task_actions import TaskActions


class ClientBase(ABC):
    """A part of `TaskClient`, which defines these methods."""

    @abstractmethod
    async def _store(self) -> StateStore: ...

    @abstractmethod
    async def _allowed(self, right: Right, run_id: Any, name: str = "run_id") -> str: ...

    @abstractmethod
    async def _actions(self) -> TaskActions: ...

    @abstractmethod
    def _reach(self) -> Reach: ...

    @abstractmethod
    def _actor(self, by: str | None) -> Actor: ...

    @abstractmethod
    def _require_everywhere(self, right: Right) -> None: ...
