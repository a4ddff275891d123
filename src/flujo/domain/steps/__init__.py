"""The syntax tree: every kind of step as plain data, built from YAML or in Python.

A tree contains expressions, texts, schemas and names, but nothing compiled. `services.binding` imports and
compiles them for the engine.

Each kind has a file. Fields have the names of the YAML keys. Constructors accept Python values: callables,
strings, and a list of steps or one step as a body; the fields hold plain data (`domain.arguments`). Type
checkers use the parameters of `Step[In, Out]` to check that connected steps match.
"""

from collections.abc import Mapping

from flujo.domain.pipeline import (
    FALLBACK,
    BaseStep,
    CachePolicy,
    Durability,
    ExecutionMode,
    OnError,
    OnLimit,
    Save,
    StepConfig,
)
from flujo.domain.steps.await_ import AwaitStep
from flujo.domain.steps.cache import CacheStep, cached_step
from flujo.domain.steps.conditional import ConditionalStep
from flujo.domain.steps.continue_as_new import ContinueAsNewStep
from flujo.domain.steps.end import EndStep
from flujo.domain.steps.event import EventStep
from flujo.domain.steps.granular import GranularStep, History
from flujo.domain.steps.hitl import HumanInTheLoopStep
from flujo.domain.steps.import_ import ImportStep
from flujo.domain.steps.loop import Carry, LoopStep
from flujo.domain.steps.map import PREVIOUS, Keep, MapStep
from flujo.domain.steps.parallel import ParallelStep
from flujo.domain.steps.router import DynamicParallelRouterStep
from flujo.domain.steps.set import SetStep
from flujo.domain.steps.sleep import SleepStep
from flujo.domain.steps.state_machine import State, StateMachineStep, Transition
from flujo.domain.steps.step import Processors, Step
from flujo.domain.steps.tree_search import TreeSearchStep
from flujo.domain.tools import Effect, InDoubt
from flujo.domain.values import CallableRef, Expr, Logic, Text, Value

__all__ = [
    "FALLBACK",
    "KINDS",
    "PREVIOUS",
    "AwaitStep",
    "BaseStep",
    "CachePolicy",
    "CacheStep",
    "CallableRef",
    "Carry",
    "ConditionalStep",
    "ContinueAsNewStep",
    "Durability",
    "DynamicParallelRouterStep",
    "Effect",
    "EndStep",
    "EventStep",
    "ExecutionMode",
    "Expr",
    "GranularStep",
    "History",
    "HumanInTheLoopStep",
    "ImportStep",
    "InDoubt",
    "Keep",
    "Logic",
    "LoopStep",
    "MapStep",
    "OnError",
    "OnLimit",
    "ParallelStep",
    "Processors",
    "Save",
    "SetStep",
    "SleepStep",
    "State",
    "StateMachineStep",
    "Step",
    "StepConfig",
    "Text",
    "Transition",
    "TreeSearchStep",
    "Value",
    "cached_step",
]

KINDS: Mapping[str, type[BaseStep]] = {
    kind.kind: kind
    for kind in (
        Step, ConditionalStep, LoopStep, StateMachineStep, MapStep, ParallelStep, DynamicParallelRouterStep,
        GranularStep, CacheStep, ImportStep, HumanInTheLoopStep, SleepStep, EventStep, AwaitStep,
        ContinueAsNewStep, TreeSearchStep, SetStep, EndStep,
    )
}  # fmt: skip
"""The class of every kind of step, by its name in YAML."""
