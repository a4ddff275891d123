"""The ports that execute callables, what travels to a worker, and the error for an exit of foreign code."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from flujo.domain.current_step import CurrentStep
from flujo.domain.fast_dataclass import record
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.wording import size
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

DEFAULT_EXECUTOR = "threads"
"""The executor that every project has: the threads of the process of the run."""

_MOST = 10_000
"""The maximum number of cores or GPUs of a unit."""

GRACE_S = 5.0
"""How long code may take to stop after a run or a time limit has cancelled it."""

UNCLOSED: list[Coroutine[Any, Any, Any]] = []
"""Coroutines that ignore `close`: they never run again, and their deletion would only print errors."""


class CodeExit(Exception):
    """Foreign code raised something that is not an `Exception`: it exits, or what it awaited was cancelled.

    Args:
        raised: what it raised.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__()
        self.raised = raised
        self.__cause__ = raised


class BatchedItems(AsyncIterator[T]):
    """An async iterator that can return several items at once, for sync iterators."""

    @abstractmethod
    async def take(self, count: int) -> list[T]:
        """Return the next items: those that arrive quickly, `count` at most; none at the end."""


class CodeThreads(Protocol):
    """Calls sync code in threads of this process."""

    async def submit(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, or raise its exception.

        Cancelling the caller drops the result. Queued work then never starts; running work may continue, and
        nothing waits for it.
        """
        ...


@record(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a unit of work needs of the worker that executes it."""

    cpu: float = 1.0
    """Cores; 0.5 lets two units share one."""
    gpu: float = 0.0
    memory: int = 0
    """Bytes; 0 if it does not matter."""

    def __str__(self) -> str:
        """Return the amounts, for display: `2 cpu, 1 gpu, 8 GiB of memory`."""
        parts = [f"{amount:g} {name}" for name, amount in (("cpu", self.cpu), ("gpu", self.gpu)) if amount]
        return ", ".join(parts + ([f"{size(self.memory)} of memory"] if self.memory else [])) or "nothing"

    def beyond(self, has: Needs) -> Needs | None:
        """Return the amounts that are larger than those of `has`, the others as 0; None if there are none.

        A memory of 0 in `has` is not known, and refuses nothing.
        """
        memory = self.memory if 0 < has.memory < self.memory else 0
        cpu = self.cpu if self.cpu > has.cpu else 0
        gpu = self.gpu if self.gpu > has.gpu else 0
        return Needs(cpu=cpu, gpu=gpu, memory=memory) if cpu or gpu or memory else None


_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*([KMGT]i?)?B?", re.ASCII)
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {f"{letter}i": 1024 ** (power + 1) for power, letter in enumerate("KMGT")}


def memory(given: Any, where: str) -> int:
    """Return a number of bytes: a whole number, or a text like `8GiB`, `512MiB`, `2GB`.

    Raises:
        PipelineError: it is something else.
    """
    found = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if found is not None:
        return round(float(found[1]) * _UNITS[found[2] or ""])
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    raise PipelineError(f"{where} is {given!r}, not a size", hint="write for instance `8GiB` or `512MiB`")


def needs(given: Needs | Mapping[str, Any] | None, where: str) -> Needs | None:
    """Return what a step needs of a worker.

    Raises:
        PipelineError: it is not a mapping of `cpu`, `gpu` and `memory`, or an amount is out of bounds.
    """
    if given is None or isinstance(given, Needs):
        return given
    if not isinstance(given, Mapping):
        raise PipelineError(f"{where} is {given!r}; expected `{{'cpu': 2, 'gpu': 1, 'memory': '8GiB'}}`")
    amounts: dict[str, Any] = {}
    for name, amount in given.items():
        if name == "memory":
            amounts[name] = memory(amount, f"`memory` of {where}")
        elif name in ("cpu", "gpu"):
            is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
            if not is_number or not 0 <= amount <= _MOST or (name == "cpu" and amount == 0):
                raise PipelineError(
                    f"`{name}` of {where} is {amount!r}", hint="write a number above 0; 0.5 shares one"
                )
            amounts[name] = float(amount)
        else:
            raise PipelineError(
                f"{where} has {name!r}, which no worker has", hint="it has `cpu`, `gpu` and `memory`"
            )
    return Needs(**amounts)


def only_here(where: str, target: str) -> PipelineError:
    """Return the error about a callable with `context` that another process would execute."""
    return PipelineError(
        f"{where}, and `{target}` takes `context`, which is an object of the process of the run",
        hint="pass the values that it reads with `with:`, and write its result with `save:`; or name an "
        'executor of `kind = "threads"`',
        code="FLJ324",
    )


def without_secrets(where: str) -> PipelineError:
    """Return the error about a tool whose `with` has a secret that would leave the process of the run."""
    return PipelineError(
        f"{where}, and its `with` has a secret, which would leave the process of the run",
        hint="read the secret on the worker, in the resources of the project; or remove `executor`",
        code="FLJ326",
    )


@record(frozen=True, slots=True, kw_only=True)
class Unit:
    """One attempt of one callable as data: what travels to a worker, and the key of its call."""

    target: str
    """`module:callable`; the worker imports it."""
    data: bytes
    """Canonical JSON of the step's input; of its `with:` when `by_name`."""
    by_name: bool = False
    idempotency_key: str | None = None
    step: CurrentStep | None = None
    """The run, the path and the attempt."""
    number: int = 0
    """Counts the units that the attempt has sent, from 1, if something observes them."""
    traceparent: str | None = None
    """The span of the unit, in the form of W3C Trace Context; None without telemetry."""
    needs: Needs = Needs()
    here: Callable[[CodeThreads], Coroutine[Any, Any, Any]] | None = None
    """Calls it in this process, on these threads; None on a worker."""

    @property
    def place(self) -> str:
        """The path of its step, for display; its callable when it has no step."""
        return self.target if self.step is None else str(self.step.path)

    def to_json(self) -> dict[str, Any]:
        """Return what a worker gets; `number`, `needs` and `here` stay with the process of the run."""
        return {
            "target": self.target,
            "data": self.data.decode(),
            "by_name": self.by_name,
            "key": self.idempotency_key,
            "step": None if self.step is None else list(self.step),
            "traceparent": self.traceparent,
        }

    @classmethod
    def of_json(cls, written: dict[str, Any]) -> Unit:
        """Return the unit that `to_json` has written."""
        step = written["step"]
        return cls(
            target=written["target"],
            data=written["data"].encode(),
            by_name=written["by_name"],
            idempotency_key=written["key"],
            step=None if step is None else CurrentStep(RunId(step[0]), StepPath(step[1]), step[2]),
            traceparent=written.get("traceparent"),
        )


class Executor(Protocol):
    """Executes attempts of callables outside the event loop of the run: in processes, or on a cluster.

    The engine handles retries, time limits, budget, intents and journal entries, so an executor knows neither
    runs nor the journal. It executes a unit at most once: it never repeats one whose worker is gone.
    """

    name: str
    """The name in flujo.toml."""
    leaves_process: bool
    """Whether units are executed in other processes, which import their callables."""

    async def submit(self, unit: Unit) -> Any:
        """Return the output of a unit as JSON data, or raise what its callable raised.

        Cancelling the caller cancels the unit: queued work never starts, and the result of work that cannot
        be stopped is dropped.

        Raises:
            CallFailed: the callable raised; the class of this error has the name of the original.
            WorkerLost: the worker was gone before the result arrived.
            ExecutorUnavailable: there is no cluster, or it is gone.
            ResourcesUnavailable: no worker has what the unit needs.
            CodeDiffers: the worker has other code than this process.
            ResultRefused: the result is too large, or not JSON.
        """
        ...

    async def check(self) -> ExecutorFacts:
        """Connect, and return what is there.

        Raises:
            ExecutorUnavailable: there is no cluster.
        """
        ...

    async def aclose(self) -> None:
        """Cancel what is under way, and disconnect. Idempotent."""
        ...


@record(frozen=True, slots=True, kw_only=True)
class ExecutorFacts:
    """What an executor has, for `flujo doctor`."""

    workers: int
    has: Needs
    """All workers together; a memory of 0 is not known."""
    python: tuple[str, ...] = ()
    """The versions of Python of the workers, each once."""
    flujo: tuple[str, ...] = ()


@record(frozen=True, slots=True)
class Placed:
    """An executor, and what the units of one step need of it."""

    executor: Executor
    needs: Needs
