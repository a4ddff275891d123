"""A Python type as the output of an agent: its schema is for the model, its validation for the answer."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from flujo.agents.function import needs_pydantic, written
from flujo.domain import canonical
from flujo.exceptions import OutputRejected


class OutputType:
    """A class, or any other type that pydantic knows, as the type of answers."""

    def __init__(self, output_type: Any) -> None:
        self._type = output_type
        self._adapter: TypeAdapter[Any] = TypeAdapter(output_type)
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
