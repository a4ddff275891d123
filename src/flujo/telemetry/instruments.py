"""The metrics, which are computed from the spans and from counts of this process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from flujo.domain.process_counts import COUNTS
from flujo.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import CallbackOptions, Meter

    from flujo.domain.queues import QueueState
    from flujo.domain.run import RunStatus
    from flujo.telemetry.span import Span, Value

_KEPT = (
    *(names.OPERATION, names.PROVIDER, names.REQUEST_MODEL, names.RESPONSE_MODEL, names.AGENT_NAME),
    *(names.TOOL_NAME, names.ERROR_TYPE),
)
"""The attributes of spans that metrics have as well: those with few values."""


class Instruments:
    """The instruments of one meter.

    Args:
        meter: of the SDK.
    """

    def __init__(self, meter: Meter) -> None:
        self._runs = meter.create_counter(names.RUNS, "{run}", "Executions of runs that have ended")
        self._cost = meter.create_counter(names.COST_TOTAL, "USD", "Cost of requests to models")
        self._input = meter.create_counter(names.REQUEST_INPUT_TOKENS, "{token}", "Tokens sent to models")
        self._output = meter.create_counter(names.REQUEST_OUTPUT_TOKENS, "{token}", "Tokens from models")
        self._steps = meter.create_histogram(
            names.STEP_SECONDS, "s", "Time from the start of a step to its end"
        )
        self._of_operations = {
            names.CHAT: meter.create_histogram(names.REQUEST_SECONDS, "s", "Time of a request to a model"),
            names.EXECUTE_TOOL: meter.create_histogram(names.TOOL_SECONDS, "s", "Time of a tool call"),
            names.INVOKE_AGENT: meter.create_histogram(names.AGENT_SECONDS, "s", "Time of an agent's work"),
        }

        self._depth = meter.create_gauge(names.QUEUE_DEPTH, "{run}", "Runs that a worker may take")
        self._age = meter.create_gauge(names.QUEUE_AGE, "s", "Time that the oldest of them has been waiting")
        self._queues: set[str] = set()
        for name, unit, what, value in _OF_PROCESS:
            meter.create_observable_counter(name, [partial(_observed, value)], unit, what)
        meter.create_observable_gauge(
            names.POOL_USED, [partial(_observed, _in_use)], "{connection}", "Connections in use"
        )

    def report_queues(self, states: Sequence[QueueState]) -> None:
        """Set the depth and the age of each queue; those of a queue that is gone are 0."""
        found = {state.queue: state for state in states}
        self._queues |= found.keys()
        for name in self._queues:
            state = found.get(name)
            self._depth.set(0 if state is None else state.depth, {names.QUEUE: name})
            self._age.set(0.0 if state is None else state.oldest_s or 0.0, {names.QUEUE: name})

    def measure(self, span: Span) -> None:
        """Count a span."""
        given = span.attributes
        kept = {name: given[name] for name in _KEPT if name in given}
        operation = given.get(names.OPERATION)
        if (seconds := self._of_operations.get(str(operation))) is not None:
            seconds.record(span.seconds, kept)
        if operation == names.CHAT:
            self._input.add(_number(given.get(names.INPUT_TOKENS)), kept)
            self._output.add(_number(given.get(names.OUTPUT_TOKENS)), kept)
            self._cost.add(_number(given.get(names.COST)), kept)
        elif names.STEP_KIND in given and operation != names.EXECUTE_TOOL:
            of_step = {names.STEP_KIND: given[names.STEP_KIND]}
            if names.ERROR_TYPE in given:
                of_step[names.ERROR_TYPE] = given[names.ERROR_TYPE]
            self._steps.record(span.seconds, of_step)

    def count_run(self, pipeline: str, status: RunStatus) -> None:
        """Count an execution of a run that has ended in a status."""
        self._runs.add(1, {names.PIPELINE: pipeline, names.RUN_STATUS: str(status)})


def _in_use() -> int:
    return sum(pool.in_use() for pool in list(COUNTS.pools))


_OF_PROCESS = (
    (names.WRITER_REQUESTS, "{request}", "Requests that writers have settled", lambda: COUNTS.requests),
    (names.WRITER_COMMITS, "{commit}", "Commits of writers", lambda: COUNTS.commits),
    (names.LEASE_RENEWALS, "{lease}", "Renewed leases", lambda: COUNTS.renewals),
)


def _observed(value: Callable[[], int], _: CallbackOptions) -> list[Observation]:
    return [Observation(value())]


def _number(value: Value | None) -> int | float:
    return value if isinstance(value, int | float) else 0
