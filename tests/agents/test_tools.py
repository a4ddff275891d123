from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import ModelRetry

from flujo.agents.tools import FunctionTool, tools_of
from flujo.domain.agents import Ask
from flujo.domain.conversations import BackToModel, Tool
from flujo.domain.secrets import Secret
from flujo.domain.tools import CallableTool, tool
from flujo.exceptions import AgentError, ArgumentsRejected, SecretNotSet, TransactionRefused


class Order(BaseModel):
    number: int


@tool(effect="idempotent")
async def charge(amount: int, order: Order, idempotency_key: str, note: str = "") -> str:
    """Charge money.

    Args:
        amount: in cents.
    """
    return f"{amount} {order.number} {idempotency_key}{note}"


def test_a_model_sees_neither_the_context_nor_the_key() -> None:
    described = FunctionTool(CallableTool(charge))
    assert isinstance(described, Tool)
    assert (described.name, described.effect) == ("charge", "idempotent")
    shown = described.traits
    assert shown["description"] == "Charge money."
    assert set(shown["parameters"]["properties"]) == {"amount", "order", "note"}
    assert shown["parameters"]["properties"]["amount"] == {"type": "integer", "description": "in cents."}
    assert shown["parameters"]["required"] == ["amount", "order"]


async def test_a_call_gets_converted_arguments_and_the_key() -> None:
    arguments = {"amount": "5", "order": {"number": 7}}
    reply = await FunctionTool(CallableTool(charge)).ask(Ask(arguments=arguments, idempotency_key="k"))
    assert reply.output == "5 7 k"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "`amount`: Field required; `order`: Field required"),
        ({"amount": "x", "order": {"number": 1}}, "`amount`: Input should be a valid integer"),
        ({"amount": 1, "order": {"number": 1}, "more": 2}, "`more`: Extra inputs are not permitted"),
        ({"amount": 1, "order": {"number": 1}, "idempotency_key": "mine"}, "`idempotency_key`: Extra inputs"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_words_for_a_model(arguments: Any, reason: str) -> None:
    with pytest.raises(ArgumentsRejected) as caught:
        FunctionTool(CallableTool(charge)).check_arguments(Ask(arguments=arguments, idempotency_key=""))
    assert reason in caught.value.message


async def test_the_fields_of_a_lone_object_are_the_arguments() -> None:
    def book(order: Order, context: Any) -> int:
        return order.number

    described = FunctionTool(CallableTool(book))
    assert list(described.traits["parameters"]["properties"]) == ["number"]
    assert described.wants_context
    described.check_arguments(Ask(arguments={"number": 3}))
    assert (await described.ask(Ask(arguments={"number": 3}))).output == 3


async def test_model_retry_goes_back_to_the_model() -> None:
    def picky(name: str) -> str:
        raise ModelRetry("write the whole name")

    with pytest.raises(BackToModel, match="write the whole name"):
        await FunctionTool(CallableTool(picky)).ask(Ask(arguments={"name": "A"}))


def test_tools_of_one_name_are_refused() -> None:
    with pytest.raises(AgentError, match="agent 'a' cannot be built with its tools: two are named `charge`"):
        tools_of("a", [charge, charge])


def test_a_parameter_that_json_cannot_hold_is_refused() -> None:
    class Live: ...

    def strange(thing: Live) -> None: ...

    with pytest.raises(AgentError, match="cannot be described to a model") as refused:
        tools_of("a", [strange])
    place = f"test_tools.py:{strange.__code__.co_firstlineno})"
    assert place in refused.value.message, "where it is defined"
    assert "Live" in refused.value.message, "the type"
    assert "\n" not in refused.value.message, "without the advice of a library"


def test_an_effect_that_is_weaker_than_the_declared_one_is_refused() -> None:
    @tool(effect="transactional")
    def book(seat: int, connection: Any) -> str:
        return str(seat)

    unsafe = CallableTool(book, effect="unsafe", with_={"connection": "a"})
    assert tools_of("a", [unsafe])["book"].effect == "unsafe"
    assert tools_of("a", [book])["book"].effect == "transactional"
    with pytest.raises(
        AgentError, match="has `effect: idempotent`, but its callable declares 'transactional'"
    ):
        tools_of("a", [CallableTool(book, effect="idempotent")])


# Bound parameters ----------------------------------------------------------------------------------------

KEY = "sk-canary-tools-0123456789"


def refund(amount: int, api_key: str, *, account: Order, idempotency_key: str = "") -> str:
    """Refund an amount."""
    return f"{amount} from {account.number} with {api_key}"


def bound(**with_: Any) -> FunctionTool:
    return FunctionTool(CallableTool(refund, with_=with_))


async def test_a_bound_parameter_is_passed_and_not_shown() -> None:
    tool = bound(api_key="plain", account={"number": 7})
    assert list(tool.traits["parameters"]["properties"]) == ["amount"]
    assert tool.traits["with"] == {"api_key": "plain", "account": {"number": 7}}
    tool.check_arguments(Ask(arguments={"amount": 5}))
    assert (await tool.ask(Ask(arguments={"amount": 5}))).output == "5 from 7 with plain"


async def test_a_secret_is_read_from_the_environment_and_hidden_in_the_result() -> None:
    tool = bound(api_key=Secret("BANK_KEY"), account={"number": 7})
    with pytest.raises(SecretNotSet, match="are not read"):
        await tool.ask(Ask(arguments={"amount": 5}))
    tool.read_secrets({"BANK_KEY": KEY})
    assert (await tool.ask(Ask(arguments={"amount": 5}))).output == "5 from 7 with ***"
    assert tool.traits["with"] == {"api_key": {"secret": "BANK_KEY"}, "account": {"number": 7}}
    assert KEY not in repr((tool.traits, tool.definition))


def test_a_model_cannot_pass_a_bound_parameter() -> None:
    def post(url: str, **headers: str) -> str:
        return url

    for made in (
        bound(api_key="a", account={"number": 7}),
        FunctionTool(CallableTool(post, with_={"api_key": "a"})),
    ):
        with pytest.raises(ArgumentsRejected, match="`api_key`: Extra inputs are not permitted"):
            made.check_arguments(Ask(arguments={"amount": 5, "url": "x", "api_key": "mine"}))


async def test_the_fields_of_a_lone_object_are_the_arguments_beside_bound_parameters() -> None:
    def book(order: Order, desk: str) -> str:
        return f"{desk} {order.number}"

    tool = FunctionTool(CallableTool(book, with_={"desk": "a"}))
    assert list(tool.traits["parameters"]["properties"]) == ["number"]
    assert (await tool.ask(Ask(arguments={"number": 3}))).output == "a 3"


def test_a_bound_parameter_may_have_a_type_that_a_model_cannot_be_shown() -> None:
    class Live: ...

    def look(name: str, client: Live | None = None, limit: int = 5) -> str:
        return name

    assert FunctionTool(CallableTool(look, with_={"client": None})).name == "look"


@pytest.mark.parametrize(
    ("with_", "why"),
    [
        ({"api_kee": "a"}, "binds `api_kee`, which is not a parameter of its callable"),
        ({"idempotency_key": "a"}, "binds `idempotency_key`, which Flujo fills in"),
        ({"context": {}}, "binds `context`, which Flujo fills in"),
        ({"account": {"number": "x"}}, "the value of `account` does not fit"),
    ],
)
def test_values_that_do_not_fit_the_parameters_are_refused(with_: Any, why: str) -> None:
    with pytest.raises(AgentError, match="test_tools:refund") as refused:
        bound(**with_)
    assert why in refused.value.message


def test_a_secret_that_does_not_fit_is_refused_without_being_shown() -> None:
    def dial(pin: int, name: str) -> None: ...

    tool = FunctionTool(CallableTool(dial, with_={"pin": Secret("PIN")}))
    with pytest.raises(AgentError, match="the value of `pin` does not fit") as refused:
        tool.read_secrets({"PIN": KEY})
    assert KEY not in str(refused.value)


# Transactions --------------------------------------------------------------------------------------------


def test_a_transactional_tool_takes_a_connection_that_no_model_sees() -> None:
    def book(seat: int, connection: Any) -> None: ...

    made = FunctionTool(CallableTool(book, effect="transactional"))
    assert (made.connection, list(made.traits["parameters"]["properties"])) == ("sync", ["seat"])
    assert FunctionTool(CallableTool(book, effect="unsafe")).connection is None

    async def later(seat: int, connection: Any) -> None: ...

    assert FunctionTool(CallableTool(later, effect="transactional")).connection == "async"
    with pytest.raises(TransactionRefused, match="has `effect: transactional`, but takes no `connection`"):
        tools_of("a", [CallableTool(charge, effect="transactional")])
    with pytest.raises(AgentError, match="binds `connection`, which Flujo fills in"):
        FunctionTool(CallableTool(book, effect="transactional", with_={"connection": "a"}))
