"""Durable AI pipelines: what the manual imports from `flujo`, each name loaded when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flujo.domain.blobs import StateProvider
    from flujo.domain.merge import MergeStrategy
    from flujo.domain.models import AppResources, ContextReference, PipelineContext, PipelineResult
    from flujo.domain.outcomes import Chunk, StepEnded, StepOutcome
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import CacheBackend
    from flujo.domain.steps import (
        CacheStep,
        ConditionalStep,
        DynamicParallelRouterStep,
        HumanInTheLoopStep,
        ImportStep,
        LoopStep,
        MapStep,
        ParallelStep,
        StateMachineStep,
        Step,
        StepConfig,
        TreeSearchStep,
    )
    from flujo.domain.tools import tool
    from flujo.domain.usage import UsageLimits
    from flujo.services.recovery import RecoveryPolicy
    from flujo.services.registry import register
    from flujo.services.runner import Flujo
    from flujo.services.streaming import RunStream
    from flujo.services.tasks import TaskClient
    from flujo.state.providers import BucketProvider, FileProvider, MemoryProvider

_HOMES = {
    "AppResources": "flujo.domain.models",
    "BucketProvider": "flujo.state.providers",
    "CacheBackend": "flujo.domain.ports",
    "CacheStep": "flujo.domain.steps",
    "Chunk": "flujo.domain.outcomes",
    "ConditionalStep": "flujo.domain.steps",
    "ContextReference": "flujo.domain.models",
    "DynamicParallelRouterStep": "flujo.domain.steps",
    "FileProvider": "flujo.state.providers",
    "Flujo": "flujo.services.runner",
    "HumanInTheLoopStep": "flujo.domain.steps",
    "ImportStep": "flujo.domain.steps",
    "LoopStep": "flujo.domain.steps",
    "MapStep": "flujo.domain.steps",
    "MemoryProvider": "flujo.state.providers",
    "MergeStrategy": "flujo.domain.merge",
    "ParallelStep": "flujo.domain.steps",
    "Pipeline": "flujo.domain.pipeline",
    "PipelineContext": "flujo.domain.models",
    "PipelineResult": "flujo.domain.models",
    "RecoveryPolicy": "flujo.services.recovery",
    "RunStream": "flujo.services.streaming",
    "StateMachineStep": "flujo.domain.steps",
    "StateProvider": "flujo.domain.blobs",
    "Step": "flujo.domain.steps",
    "StepConfig": "flujo.domain.steps",
    "StepEnded": "flujo.domain.outcomes",
    "StepOutcome": "flujo.domain.outcomes",
    "TaskClient": "flujo.services.tasks",
    "UsageLimits": "flujo.domain.usage",
    "TreeSearchStep": "flujo.domain.steps",
    "register": "flujo.services.registry",
    "tool": "flujo.domain.tools",
}

__all__ = [
    "AppResources",
    "BucketProvider",
    "CacheBackend",
    "CacheStep",
    "Chunk",
    "ConditionalStep",
    "ContextReference",
    "DynamicParallelRouterStep",
    "FileProvider",
    "Flujo",
    "HumanInTheLoopStep",
    "ImportStep",
    "LoopStep",
    "MapStep",
    "MemoryProvider",
    "MergeStrategy",
    "ParallelStep",
    "Pipeline",
    "PipelineContext",
    "PipelineResult",
    "RecoveryPolicy",
    "RunStream",
    "StateMachineStep",
    "StateProvider",
    "Step",
    "StepConfig",
    "StepEnded",
    "StepOutcome",
    "TaskClient",
    "TreeSearchStep",
    "UsageLimits",
    "register",
    "tool",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flujo' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
