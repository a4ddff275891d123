"""A type as the output of an agent validates an answer, and never calls a function with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, Field

from flujo.agents.chat import build_agent
from flujo.agents.output_type import OutputType
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec
from flujo.exceptions import AgentError

if TYPE_CHECKING:
    from pathlib import Path

made: list[str] = []


def refund(order: str) -> str:
    """Refund an order."""
    made.append(order)
    return "refunded"


class Model(BaseModel):
    order: str


@dataclass
class Data:
    order: str


class Pair(NamedTuple):
    order: str
    amount: int


@pytest.mark.parametrize("output", [refund, partial(refund), list[refund], Annotated[refund, Field()]])  # type: ignore[valid-type]  # as a user may write it
def test_a_function_is_not_an_output_type(output: Any) -> None:
    with pytest.raises(AgentError, match=r"calls the function `.*refund.*` with the answer") as caught:
        OutputType(output)
    assert "as a tool" in str(caught.value.hint)
    assert made == []


@pytest.mark.parametrize("output", [Model, Data, Pair, dict[str, int], list[Model], int | None])
def test_a_type_is_an_output_type(output: Any) -> None:
    assert OutputType(output).schema


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"openai_native_tools": [{"type": "web_search"}]}, "openai_native_tools"),
        ({"extra_body": {"tools": [{"type": "web_search"}]}}, "extra_body.tools"),
        ({"bedrock_additional_model_requests_fields": {"tools": [1]}}, "bedrock_.*fields.tools"),
    ],
)
def test_tools_that_a_provider_calls_are_refused(tmp_path: Path, settings: Any, named: str) -> None:
    spec = AgentSpec("clerk", "openai:gpt-5-mini", model_settings=settings)
    with pytest.raises(AgentError, match=f"`{named}`, with which the provider calls tools of its own"):
        build_agent(spec, settings=AgentSettings(environment={}, cache_dir=tmp_path))
