"""A known secret never enters the journal, and never leaves in an error, a log line or an event."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import sqlalchemy as sa
from pydantic_ai import ModelRetry

from flujo import AgentTool, BlueprintTool, Pipeline, Secret
from flujo.domain import canonical
from flujo.domain.conversations import ToolCall
from flujo.domain.journal import RunId
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import HumanInTheLoopStep, Step, Text
from flujo.domain.tools import CallableTool
from flujo.exceptions import SecretInValue, SecretNotSet
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.runs.runner import Flujo
from flujo.state.sql.tables import blobs, metadata
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from support import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.events import Event
    from flujo.domain.ports import StateStore

KEY = "sk-canary-runs-0123456789"
RUN = RunId("run")


@pytest.fixture(autouse=True)
def _known() -> None:
    GATE.know([KEY], of="CANARY_API_KEY")


def reads_the_environment(_: Any) -> dict[str, str]:
    """Return a value that holds the key."""
    return {"configured": f"key={KEY}"}


def is_refused(_: Any) -> None:
    """Fail as a client does that repeats the key."""
    raise ConnectionError(f"401 for {KEY}")


def is_never_called(_: Any) -> None:
    """Stand behind an input that is refused."""
    raise AssertionError


def runner(step: Any, store: StateStore, events: list[Event] | None = None) -> Flujo[Any, Any, Any]:
    """Return a runner of one step whose events are collected."""

    async def collect(event: Event) -> None:
        if events is not None:
            events.append(event)

    return Flujo[Any, Any, Any](pipeline(step), store=store, hooks=[collect])


async def test_a_step_whose_output_holds_a_secret_fails_and_stores_nothing_of_it(store: StateStore) -> None:
    async with runner(Step("read", reads_the_environment), store) as flujo:
        result = await flujo.run_result_async(None, run_id=RUN)
        entries = await store.entries(RUN)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.type) == (SecretInValue.code, "SecretInValue")
    assert result.error.message == "output of step 'read' contains the value of CANARY_API_KEY"
    assert KEY not in repr(entries)


async def test_an_input_that_holds_a_secret_starts_no_run(store: StateStore) -> None:
    async with runner(Step("read", is_never_called), store) as flujo:
        with pytest.raises(SecretInValue, match="input contains the value of CANARY_API_KEY"):
            await flujo.run_result_async({"key": KEY}, run_id=RUN)
        assert await store.runs(RunQuery()) == []


async def test_a_step_whose_input_holds_a_secret_is_not_executed(store: StateStore) -> None:
    half = len(KEY) // 2
    step = Step("read", is_never_called, input="{{ input.a }}{{ input.b }}")
    async with runner(step, store) as flujo:
        result = await flujo.run_result_async({"a": KEY[:half], "b": KEY[half:]}, run_id=RUN)
    assert result.error is not None
    assert result.error.message == "input of step 'read' contains the value of CANARY_API_KEY"


async def test_an_answer_that_holds_a_secret_leaves_the_question_open(store: StateStore) -> None:
    async with runner(HumanInTheLoopStep(name="ask", message=Text("Which key?")), store) as flujo:
        await flujo.run_result_async(None, run_id=RUN)
        with pytest.raises(SecretInValue, match="answer contains"):
            await flujo.resume_async(RUN, KEY)
        assert [pause.is_open for pause in await store.pauses(RUN)] == [True]


async def test_an_error_is_journaled_and_sent_without_secrets(store: StateStore) -> None:
    events: list[Event] = []
    async with runner(Step("call", is_refused), store, events) as flujo:
        result = await flujo.run_result_async(None, run_id=RUN)
        entries = await store.entries(RUN)
    assert result.error is not None
    assert result.error.message == "ConnectionError: 401 for ***"
    assert "401 for ***" in repr(entries)
    assert KEY not in repr((entries, [event for event in events if not hasattr(event, "outcome")]))


# Secrets of tools ----------------------------------------------------------------------------------------

BANK_KEY = "sk-canary/bank+012345678"  # 24 bytes, so that Base64 has no padding


class Leak(NamedTuple):
    """A way in which a tool can give its secret away, and the words that its model gets instead."""

    give_away: Callable[[str], Any]
    seen: str


def _raise(error: BaseException) -> None:
    raise error


LEAKS = {
    "a result": Leak(lambda key: f"paid with {key}", "paid with ***"),
    "a result inside": Leak(lambda key: {"a": [1, {"key": key}]}, '{"a":[1,{"key":"***"}]}'),
    "a part": Leak(lambda key: f"begins with {key[:12]}", "begins with ***"),
    "another form": Leak(lambda key: b64encode(key.encode()).decode(), "***"),
    "an error": Leak(lambda key: _raise(ValueError(f"401 for {key}")), "ValueError: 401 for ***"),
    "a cause": Leak(lambda key: _raise(RuntimeError("no") if key else OSError()), "RuntimeError: no"),
    "a request to repeat": Leak(lambda key: _raise(ModelRetry(f"not {key}")), "not ***"),
    "a log": Leak(lambda key: logger("flujo.tests").error("used %s", key), "null"),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("kind", ["granular", "step"])
async def test_a_secret_of_a_tool_is_hidden_from_its_model_and_from_the_database(
    leak: str, kind: str, store_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used: list[str] = []

    def pay(amount: int, keys: list[str]) -> Any:
        """Pay an amount."""
        used.extend(keys)
        return LEAKS[leak].give_away(keys[0])

    monkeypatch.setenv("BANK_PASS", f"{BANK_KEY}\n")
    tool = CallableTool(pay, effect="idempotent", with_={"keys": [Secret("BANK_PASS")]})
    agent = ScriptedAgent([ToolCall("pay", {"amount": 5}), "done"], tools=[tool])
    step = (
        Step.granular("talk", agent, enforce_idempotency=True)
        if kind == "granular"
        else Step("talk", agent=agent)
    )
    store, events = SqlStateStore(store_uri), []  # type: ignore[var-annotated]
    async with runner(step, store, events) as flujo:
        result = await flujo.run_result_async("go", run_id=RUN)
        shown = [
            str(getattr(each, "outcome", each)).partition("cause=")[0] for each in events
        ]  # the live error
        seen = [
            await store.entries(RUN),
            await store.intents(RUN),
            result,
            shown,
            [each.data for each in agent.asked],
        ]
        held = await store.blobs(await store.read(_digests))
        rows = await store.read(_rows)
    await store.aclose()
    assert used == [BANK_KEY]
    if kind == "granular" or leak not in {"an error", "a cause"}:  # which end the attempt of a plain step
        assert result.output == "done"
        said = agent.asked[-1].data[-1]["parts"][0]["content"]
        assert (said if isinstance(said, str) else canonical.encode(said).decode()) == LEAKS[leak].seen
    everything = repr((seen, held, rows, caplog.text))
    for form in (BANK_KEY, BANK_KEY[:12], BANK_KEY[12:], b64encode(BANK_KEY.encode()).decode()):
        assert form not in everything
    if store_uri.startswith("sqlite"):
        file = Path(store_uri.removeprefix("sqlite:///"))
        written = b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
        if kind == "granular":  # a plain step keeps them in a compressed transcript
            assert b"amount" in written, "the arguments of the model are there"
        assert BANK_KEY.encode() not in written


def _digests(connection: Any) -> list[str]:
    return [row.digest for row in connection.execute(sa.select(blobs.c.digest))]


def _rows(connection: Any) -> list[Any]:
    return [tuple(row) for table in metadata.sorted_tables for row in connection.execute(sa.select(table))]


async def test_a_secret_that_is_not_set_begins_no_run(store: StateStore) -> None:
    def pay(amount: int, key: str) -> None: ...

    tool = CallableTool(pay, with_={"key": Secret("CANARY_NOT_SET")})
    agent = ScriptedAgent(["done"], tools=[tool])
    with pytest.raises(
        SecretNotSet, match="tool `pay` needs a secret, and the environment variable CANARY_NOT_SET"
    ):
        async with runner(Step.granular("talk", agent), store) as flujo:
            await flujo.run_result_async("go", run_id=RUN)
    assert await store.runs(RunQuery()) == []


async def test_who_approves_a_call_does_not_see_its_secret(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pay(amount: int, key: str) -> str:
        return "paid"

    monkeypatch.setenv("BANK_PASS", BANK_KEY)
    tool = CallableTool(pay, approve=True, with_={"key": Secret("BANK_PASS")})
    agent = ScriptedAgent([ToolCall("pay", {"amount": 5}), "done"], tools=[tool])
    async with runner(Step.granular("talk", agent), store) as flujo:
        assert (await flujo.run_result_async("go", run_id=RUN)).status is RunStatus.PAUSED
        (asked,) = await store.pauses(RUN)
        assert 'arguments: {"amount":5}' in asked.message
        assert BANK_KEY not in repr(asked)
        assert "key" not in repr(asked.answer_schema)
        result = await flujo.resume_async(RUN, {"approved": True, "digest": asked.digest})
    assert result.output == "done"
    assert BANK_KEY not in repr((await store.entries(RUN), await store.intents(RUN)))


async def test_a_secret_of_a_tool_inside_a_tool_is_hidden(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pay(amount: int, key: str) -> str:
        return f"paid with {key}"

    monkeypatch.setenv("BANK_PASS", BANK_KEY)
    tool = CallableTool(pay, with_={"key": Secret("BANK_PASS")})
    helper, clerk = (ScriptedAgent([ToolCall("pay", {"amount": 5}), "paid"], tools=[tool]) for _ in range(2))
    given = {"type": "object", "properties": {"n": {"type": "integer"}}}
    orders = Pipeline([Step.granular("serve", clerk)], "orders", input_schema=given)
    tools = [AgentTool(helper, "Helps", "helper"), BlueprintTool(orders, "Orders")]
    agent = ScriptedAgent(
        [[ToolCall("helper", {"prompt": "x"}), ToolCall("orders", {"n": 1})], "done"], tools=tools
    )
    async with runner(Step.granular("talk", agent), store) as flujo:
        result = await flujo.run_result_async("go", run_id=RUN)
    assert result.output == "done"
    for inner in (helper, clerk):
        assert inner.asked[-1].data[-1]["parts"][0]["content"] == "paid with ***"
    assert BANK_KEY not in repr((await store.entries(RUN), result, agent.asked))
