"""Public tools for tests: scripted agents, a clock, a store and a cache in memory, suites, crash points."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flujo.agents.scripted import ScriptedAgent
    from flujo.domain.conversations import ToolCall
    from flujo.state.memory_cache import MemoryCache
    from flujo.state.memory_store import MemoryStateStore
    from flujo.testing.cache_suite import CacheBackendSuite
    from flujo.testing.clock import TestClock
    from flujo.testing.crash_points import enumerate_crashes, reach
    from flujo.testing.crash_testing import crash_test
    from flujo.testing.scripted_runs import scripted_runner
    from flujo.testing.simulation import simulate
    from flujo.testing.store_suite import StateStoreSuite

_HOMES = {
    "CacheBackendSuite": "flujo.testing.cache_suite",
    "MemoryCache": "flujo.state.memory_cache",
    "MemoryStateStore": "flujo.state.memory_store",
    "ScriptedAgent": "flujo.agents.scripted",
    "StateStoreSuite": "flujo.testing.store_suite",
    "TestClock": "flujo.testing.clock",
    "ToolCall": "flujo.domain.conversations",
    "crash_test": "flujo.testing.crash_testing",
    "enumerate_crashes": "flujo.testing.crash_points",
    "reach": "flujo.testing.crash_points",
    "scripted_runner": "flujo.testing.scripted_runs",
    "simulate": "flujo.testing.simulation",
}

__all__ = [
    "CacheBackendSuite",
    "MemoryCache",
    "MemoryStateStore",
    "ScriptedAgent",
    "StateStoreSuite",
    "TestClock",
    "ToolCall",
    "crash_test",
    "enumerate_crashes",
    "reach",
    "scripted_runner",
    "simulate",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flujo.testing' has no attribute {name!r}")
    return getattr(import_module(home), name)
