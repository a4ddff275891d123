"""What every step has, and what may stand in its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypedDict, TypeVar

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import In, Out, Pipeline, body
from flujo.domain.values import CallableRef, Expr, Logic, Logical

if TYPE_CHECKING:
    from flujo.domain.retry import RetryPolicy


NO_ITEMS: Mapping[str, Any] = MappingProxyType({})
PREVIOUS = Expr("previous")


C = TypeVar("C")


Answerer = AgentSpec | CallableRef | str | Callable[..., Any]
"""Who answers: an agent, or a callable."""


ExecutionMode = Literal["sync", "background"]
Durability = Literal["sync", "exit"]
OnLimit = Literal["fail", "continue"]
OnError = Literal["fail", "collect", "skip"]
Effect = Literal["read", "idempotent", "transactional", "unsafe"]
InDoubt = Literal["pause", "retry_same_key", "reconcile", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """How a step is executed. Seconds are floats; `max_retries` counts retries, not attempts."""

    timeout_s: float | None = None
    max_retries: int = 0
    retry: RetryPolicy | None = None
    execution_mode: ExecutionMode = "sync"
    durability: Durability | None = None


@dataclass(frozen=True, slots=True)
class Save:
    """What a step writes into one field of the context: an expression's value, set or appended."""

    value: Logic
    append: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class CachePolicy:
    """`cache:` on a step: a further key beside the default one, and how long an answer is good."""

    key: Logic | None
    ttl_s: float | None

    def __init__(self, *, key: Logical | None = None, ttl_s: float | None = None) -> None:
        """Take the further key, and for how many seconds an answer is good."""
        put(self, key=values.maybe_logic(key, "`cache`: `key`"), ttl_s=ttl_s)


@dataclass(frozen=True, kw_only=True)
class BaseStep(Generic[In, Out]):
    """What every kind has. `name` is an identifier, unique in its body."""

    name: str
    when: Logic | None = None
    save: Mapping[str, Save] = field(default_factory=dict)
    cache: CachePolicy | None = None
    tags: tuple[str, ...] = ()
    config: StepConfig = StepConfig()

    kind: ClassVar[str]
    names_bodies: ClassVar[bool] = False
    """Whether paths name the body that a step stands in, as branches and states do."""

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the pipelines inside this step, by a name that tells them apart."""
        return NO_ITEMS

    def usual_facts(self) -> Mapping[str, Any]:
        """Return what can be read beside the output when the step itself says nothing else."""
        return NO_ITEMS if self.cache is None else {"cached": False}

    def __rshift__(self, other: BaseStep[Out, C] | Pipeline[Out, C]) -> Pipeline[In, C]:
        """Return a pipeline of this step and what follows it."""
        return body(self, "`>>`") >> other


Callables = Sequence[CallableRef | str | Callable[..., Any]]
"""Several callables, each as itself or as `module:callable`."""

Saved = Save | Logical | Mapping[str, Logical]
"""What is saved: an expression or a callable; `{"append": …}` puts it at the end of a list."""


class Common(TypedDict, total=False):
    """The keys of every kind."""

    when: Logical | None
    save: Mapping[str, Saved]
    cache: CachePolicy | None
    tags: Sequence[str]
    config: StepConfig


def put(thing: Any, **values: Any) -> None:
    """Set the fields of a frozen object under construction."""
    for name, each in values.items():
        object.__setattr__(thing, name, each)
