"""Broken arguments of tool calls are repaired for tools that only read, and for others if it is allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, Response, provider_server
from flujo import Approval, BlueprintTool, CallableTool, tool
from flujo.agents.chat import build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.conversations import ToolCall, ToolCalls, refusal
from flujo.domain.paths import StepPath
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.steps import CallableRef, GranularStep
from flujo.domain.usage import UsageLimits
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from support import HumanInTheLoopStep, Step, Text, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flujo.agents.session import ChatSession

REPAIRABLE = "{'amount': 5, 'currency': 'EUR',}"
CERTAIN = {"amount": 5, "currency": "EUR"}
paid: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    paid.clear()


@tool(effect="read")
def price(amount: int, currency: str = "EUR") -> str:
    """Return a price."""
    paid.append(amount)
    return f"{amount} {currency}"


@tool(effect="idempotent")
def refund(amount: int, currency: str = "EUR") -> str:
    """Refund an amount."""
    paid.append(amount)
    return "refunded"


def pay(amount: int, currency: str = "EUR") -> str:
    """Pay an amount."""
    paid.append(amount)
    return "paid"


TOOLS = {fn.__name__: fn for fn in (price, refund, pay)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.chdir(tmp_path)
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


async def called(server: Provider, folder: Path, name: str, text: str, **settings: Any) -> ToolCall:
    """Return the call in the response of a model that writes `text` as its arguments."""
    server.answers[:] = [Response(tool_call=(name, text))]
    agent = build_agent(
        AgentSpec("payer", "openai-chat:gpt-4o-mini"),
        tools=list(TOOLS.values()),
        settings=AgentSettings(environment=server.environment, cache_dir=folder, **settings),
    )
    session: ChatSession = agent.converse(Ask(), [])
    response = await session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)
    read = session.read(response.message)
    assert isinstance(read, ToolCalls)
    [call] = read.calls
    assert bool(refusal(call, session.tools, Ask())) is not isinstance(call.arguments, dict)
    return call


@pytest.mark.parametrize("setting", ["refuse", "allow"])
async def test_a_tool_that_reads_takes_repaired_arguments(
    server: Provider, tmp_path: Path, setting: str
) -> None:
    call = await called(server, tmp_path, "price", REPAIRABLE, repaired_arguments=setting)
    assert (call.arguments, call.repairs) == (CERTAIN, ("repaired broken JSON",))


@pytest.mark.parametrize("name", ["refund", "pay"])
async def test_a_tool_with_an_effect_takes_them_only_if_it_is_allowed(
    server: Provider, tmp_path: Path, name: str
) -> None:
    refused = await called(server, tmp_path, name, REPAIRABLE)
    assert "call it again with its arguments as one valid JSON object" in refused.problem
    allowed = await called(server, tmp_path, name, REPAIRABLE, repaired_arguments="allow")
    assert (allowed.arguments, allowed.problem) == (CERTAIN, "")


@pytest.mark.parametrize(
    "text",
    [
        '{"amount": 5',
        '{"amount": 5, "currency": "EU',
        "amount: 5",
        r'"{\"amount\": 5}"',
        '{"amount": 5} {"amount": 6}',
        '{"amount": 5, "amount": 6,}',
        '{"amount": 1e999}',
        '{"amount":' + "[" * 200 + "]" * 200 + ",}",
    ],
)
async def test_arguments_without_one_certain_meaning_are_never_repaired(
    server: Provider, tmp_path: Path, text: str
) -> None:
    for name in TOOLS:
        call = await called(server, tmp_path, name, text, repaired_arguments="allow")
        assert call.problem.startswith("its arguments are "), (name, call)
        assert "not a JSON object" in call.problem, (name, call)


@pytest.mark.parametrize("level", [0, 1])
async def test_a_lower_level_of_tolerance_repairs_no_arguments(
    server: Provider, tmp_path: Path, level: int
) -> None:
    call = await called(
        server, tmp_path, "price", REPAIRABLE, coercion_level=level, repaired_arguments="allow"
    )
    assert call.problem


async def test_valid_arguments_are_unchanged(server: Provider, tmp_path: Path) -> None:
    call = await called(server, tmp_path, "pay", '{"amount": 5}')
    assert (call.arguments, call.repairs, call.problem) == ({"amount": 5}, (), "")


# Whole runs ------------------------------------------------------------------------------------------------


async def run(server: Provider, uri: str, granular: bool, fn: Callable[..., Any]) -> Any:
    server.will_answer(
        Response(tool_call=(fn.__name__, REPAIRABLE)),
        Response(tool_call=(fn.__name__, '{"amount": 7}')),
        "Done.",
    )
    agent = AgentSpec(
        "payer", "openai-chat:gpt-4o-mini", tools=[CallableRef(f"{__name__}:{fn.__name__}", fn)]
    )
    step = GranularStep(name="pay", agent=agent) if granular else Step(name="pay", agent=agent)
    store = SqlStateStore(uri)
    try:
        async with Flujo[Any, Any, Any](pipeline(step), store=store) as runner:
            return await runner.run_result_async("x")
    finally:
        await store.aclose()


def asking(server: Provider, folder: Path, agent: AgentSpec, uri: str) -> Flujo[Any, Any, Any]:
    """Return a runner of a project in which a human approves repaired arguments."""
    (folder / "flujo.toml").write_text('[aros]\nrepaired_arguments = "ask"\n', "utf-8")
    return Flujo(pipeline(GranularStep(name="pay", agent=agent)), store=SqlStateStore(uri))


@pytest.mark.parametrize("approved", [True, False])
async def test_a_human_decides_about_a_call_with_repaired_arguments(
    server: Provider, sqlite_uri: str, tmp_path: Path, approved: bool
) -> None:
    server.will_answer(
        Response(tool_call=("pay", REPAIRABLE)), Response(tool_call=("pay", '{"amount": 7}')), "Done."
    )
    agent = AgentSpec("payer", "openai-chat:gpt-4o-mini", tools=[CallableRef(f"{__name__}:pay", pay)])
    async with asking(server, tmp_path, agent, sqlite_uri) as runner:
        paused = await runner.run_result_async("x")
        (question,) = paused.pauses
        assert question.message == (
            "step 'pay' wants to call `pay` (effect: unsafe).\n"
            "the model wrote: \"{'amount': 5, 'currency': 'EUR',}\" (repaired broken JSON)\n"
            'arguments: {"amount":5,"currency":"EUR"}\n'
            f"digest:    {question.digest}"
        )
        assert paid == []
        said = {"approved": approved, "digest": question.digest, "reason": "no"}
        result = await runner.resume_async(paused.run_id, said)
        assert (result.output, paid) == ("Done.", [5, 7] if approved else [7])
        store = SqlStateStore(sqlite_uri)
        entries = {entry.path: entry.detail or b"" for entry in await store.entries(result.run_id)}
        assert len(await store.intents(result.run_id)) == int(approved), "an approved call is announced"
        await store.aclose()
    assert b"repaired broken JSON" in entries[StepPath("pay/turn[0]/tool[0]")]
    assert b'"approval"' in entries[StepPath("pay/turn[0]/tool[0]")]
    assert b'"approval"' not in entries[StepPath("pay/turn[1]/tool[0]")]


async def test_a_human_decides_about_repaired_arguments_of_calls_that_a_condition_lets_pass(
    server: Provider, sqlite_uri: str, tmp_path: Path
) -> None:
    server.will_answer(
        Response(tool_call=("pay", REPAIRABLE)), Response(tool_call=("pay", '{"amount": 7}')), "Done."
    )
    tool = CallableTool(pay, approve=Approval(when="args.amount > 100", message="Pay {{ args.amount }}?"))
    agent = AgentSpec("payer", "openai-chat:gpt-4o-mini", tools=[tool])
    async with asking(server, tmp_path, agent, sqlite_uri) as runner:
        paused = await runner.run_result_async("x")
        (question,) = paused.pauses
        assert "Pay 5?\nthe model wrote: " in question.message
        said = {"approved": True, "digest": question.digest}
        assert (await runner.resume_async(paused.run_id, said)).output == "Done."
    assert paid == [5, 7]


async def test_a_text_of_the_model_cannot_look_like_a_part_of_the_question(
    server: Provider, sqlite_uri: str, tmp_path: Path
) -> None:
    written = "{'amount': 5,\n\n'currency': 'EUR',\n}"
    server.will_answer(Response(tool_call=("pay", written)), "Done.")
    agent = AgentSpec("payer", "openai-chat:gpt-4o-mini", tools=[CallableRef(f"{__name__}:pay", pay)])
    async with asking(server, tmp_path, agent, sqlite_uri) as runner:
        result = await runner.run_result_async("x")
    (question,) = result.pauses
    assert len(question.message.splitlines()) == 4


@pytest.mark.parametrize("approved", [True, False])
async def test_a_human_decides_about_repaired_arguments_of_a_tool_that_consists_of_steps(
    server: Provider, sqlite_uri: str, tmp_path: Path, approved: bool
) -> None:
    def look(data: Any) -> str:
        paid.append(data["amount"])
        return "looked"

    given = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    steps = pipeline(
        Step(name="look", call=CallableRef("effects:look", look)),
        HumanInTheLoopStep("sure", message=Text("Sure?")),
        name="order",
        input_schema=given,
    )
    server.will_answer(Response(tool_call=("order", "{'amount': 5,}")), "Done.")
    agent = AgentSpec("clerk", "openai-chat:gpt-4o-mini", tools=[BlueprintTool(steps, "Orders")])
    step = GranularStep(name="pay", agent=agent)
    (tmp_path / "flujo.toml").write_text('[aros]\nrepaired_arguments = "ask"\n', "utf-8")
    tree = replace(pipeline(step), budget=UsageLimits(tool_calls_limit=1))
    async with Flujo[Any, Any, Any](tree, store=SqlStateStore(sqlite_uri)) as runner:
        paused = await runner.run_result_async("x")
        (question,) = paused.pauses
        assert (question.kind, paid) == (PauseKind.APPROVAL, [])
        said = {"approved": approved, "digest": question.digest}
        result = await runner.resume_async(paused.run_id, said)
        if approved:
            assert result.status is RunStatus.PAUSED
            result = await runner.resume_async(paused.run_id, "yes")
        assert (result.output, paid) == ("Done.", [5] if approved else [])
        store = SqlStateStore(sqlite_uri)
        entries = {entry.path: entry.detail or b"" for entry in await store.entries(result.run_id)}
        await store.aclose()
    detail = canonical.decode(entries[StepPath("pay/turn[0]/tool[0]")])
    assert (detail["outcome"], detail["approval"]["approved"]) == (
        "result" if approved else "denied",
        approved,
    )


async def test_a_plain_step_cannot_wait_and_refuses_repaired_arguments(
    server: Provider, sqlite_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "flujo.toml").write_text('[aros]\nrepaired_arguments = "ask"\n', "utf-8")
    result = await run(server, sqlite_uri, False, pay)
    assert (result.status, result.output, paid) == (RunStatus.COMPLETED, "Done.", [7])


@pytest.mark.parametrize("granular", [True, False])
async def test_a_refused_call_goes_back_to_the_model_which_calls_again(
    server: Provider, sqlite_uri: str, granular: bool
) -> None:
    result = await run(server, sqlite_uri, granular, pay)
    assert (result.status, result.output, paid) == (RunStatus.COMPLETED, "Done.", [7])
    [said] = [each for each in server.requests[1]["messages"] if each["role"] == "tool"]
    assert "`pay` has an effect, so they are not repaired" in said["content"]


@pytest.mark.parametrize("granular", [True, False])
async def test_a_project_may_allow_repaired_arguments(
    server: Provider, sqlite_uri: str, tmp_path: Path, granular: bool
) -> None:
    (tmp_path / "flujo.toml").write_text('[aros]\nrepaired_arguments = "allow"\n', "utf-8")
    result = await run(server, sqlite_uri, granular, pay)
    assert (result.output, paid) == ("Done.", [5, 7])
    store = SqlStateStore(sqlite_uri)
    try:
        entries = await store.entries(result.run_id)
    finally:
        await store.aclose()
    assert sum(b"repaired broken JSON" in (entry.detail or b"") for entry in entries) == 1
