"""A model of pydantic-ai that answers instantly, from a script."""

from typing import Any

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage
from turns import ANSWER, Script


class Instant(Model):
    """Calls `lookup` until the script ends."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    @property
    def model_name(self) -> str:
        """Its name."""
        return "instant"

    @property
    def system(self) -> str:
        """Its provider."""
        return "bench"

    async def request(self, *_: Any) -> ModelResponse:
        """Return the next response."""
        number = self._script.next()
        part = (
            TextPart(ANSWER)
            if number is None
            else ToolCallPart("lookup", {"name": f"Ada {number}"}, f"c{number}")
        )
        usage = RequestUsage(input_tokens=100, output_tokens=20)
        return ModelResponse(
            [part], usage=usage, model_name="instant", finish_reason="stop" if number is None else "tool_call"
        )
