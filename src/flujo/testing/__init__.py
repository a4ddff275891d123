"""Public tools for tests: scripted agents, a store in memory, the suite that every store passes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flujo.agents.scripted import ScriptedAgent
    from flujo.state.memory import MemoryStateStore
    from flujo.testing.store_suite import StateStoreSuite

_HOMES = {
    "MemoryStateStore": "flujo.state.memory",
    "ScriptedAgent": "flujo.agents.scripted",
    "StateStoreSuite": "flujo.testing.store_suite",
}

__all__ = ["MemoryStateStore", "ScriptedAgent", "StateStoreSuite"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flujo.testing' has no attribute {name!r}")
    return getattr(import_module(home), name)
