"""A Python type as the output of an agent: its schema is for the model, its validation for the answer."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from flujo.agents.function import needs_pydantic, written
from flujo.domain import canonical
from flujo.exceptions import AgentError, OutputRejected


def _called(schema: Any) -> Any:
    """Return a function that validation would call with the answer: pydantic takes a function as a type."""
    if isinstance(schema, list | tuple):
        return next((found for each in schema if (found := _called(each)) is not None), None)
    if not isinstance(schema, dict):
        return None
    function = schema.get("function")
    if schema.get("type") == "call" and not isinstance(function, type):
        return function
    return _called(list(schema.values()))


class OutputType:
    """A class, or any other type that pydantic knows, as the type of answers."""

    def __init__(self, output_type: Any) -> None:
        self._type = output_type
        self._adapter: TypeAdapter[Any] = TypeAdapter(output_type)
        if (function := _called(self._adapter.core_schema)) is not None:
            raise AgentError(
                f"the output type calls the function `{getattr(function, '__qualname__', function)}` with "
                "the answer of a model, which no journal or approval sees",
                hint="give the agent the function as a tool, or a step that calls it after the agent",
            )
        self.schema = self._adapter.json_schema()

    def load(self, value: Any, text: str) -> Any:
        """Return an answer as a value of the type, or as the JSON data that keeps it.

        Args:
            value: JSON data that matches the schema.
            text: the answer, for the error.

        Raises:
            OutputRejected: the type refuses it.
        """
        try:
            loaded = self._adapter.validate_json(canonical.encode(value, what="the answer"))
            return written(loaded, self._type) if needs_pydantic(self._type) else loaded
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            reason = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in found
            )
            raise OutputRejected(
                f"the answer does not fit the output type: {reason}",
                hint="make `instructions` more precise, or make the type simpler",
                reason=reason,
                answer=text[:200],
            ) from error
