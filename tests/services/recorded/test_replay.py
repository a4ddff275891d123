"""A recorded run is replayed without a call: the same, or the first difference of an edited blueprint."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import doors
from flujo import Flujo, Pipeline, Step
from flujo.domain.run import RunStatus
from flujo.exceptions import CorruptState, RunConflict, RunNotFound, SettingsError
from flujo.state.memory_store import MemoryStateStore
from services.recorded.orders import ORDER, RUN, edited, recorded, replayed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flujo.domain.ports import StateStore

DRAFT, BOTH = ("  - kind: " + ORDER.split("  - kind: ")[number] for number in (3, 4))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> MemoryStateStore:
    """A store with a run that has completed; a replay only reads it."""
    made = MemoryStateStore()
    asyncio.run(recorded(made, tmp_path_factory.mktemp("recorded")))
    return made


SAME = {
    "nothing": ORDER,
    "a comment": ORDER.replace("steps:\n", "steps:\n  # the order of things\n", 1),
    "white space in an expression": edited("steps.price.output > 5", "steps.price.output>5"),
    "an expression with the same value": edited("loop.index >= 1", "loop.index == 1"),
    "a higher limit": edited("max_iterations: 4", "max_iterations: 9"),
    "a retry": edited("name: small, call", "name: small, config: {max_retries: 2}, call"),
    "a branch that was not taken": edited("text: small", "text: tiny"),
    "a renamed branch that was not taken": edited("    else:\n", "    elif_none:\n").replace(
        '    elif_none:\n      - {name: small, call: "doors:say", with: {text: small}}\n', ""
    ),
    "another branch of a router": edited("mid: [", "mild: ["),
    "a skipped step": edited("with: {text: gift}", "with: {text: present}"),
    "another callable": edited('name: small, call: "doors:say"', 'name: small, call: "doors:double"'),
}
"""Changes that a recorded run does not notice."""

DIFFERENT = {
    "a decision": (edited("output > 5", "output > 50"), "size", "decision"),
    "a decision about a loop": (edited("loop.index >= 1", "loop.index >= 2"), "draft[1]", "decision"),
    "an earlier end of a loop": (edited("loop.index >= 1", "loop.index >= 0"), "draft[0]", "decision"),
    "the number of items": (edited("over: input.lines", "over: input.lines + ['c']"), "each", "decision"),
    "other items": (
        edited("over: input.lines", "over: input.lines.map(l, l + '!')"),
        "each[0]/pack",
        "input",
    ),
    "a transition": (edited('context.total > 1"', 'context.total > 9"'), "machine:open[0]", "decision"),
    "a condition": (edited("context.total > 100", "context.total > 2"), "gift", "decision"),
    "a new condition": (edited("{text: right}", "{text: right}, when: 'true'"), "both:right/two", "new step"),
    "an argument": (edited('{{ input.amount }}"}', '{{ input.amount + 1 }}"}'), "price", "input"),
    "an argument's name": (
        edited('{n: "{{ input.amount }}"}', '{m: "{{ input.amount }}"}'),
        "price",
        "input",
    ),
    "an argument in an item": (edited("pack {{ item }}", "wrap {{ item }}"), "each[0]/pack", "input"),
    "an argument in an iteration": (edited("draft {{ loop.index }}", "text"), "draft[0]/write", "input"),
    "an argument in a branch": (edited("{text: left}", "{text: port}"), "both:left/one", "input"),
    "an argument in a chosen branch": (edited("{text: high}", "{text: tall}"), "route:high/rise", "input"),
    "an argument in a state": (edited("{text: closed}", "{text: shut}"), "machine:closed[0]/shut", "input"),
    "the input of a router": (
        edited("router: doors:both", "router: doors:both\n    input: x"),
        "route",
        "prompt",
    ),
    "a prompt": (edited("Rate {{", "Judge {{"), "rate", "prompt"),
    "the model": (
        edited('clerk: {model: "openai:gpt-5-mini"', 'clerk: {model: "openai:gpt-5"'),
        "rate",
        "model",
    ),
    "the instructions": (edited("Be kind to", "Be rude to"), "rate", "instructions"),
    "the tools of an agent": (edited('people."}', 'people.", tools: ["doors:say"]}'), "rate", "tools"),
    "the model of a conversation": (
        edited('buyer: {model: "openai:gpt-5-mini"', 'buyer: {model: "openai:gpt-5"'),
        "buy",
        "model",
    ),
    "the instructions of a conversation": (edited('"Buy."', '"Sell."'), "buy", "instructions"),
    "a new tool of a conversation": (
        edited('["doors:double"]', '["doors:double", "doors:say"]'),
        "buy",
        "tools",
    ),
    "another tool of a conversation": (edited('["doors:double"]', '["doors:say"]'), "buy", "tools"),
    "the prompt of a conversation": (
        edited("Buy {{ input.amount }}.", "Get {{ input.amount }}."),
        "buy/turn[0]",
        "prompt",
    ),
    "a question": (edited("Send {{ steps.rate.output }}?", "Ship {{ steps.rate.output }}?"), "ok", "prompt"),
    "the choices of a question": (
        edited("? 'no' : 'maybe'", "? 'never' : 'maybe'"),
        "ok",
        "schema",
    ),
    "choices that have no value any more": (
        edited("['yes', input.amount > 1 ? 'no' : 'maybe']", "[steps.each.output[9].text]"),
        "ok",
        "schema",
    ),
    "what is saved": (edited("save: {total: output}", "save: {total: output + 1}"), "price", "context"),
    "the output": (
        edited('output: "{{ steps.send.output }}"', 'output: "{{ steps.ok.output }}!"'),
        "",
        "output",
    ),
    "the output of a loop": (
        edited("until: loop.index >= 1", "until: loop.index >= 1\n    output: fixed"),
        "draft[1]",
        "output",
    ),
    "the kind of a step": (
        edited("name: rate, agent: clerk, input", "kind: granular, name: rate, agent: clerk, input"),
        "rate",
        "new step",
    ),
    "a renamed step": (edited("name: pack", "name: wrap"), "each[0]/wrap", "new step"),
    "a renamed step that others read": (ORDER.replace("price", "cost"), "cost", "new step"),
    "a renamed branch": (edited("left: [", "port: ["), "both:port/one", "new step"),
    "a renamed state": (
        ORDER.replace("to: closed", "to: ended")
        .replace("[closed]", "[ended]")
        .replace("closed:\n", "ended:\n"),
        "machine:open[0]",
        "output",
    ),
    "a new step": (
        edited("  - {kind: hitl", '  - {name: more, call: "doors:say", with: {text: x}}\n  - {kind: hitl'),
        "more",
        "new step",
    ),
    "a new step at the end": (
        edited(
            'output: "{{ steps.send',
            '  - {name: more, call: "doors:say", with: {text: x}}\noutput: "{{ steps.send',
        ),
        "more",
        "new step",
    ),
    "a new question": (
        edited("  - {kind: hitl", "  - {kind: hitl, name: sure, message: sure}\n  - {kind: hitl"),
        "sure",
        "new step",
    ),
    "a step less": (
        edited('  - {name: gift, call: "doors:say", with: {text: gift}, when: "context.total > 100"}\n', ""),
        "gift",
        "lost step",
    ),
    "another order": (edited(DRAFT + BOTH, BOTH + DRAFT), "route", "prompt"),
    "a value that does not exist any more": (
        edited("draft {{ loop.index }}", "draft {{ loop.index / (context.total - 6) }}"),
        "draft[0]/write",
        "input",
    ),
    "another output of a branch": (
        edited(
            'branches:\n      left: [{name: one, call: "doors:say", with: {text: left}}]',
            "branches:\n      left: []",
        ),
        "both:left",
        "output",
    ),
}
"""Changes, with the path of the first difference and its cause."""


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
async def test_a_run_is_the_same_with_a_change_that_it_does_not_notice(
    ended: StateStore, tmp_path: Path, text: str
) -> None:
    found = await replayed(ended, tmp_path, text)
    assert found.differences == []
    assert (found.result.output, found.result.status) == ("yes", RunStatus.COMPLETED)


@pytest.mark.parametrize(("text", "path", "cause"), DIFFERENT.values(), ids=DIFFERENT)
async def test_the_first_difference_is_found_with_its_path_and_cause(
    ended: StateStore, tmp_path: Path, text: str, path: str, cause: str
) -> None:
    found = await replayed(ended, tmp_path, text)
    assert [(each.path, each.cause) for each in found.differences] == [(path, cause)]


async def test_each_store_gives_the_same_record(store: StateStore, tmp_path: Path) -> None:
    await recorded(store, tmp_path)
    found = await replayed(store, tmp_path, ORDER)
    assert (found.differences, found.entries, found.result.output) == ([], 42, "yes")
    changed = await replayed(store, tmp_path, edited("Be kind to", "Be rude to"))
    assert [(each.path, each.cause) for each in changed.differences] == [("rate", "instructions")]


async def test_a_runner_replays_the_runs_of_its_own_pipeline_only() -> None:
    store = MemoryStateStore()
    double = Step("double", doors.double, arguments={"n": "{{ input }}"})
    async with Flujo(Pipeline((double,), "mine"), store=store) as runner:
        assert (await runner.run_result_async(2, run_id=RUN)).output == 4
        again = await runner.replay_from_trace("@last")
        assert (again.output, [each.path for each in again.steps]) == (4, ["double"])
        with pytest.raises(RunNotFound):
            await runner.replay_from_trace("other")
    async with Flujo(Pipeline((double,), "theirs"), store=store) as runner:
        with pytest.raises(RunConflict, match="'mine', not of 'theirs'"):
            await runner.replay_from_trace(RUN)


async def test_a_replay_ends_after_the_step_that_is_named(ended: StateStore, tmp_path: Path) -> None:
    text = edited("Rate {{", "Judge {{")
    assert (await replayed(ended, tmp_path, text, until="draft.1/write")).differences == []
    assert (await replayed(ended, tmp_path, text, until="rate")).differences[0].path == "rate"


async def test_a_step_that_the_run_does_not_have_and_an_unknown_run_are_refused(
    ended: StateStore, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="no step 'rat'") as refused:
        await replayed(ended, tmp_path, ORDER, until="rat")
    assert refused.value.hint == "did you mean `rate`? `flujo trace run` lists all steps"
    with pytest.raises(RunNotFound):
        await replayed(MemoryStateStore(), tmp_path, ORDER)


async def test_a_run_that_waits_is_replayed_up_to_its_question(tmp_path: Path) -> None:
    store = MemoryStateStore()
    await recorded(store, tmp_path, answer=None)
    found = await replayed(store, tmp_path, ORDER)
    assert (found.differences, found.result.status) == ([], RunStatus.PAUSED)
    assert [each.pause_id for each in found.result.pauses] == ["ok"]
    changed = await replayed(store, tmp_path, edited("Rate {{", "Judge {{"))
    assert [(each.path, each.cause) for each in changed.differences] == [("rate", "prompt")]


async def test_a_step_before_the_question_of_a_run_that_waits_is_new(tmp_path: Path) -> None:
    store = MemoryStateStore()
    await recorded(store, tmp_path, answer=None)
    text = edited(
        "  - kind: loop\n", '  - {name: more, call: "doors:say", with: {text: x}}\n  - kind: loop\n'
    )
    found = await replayed(store, tmp_path, text)
    assert [(each.path, each.cause) for each in found.differences] == [("more", "new step")]


async def test_all_differences_are_collected_with_the_recorded_values_in_their_place(
    ended: StateStore, tmp_path: Path
) -> None:
    text = (
        edited("Rate {{", "Judge {{").replace("draft {{ loop.index }}", "text").replace("left: [", "port: [")
    )
    found = await replayed(ended, tmp_path, text, collects=True)
    assert {(each.path, each.cause) for each in found.differences} >= {
        ("draft[0]/write", "input"),
        ("draft[1]/write", "input"),
        ("both:port/one", "new step"),
    }


async def test_a_replay_changes_nothing_in_the_store(ended: MemoryStateStore, tmp_path: Path) -> None:
    before = [await ended.run(RUN), await ended.entries(RUN), await ended.acts(RUN), await ended.pauses(RUN)]
    await replayed(ended, tmp_path, edited("Rate {{", "Judge {{"))
    await replayed(ended, tmp_path, ORDER)
    after = [await ended.run(RUN), await ended.entries(RUN), await ended.acts(RUN), await ended.pauses(RUN)]
    assert after == before


CALLS = (
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.system",
)


async def test_a_replay_opens_no_socket_and_starts_no_process(ended: StateStore, tmp_path: Path) -> None:
    asked = list[str]()
    is_on = [True]

    def audit(event: str, _: Any) -> None:
        if is_on[0] and event in CALLS:
            asked.append(event)

    sys.addaudithook(audit)
    try:
        found = await replayed(ended, tmp_path, ORDER)
    finally:
        is_on[0] = False  # a hook cannot be removed
    assert (found.differences, asked) == ([], [])


async def test_a_record_without_the_content_of_a_transcript_is_refused(
    ended: MemoryStateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def purged(digests: Sequence[str]) -> dict[str, bytes]:
        raise CorruptState(f"the content {digests[0]} is missing")

    monkeypatch.setattr(ended, "blobs", purged)
    with pytest.raises(CorruptState, match="is missing"):
        await replayed(ended, tmp_path, ORDER)


async def test_the_tools_of_a_server_that_no_lock_has_are_not_compared(tmp_path: Path) -> None:
    store = MemoryStateStore()
    text = edited('["doors:double"]', '["doors:double", {mcp: shop, effect: read}]')
    find = {"description": "Find", "parameters": {"type": "object"}, "effect": "read", "server": "shop"}
    await recorded(store, tmp_path, text=text, tools={"find": find})
    assert (await replayed(store, tmp_path, text)).differences == []
