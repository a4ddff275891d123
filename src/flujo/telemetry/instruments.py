"""The metrics, which are computed from the spans and from counts of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

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


def _number(value: Value | None) -> int | float:
    return value if isinstance(value, int | float) else 0
