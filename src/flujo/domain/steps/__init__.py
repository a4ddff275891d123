"""The syntax tree: every kind of step, as plain data. YAML and Python are two doors to these classes.

A tree holds expressions, texts, schemas and names; it holds nothing compiled. `services.wiring.bind`
imports and compiles what a tree names and hands the engine what it calls.

Fields have the words of the YAML. Constructors take what Python has for them: callables, texts, a list of
steps or one step where a body stands; what they make of it is the same plain data (`domain.leaves`).
`Step[In, Out]` says what a step takes and gives; type checkers join steps by it, and it holds no data.
"""

from flujo.domain.steps.around import CacheStep, ImportStep, TreeSearchStep
from flujo.domain.steps.asking import FALLBACK, GranularStep, HumanInTheLoopStep, Processors, Step
from flujo.domain.steps.at_once import DynamicParallelRouterStep, MapStep, ParallelStep
from flujo.domain.steps.base import (
    PREVIOUS,
    BaseStep,
    CachePolicy,
    Durability,
    Effect,
    ExecutionMode,
    InDoubt,
    OnError,
    OnLimit,
    Save,
    StepConfig,
)
from flujo.domain.steps.control import Carry, ConditionalStep, LoopStep, State, StateMachineStep, Transition
from flujo.domain.values import CallableRef, Expr, Logic, Text, Value

__all__ = [
    "FALLBACK",
    "PREVIOUS",
    "BaseStep",
    "CachePolicy",
    "CacheStep",
    "CallableRef",
    "Carry",
    "ConditionalStep",
    "Durability",
    "DynamicParallelRouterStep",
    "Effect",
    "ExecutionMode",
    "Expr",
    "GranularStep",
    "HumanInTheLoopStep",
    "ImportStep",
    "InDoubt",
    "Logic",
    "LoopStep",
    "MapStep",
    "OnError",
    "OnLimit",
    "ParallelStep",
    "Processors",
    "Save",
    "State",
    "StateMachineStep",
    "Step",
    "StepConfig",
    "Text",
    "Transition",
    "TreeSearchStep",
    "Value",
]
