"""Conversations of a scripted agent, for the tests of granular steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.conversations import ToolCall
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.steps import GranularStep, Step
from flujo.domain.threads import Exchange
from flujo.domain.usage import NOTHING, Usage
from flujo.testing import ScriptedAgent
from support import COUNTER_SCHEMA, pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.agents import Ask
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.tools import Tooled

RUN = RunId("run")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def calls(*each: tuple[str, dict[str, Any]]) -> list[ToolCall]:
    return [ToolCall(name, arguments) for name, arguments in each]


def talk(answers: Any, *, tools: Sequence[Tooled] = (add,), usage: Usage = NOTHING, **keys: Any) -> Pipeline:
    agent = ScriptedAgent(answers, tools=tools, usage=usage)
    return pipeline(GranularStep("research", agent, **keys), context_schema=COUNTER_SCHEMA)


async def entries(store: StateStore) -> dict[str, Entry]:
    return {entry.path: entry for entry in await store.entries(RUN) if entry.kind is not EntryKind.DECISION}


def context_of(result: PipelineResult[Any, Any]) -> Any:
    assert result.context is not None
    return result.context.model_dump()


def value(entry: Entry) -> Any:
    return canonical.decode(entry.output or b"null")


def detail(entry: Entry | None) -> Any:
    return canonical.decode(b"{}" if entry is None else entry.detail or b"{}")


# Threads -------------------------------------------------------------------------------------------------


def said(ask: Ask) -> str:
    """Return the prompt of a step of either kind."""
    match ask.data:
        case str(prompt) | [{"kind": "request", "parts": [{"content": str(prompt)}]}, *_]:
            return prompt
        case data:
            return canonical.encode(data).decode()


class Panel:
    """Steps whose agents answer `NAME(PROMPT)`, and what each of them heard of its thread."""

    def __init__(self) -> None:
        self.heard: dict[str, list[tuple[Exchange, ...]]] = {}

    def step(self, name: str, thread: str | None = "panel", **keys: Any) -> Step:
        return Step(name, agent=self.agent(name), thread=thread, **keys)

    def granular(self, name: str, thread: str | None = "panel", **keys: Any) -> GranularStep:
        return GranularStep(name, self.agent(name, tools=True), thread=thread, **keys)

    def agent(self, name: str, *, tools: bool = False) -> ScriptedAgent:
        def answer(ask: Ask) -> Any:
            if tools and len(ask.data) == 1:
                return calls(("add", {"a": 1, "b": 2}))
            self.heard.setdefault(name, []).append(tuple(ask.history))
            return f"{name}({said(ask)})"

        return ScriptedAgent(answer, tools=(add,) if tools else ())


def exchange(name: str, prompt: str, *, own: bool = False) -> Exchange:
    return Exchange(name, prompt, f"{name}({prompt})", own)
