"""Durable AI pipelines: the public names of Flujo, each imported at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flujo.blueprint.serializer import write_blueprint
    from flujo.domain.agents import AgentSpec, OneOf
    from flujo.domain.approvals import Approval
    from flujo.domain.context_references import StateProvider
    from flujo.domain.events import Chunk, StepEnded, external_hook
    from flujo.domain.merge import MergeStrategy
    from flujo.domain.models import AppResources, ContextReference, PipelineContext, PipelineResult
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import CacheBackend
    from flujo.domain.retry import RetryPolicy
    from flujo.domain.schedules import Schedule
    from flujo.domain.secrets import Secret
    from flujo.domain.steps import (
        AwaitStep,
        CachePolicy,
        CacheStep,
        Carry,
        ConditionalStep,
        ContinueAsNewStep,
        DynamicParallelRouterStep,
        EndStep,
        EventStep,
        GranularStep,
        History,
        HumanInTheLoopStep,
        ImportStep,
        LoopStep,
        MapStep,
        ParallelStep,
        Processors,
        Save,
        SetStep,
        SleepStep,
        State,
        StateMachineStep,
        Step,
        StepConfig,
        Transition,
        TreeSearchStep,
    )
    from flujo.domain.steps.tools import AgentTool, BlueprintTool
    from flujo.domain.tools import CallableTool, McpTools, tool
    from flujo.domain.usage import UsageLimits
    from flujo.domain.values import CallableRef, Expr, Text
    from flujo.exceptions import NotSent
    from flujo.http_client import FlujoHTTPClient
    from flujo.services.inspection.schedule_client import ScheduleClient
    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.project.recovery_policy import RecoveryPolicy
    from flujo.services.read_blueprint import read_blueprint
    from flujo.services.runs.pipeline_registry import register
    from flujo.services.runs.runner import Flujo
    from flujo.services.runs.streaming import RunStream
    from flujo.state.providers import BucketProvider, FileProvider, MemoryProvider

_HOMES = {
    "AgentSpec": "flujo.domain.agents",
    "AgentTool": "flujo.domain.steps.tools",
    "AppResources": "flujo.domain.models",
    "Approval": "flujo.domain.approvals",
    "BlueprintTool": "flujo.domain.steps.tools",
    "BucketProvider": "flujo.state.providers",
    "CacheBackend": "flujo.domain.ports",
    "CachePolicy": "flujo.domain.steps",
    "CacheStep": "flujo.domain.steps",
    "CallableRef": "flujo.domain.values",
    "CallableTool": "flujo.domain.tools",
    "Carry": "flujo.domain.steps",
    "Chunk": "flujo.domain.events",
    "ConditionalStep": "flujo.domain.steps",
    "ContextReference": "flujo.domain.models",
    "DynamicParallelRouterStep": "flujo.domain.steps",
    "Expr": "flujo.domain.values",
    "FileProvider": "flujo.state.providers",
    "Flujo": "flujo.services.runs.runner",
    "FlujoHTTPClient": "flujo.http_client",
    "GranularStep": "flujo.domain.steps",
    "History": "flujo.domain.steps",
    "HumanInTheLoopStep": "flujo.domain.steps",
    "ImportStep": "flujo.domain.steps",
    "LoopStep": "flujo.domain.steps",
    "MapStep": "flujo.domain.steps",
    "McpTools": "flujo.domain.tools",
    "MemoryProvider": "flujo.state.providers",
    "MergeStrategy": "flujo.domain.merge",
    "NotSent": "flujo.exceptions",
    "OneOf": "flujo.domain.agents",
    "ParallelStep": "flujo.domain.steps",
    "Pipeline": "flujo.domain.pipeline",
    "PipelineContext": "flujo.domain.models",
    "PipelineResult": "flujo.domain.models",
    "Processors": "flujo.domain.steps",
    "RecoveryPolicy": "flujo.services.project.recovery_policy",
    "RetryPolicy": "flujo.domain.retry",
    "RunStream": "flujo.services.runs.streaming",
    "Save": "flujo.domain.steps",
    "Schedule": "flujo.domain.schedules",
    "ScheduleClient": "flujo.services.inspection.schedule_client",
    "Secret": "flujo.domain.secrets",
    "State": "flujo.domain.steps",
    "AwaitStep": "flujo.domain.steps",
    "EndStep": "flujo.domain.steps",
    "EventStep": "flujo.domain.steps",
    "ContinueAsNewStep": "flujo.domain.steps",
    "SetStep": "flujo.domain.steps",
    "SleepStep": "flujo.domain.steps",
    "StateMachineStep": "flujo.domain.steps",
    "StateProvider": "flujo.domain.context_references",
    "Step": "flujo.domain.steps",
    "StepConfig": "flujo.domain.steps",
    "StepEnded": "flujo.domain.events",
    "StepOutcome": "flujo.domain.outcomes",
    "TaskClient": "flujo.services.inspection.task_client",
    "Text": "flujo.domain.values",
    "Transition": "flujo.domain.steps",
    "TreeSearchStep": "flujo.domain.steps",
    "UsageLimits": "flujo.domain.usage",
    "external_hook": "flujo.domain.events",
    "read_blueprint": "flujo.services.read_blueprint",
    "register": "flujo.services.runs.pipeline_registry",
    "tool": "flujo.domain.tools",
    "write_blueprint": "flujo.blueprint.serializer",
}

__all__ = [
    "AgentSpec",
    "AgentTool",
    "AppResources",
    "Approval",
    "AwaitStep",
    "BlueprintTool",
    "BucketProvider",
    "CacheBackend",
    "CachePolicy",
    "CacheStep",
    "CallableRef",
    "CallableTool",
    "Carry",
    "Chunk",
    "ConditionalStep",
    "ContextReference",
    "ContinueAsNewStep",
    "DynamicParallelRouterStep",
    "EndStep",
    "EventStep",
    "Expr",
    "FileProvider",
    "Flujo",
    "FlujoHTTPClient",
    "GranularStep",
    "History",
    "HumanInTheLoopStep",
    "ImportStep",
    "LoopStep",
    "MapStep",
    "McpTools",
    "MemoryProvider",
    "MergeStrategy",
    "NotSent",
    "OneOf",
    "ParallelStep",
    "Pipeline",
    "PipelineContext",
    "PipelineResult",
    "Processors",
    "RecoveryPolicy",
    "RetryPolicy",
    "RunStream",
    "Save",
    "Schedule",
    "ScheduleClient",
    "Secret",
    "SetStep",
    "SleepStep",
    "State",
    "StateMachineStep",
    "StateProvider",
    "Step",
    "StepConfig",
    "StepEnded",
    "StepOutcome",
    "TaskClient",
    "Text",
    "Transition",
    "TreeSearchStep",
    "UsageLimits",
    "external_hook",
    "read_blueprint",
    "register",
    "tool",
    "write_blueprint",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flujo' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
