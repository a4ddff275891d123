"""A granular step records each response and each tool result, and a resumed run repeats none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, context_of, detail, entries, talk, value
from flujo import Flujo
from flujo.domain import canonical
from flujo.domain.events import StepStarted
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Expr, GranularStep, Save, StepConfig
from flujo.domain.usage import Usage, UsageLimits
from flujo.exceptions import ModelUnavailable, PausedException, PipelineError, StateBackendUnavailable
from flujo.testing import ScriptedAgent
from support import COUNTER_SCHEMA, StoppingStore, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.agents import Ask
    from flujo.domain.ports import StateStore


async def test_each_response_and_each_tool_result_is_an_entry(store: StateStore) -> None:
    script = [calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})), "seven"]
    result = await start(talk(script), store, "go")
    assert (result.status, result.output) == (RunStatus.COMPLETED, "seven")
    recorded = await entries(store)
    assert sorted(recorded) == [
        "research",
        "research/turn[0]",
        "research/turn[0]/tool[0]",
        "research/turn[0]/tool[1]",
        "research/turn[1]",
    ]
    assert canonical.decode(recorded["research/turn[0]"].input or b"") == [
        {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "go"}]}
    ]
    assert [value(recorded[f"research/turn[0]/tool[{k}]"]) for k in range(2)] == [3, 7]
    sent = canonical.decode(recorded["research/turn[1]"].input or b"")
    assert [part["content"] for part in sent[0]["parts"]] == [3, 7]
    assert detail(recorded["research"]) == {"stopped": "answer", "tool_calls": 2, "turns": 2}


async def test_a_watcher_sees_each_turn_and_each_tool_by_its_name(store: StateStore) -> None:
    seen: list[Any] = []

    async def sink(event: Any) -> None:
        if isinstance(event, StepStarted):
            seen.append((event.path, event.kind, event.tool))

    await start(talk([calls(("add", {"a": 1, "b": 2}), ("nonsense", {})), "three"]), store, "go", sink=sink)
    assert seen == [
        ("research", "granular", None),
        ("research/turn[0]", "turn", None),
        ("research/turn[0]/tool[0]", "tool", "add"),
        ("research/turn[0]/tool[1]", "tool", "nonsense"),
        ("research/turn[1]", "turn", None),
    ]


@pytest.mark.parametrize("stop_at", range(1, 7))
async def test_a_run_that_stops_at_any_write_repeats_no_recorded_request_or_call(
    store: StateStore, stop_at: int
) -> None:
    made: list[str] = []

    def work(name: str) -> str:
        made.append(name)
        return name.upper()

    asked: list[int] = []

    def script(ask: Ask) -> Any:
        turn = sum(message["kind"] == "response" for message in ask.data)
        asked.append(turn)
        return [
            calls(("work", {"name": "a"}), ("work", {"name": "b"})),
            calls(("work", {"name": "c"})),
            "end",
        ][turn]

    tree = talk(script, tools=[work], max_tool_concurrency=1)
    stopping = StoppingStore(store, stop_at)
    with pytest.raises(StateBackendUnavailable):
        await start(tree, stopping, "go")
    before = {path for path, entry in (await entries(store)).items()}
    again, others = len(asked), len(made)
    result = await resume(tree, store)
    assert (result.status, result.output) == (RunStatus.COMPLETED, "end")
    for turn in asked[again:]:
        assert f"research/turn[{turn}]" not in before
    places = {
        "a": "research/turn[0]/tool[0]",
        "b": "research/turn[0]/tool[1]",
        "c": "research/turn[1]/tool[0]",
    }
    for name in made[others:]:
        assert places[name] not in before
    assert {path for path, entry in (await entries(store)).items()} == {
        "research", *(f"research/turn[{n}]" for n in range(3)), *places.values()
    }  # fmt: skip


async def test_a_failed_request_is_an_attempt_of_its_turn_and_the_conversation_continues(
    store: StateStore,
) -> None:
    failures = [ModelUnavailable("down", retryable=True)]
    made: list[int] = []

    def one(x: int) -> int:
        made.append(x)
        return x

    def script(ask: Ask) -> Any:
        turn = sum(message["kind"] == "response" for message in ask.data)
        if turn == 1 and failures:
            return failures.pop()
        return [calls(("one", {"x": 1})), "done"][turn]

    config = StepConfig(max_retries=1, retry=RetryPolicy(initial_s=0))
    result = await start(talk(script, tools=[one], config=config), store, "go")
    assert result.output == "done"
    attempts = [entry for entry in await store.entries(RUN) if entry.path == "research/turn[1]"]
    assert [(each.attempt, each.status) for each in attempts] == [
        (1, EntryStatus.FAILED),
        (2, EntryStatus.COMPLETED),
    ]
    assert made == [1]


async def test_retry_failed_continues_the_conversation(store: StateStore) -> None:
    made, is_down = [], [True]

    def one(x: int) -> int:
        made.append(x)
        return x

    def script(ask: Ask) -> Any:
        turn = sum(message["kind"] == "response" for message in ask.data)
        if turn == 1 and is_down:
            return ModelUnavailable("down", retryable=True)
        return [calls(("one", {"x": 1})), "done"][turn]

    tree = talk(script, tools=[one])
    assert (await start(tree, store, "go")).status is RunStatus.FAILED
    is_down.clear()
    assert (await resume(tree, store, retry_failed=True)).output == "done"
    assert made == [1]


async def test_an_answer_that_a_validator_rejects_is_corrected_in_a_further_turn(store: StateStore) -> None:
    def is_long(answer: str) -> str | None:
        return None if len(answer) > 3 else "it is too short"

    tree = talk(["no", "long enough"], validators=[is_long])
    assert (await start(tree, store, "go")).output == "long enough"
    sent = canonical.decode((await entries(store))["research/turn[1]"].input or b"")
    assert "it is too short" in sent[0]["parts"][0]["content"]


def judge_of(verdicts: Any) -> tuple[ScriptedAgent, CallableRef]:
    """Return a validator that asks a model, which costs two tokens."""
    judge = ScriptedAgent(verdicts, usage=Usage(requests=1, output_tokens=2))
    return judge, CallableRef.of(judge)


async def test_what_validators_spend_counts_for_the_run_and_its_budget(store: StateStore) -> None:
    judge, ref = judge_of(["too short", True])
    tree = talk(["no", "long enough"], usage=Usage(requests=1, output_tokens=10), validators=[ref])
    result = await start(tree, store, "go")
    assert (result.output, judge.count) == ("long enough", 2)
    assert result.usage == Usage(requests=4, output_tokens=24)
    judge, ref = judge_of(["too short", True])
    tree = talk(["no", "long enough"], usage=Usage(requests=1), validators=[ref])
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=UsageLimits(requests_limit=3)) as runner:
        failed = await runner.run_result_async("go", run_id="limited")
    assert failed.error is not None
    assert (failed.error.code, judge.count, failed.usage.requests) == ("FLJ421", 1, 3)


async def test_a_verdict_that_is_recorded_is_not_paid_again(store: StateStore) -> None:
    is_down = [True]

    def answer_of(ask: Ask) -> Any:
        if len(ask.data) > 1 and is_down:
            raise ModelUnavailable("down", retryable=True)
        return "no" if len(ask.data) == 1 else "long enough"

    judge, ref = judge_of(["too short", ValueError("broken"), True])
    tree = talk(answer_of, validators=[ref])
    assert (await start(tree, store, "go")).status is RunStatus.FAILED
    is_down.clear()
    failed = await resume(tree, store, retry_failed=True)
    assert failed.status is RunStatus.FAILED, "a validator that fails gives no verdict"
    result = await resume(tree, store, retry_failed=True)
    assert (result.output, judge.count) == ("long enough", 3)
    assert result.usage.requests == 2, "the failed verdict has no usage"


async def test_an_answer_that_never_fits_fails_and_retry_failed_continues_with_the_reason(
    store: StateStore,
) -> None:
    schema = {"type": "object", "required": ["n"]}
    tree = talk(["one", "two", {"n": 1}], output_schema=schema)
    failed = await start(tree, store, "go")
    assert failed.status is RunStatus.FAILED
    assert len([p for p in await entries(store) if "/turn[" in p]) == 2
    assert (await resume(tree, store, retry_failed=True)).output == {"n": 1}


async def test_at_the_limit_of_turns_the_step_fails_before_it_calls_tools_in_vain(store: StateStore) -> None:
    made: list[int] = []

    def one(x: int) -> int:
        made.append(x)
        return x

    script = [calls(("one", {"x": 1})), calls(("one", {"x": 2})), "late"]
    failed = await start(talk(script, tools=[one], max_turns=2), store, "go")
    assert failed.status is RunStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "FLJ418"
    assert made == [1]
    more = talk(script, tools=[one], max_turns=3)
    assert (await resume(more, store, retry_failed=True)).output == "late"
    assert made == [1, 2]


async def test_finish_makes_a_last_request_without_tools(store: StateStore) -> None:
    may: list[bool] = []
    script = [calls(("add", {"a": 1, "b": 1})), calls(("add", {"a": 2, "b": 2})), "two and four"]
    agent = ScriptedAgent(script, tools=[add])
    converse = agent.converse

    def spying(ask: Ask, history: Any) -> Any:
        session = converse(ask, history)
        request = session.request

        async def spied(messages: Any, **keys: Any) -> Any:
            may.append(keys["may_call"])
            return await request(messages, **keys)

        session.request = spied  # type: ignore[method-assign]
        return session

    agent.converse = spying  # type: ignore[method-assign]
    tree = pipeline(GranularStep("research", agent, max_turns=2, on_limit="finish"))
    assert (await start(tree, store, "go")).output == "two and four"
    assert may == [True, True, False]
    recorded = await entries(store)
    assert detail(recorded["research"]) == {"stopped": "limit", "tool_calls": 2, "turns": 3}
    assert "All 2 turns are used" in str(canonical.decode(recorded["research/turn[2]"].input or b""))


async def test_a_last_request_that_calls_tools_again_fails(store: StateStore) -> None:
    script = [calls(("add", {"a": 1, "b": 1}))] * 3
    failed = await start(talk(script, max_turns=1, on_limit="finish"), store, "go")
    assert failed.error is not None
    assert failed.error.code == "FLJ418"


async def test_a_fallback_runs_after_the_last_attempt_and_is_not_taken_twice(store: StateStore) -> None:
    spare: list[Any] = []

    def stand_in(data: Any) -> str:
        spare.append(data)
        return "spare"

    step = GranularStep(
        "research",
        ScriptedAgent([ModelUnavailable("down")]),
        input="a prompt",
        fallback=call("spare", CallableRef("test:spare", stand_in)),
        save={"total": Save(Expr("1"))},
    )
    result = await start(pipeline(step, context_schema=COUNTER_SCHEMA), store, "go")
    assert (result.output, spare) == ("spare", ["a prompt"])
    assert context_of(result)["total"] == 1
    done = (await entries(store))["research"]
    assert detail(done) == {"fell_back": True}


async def test_a_fallback_takes_over_at_the_limit_of_turns(store: StateStore) -> None:
    step = GranularStep(
        "research",
        ScriptedAgent([calls(("add", {"a": 1, "b": 1}))], tools=[add]),
        max_turns=1,
        fallback=call("spare", CallableRef("test:spare", lambda _: "spare")),
    )
    assert (await start(pipeline(step), store, "go")).output == "spare"


async def test_the_output_is_saved_and_read_with_the_facts(store: StateStore) -> None:
    step = GranularStep("research", ScriptedAgent(["four"]), save={"log": Save(Expr("output"), append=True)})
    tree = Pipeline(
        (step,), name="test", context_schema=COUNTER_SCHEMA, output={"n": "{{ steps.research.turns }}"}
    )
    result = await start(tree, store, "go")
    assert (result.output, context_of(result)["log"]) == ({"n": 1}, ["four"])


# Budget ---------------------------------------------------------------------------------------------------


async def test_the_budget_is_reserved_for_each_request_and_counted_for_each_call(store: StateStore) -> None:
    one = Usage(requests=1, input_tokens=10)
    tree = talk([calls(("add", {"a": 1, "b": 2}))] * 3 + ["done"], usage=one)
    limited = Pipeline(
        tree.steps, "test", context_schema=COUNTER_SCHEMA, budget=UsageLimits(requests_limit=2)
    )
    failed = await start(limited, store, "go")
    assert failed.error is not None
    assert failed.error.code == "FLJ421"
    assert failed.usage == Usage(requests=2, input_tokens=20, tool_calls=2)
    more = Pipeline(tree.steps, "test", context_schema=COUNTER_SCHEMA, budget=UsageLimits(requests_limit=9))
    done = await resume(more, store, retry_failed=True)
    assert (done.output, done.usage) == ("done", Usage(requests=4, input_tokens=40, tool_calls=3))


async def test_a_limit_of_tool_calls_stops_the_step_before_the_call(store: StateStore) -> None:
    made: list[int] = []

    def one(x: int) -> int:
        made.append(x)
        return x

    tree = talk([calls(("one", {"x": 1})), calls(("one", {"x": 2})), "done"], tools=[one])
    limited = Pipeline(
        tree.steps, "test", context_schema=COUNTER_SCHEMA, budget=UsageLimits(tool_calls_limit=1)
    )
    failed = await start(limited, store, "go")
    assert failed.error is not None
    assert (failed.error.code, made) == ("FLJ421", [1])


# The same agent ------------------------------------------------------------------------------------------------


def other(a: int, b: int) -> int:
    """Add two other numbers."""
    return a + b


async def test_a_changed_agent_does_not_continue_a_conversation_unless_the_change_is_accepted(
    store: StateStore,
) -> None:
    def pause() -> str:
        raise PausedException("ready?")

    script = [calls(("pause", {})), "done"]
    await start(talk(script, tools=[pause]), store, "go")
    await answer(store, "research/turn[0]/tool[0]", "yes")
    changed = talk(script, tools=[pause, other], output_schema={"type": "string"})
    refused = await resume(changed, store)
    assert refused.error is not None
    assert refused.error.code == "FLJ419"
    assert "`output_schema`, `tool other`" in refused.error.message
    done = await resume(changed, store, retry_failed=True, accept_changes=True)
    assert done.output == "done"
    decisions = [entry for entry in await store.entries(RUN) if entry.kind is EntryKind.DECISION]
    agents = [entry for entry in decisions if entry.path == "research"]
    assert [entry.attempt for entry in agents] == [1, 2]
    assert detail(agents[1]) == {"accepted": ["output_schema", "tool other"]}


async def test_the_bytes_of_a_turn_do_not_grow_and_a_resume_repeats_no_turn(store: StateStore) -> None:
    """A hundred turns: entry by entry as large as the first ones, and read once."""
    turns, asked = 100, list[int]()
    is_down = [True]

    def script(ask: Ask) -> Any:
        turn = sum(message["kind"] == "response" for message in ask.data)
        asked.append(turn)
        if turn == turns - 1 and is_down:
            return ModelUnavailable("down")
        return "done" if turn == turns else calls(("add", {"a": 1000 + turn, "b": 1}))

    tree = talk(script, max_turns=turns + 1)
    assert (await start(tree, store, "go")).status is RunStatus.FAILED
    is_down.clear()
    asked.clear()
    assert (await resume(tree, store, retry_failed=True)).output == "done"
    assert asked == [turns - 1, turns]
    sizes = {
        path: len(entry.input or b"") + len(entry.output or b"") + len(entry.detail or b"")
        for path, entry in (await entries(store)).items()
    }
    middle = [sizes[f"research/turn[{number}]"] for number in range(10, turns)]
    assert max(middle) - min(middle) <= 2, "only the number of digits differs"


async def test_a_response_is_committed_before_its_tools_are_called(store: StateStore) -> None:
    committed: list[set[str]] = []

    async def look() -> str:
        committed.append(set(await entries(store)))
        return "seen"

    script = [calls(("look", {})), calls(("look", {})), "done"]
    assert (await start(talk(script, tools=[look]), store, "go")).output == "done"
    assert "research/turn[0]" in committed[0]
    assert {"research/turn[0]/tool[0]", "research/turn[1]"} <= committed[1]


@pytest.mark.parametrize("keys", [{"on_limit": "stop"}, {"in_doubt": "ignore"}, {"max_turns": 0}])
def test_a_value_that_no_limit_or_doubt_has_is_refused_when_the_step_is_made(keys: Any) -> None:
    ((name, given),) = keys.items()
    with pytest.raises(PipelineError, match=f"step 'research': `{name}` is {given!r}; expected "):
        talk(["done"], **keys)
