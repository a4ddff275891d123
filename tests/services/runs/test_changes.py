"""Edits of a blueprint while a run of it waits for an answer, and what each means for the run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import ChangesRefused
from flujo.services.recorded.recorded_binding import recorded_binding
from flujo.services.recorded.replay import Replayed, recording_of
from flujo.services.runs.changes import compare, without_counts
from flujo.state.memory_store import MemoryStateStore
from services.recorded.orders import (
    ORDER,
    RUN,
    compiled,
    continued,
    edited,
    recorded,
    replayed,
    workspace,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.ports import StateStore
    from flujo.services.runs.changes import Comparison

BUY, ASK = (
    '  - {kind: granular, name: buy, agent: buyer, input: "Buy {{ input.amount }}."}\n',
    "  - {kind: hitl",
)
OK = next(line for line in ORDER.splitlines(keepends=True) if "name: ok" in line)
MORE = '  - {name: more, call: "doors:say", with: {text: x}}\n'
DRAFT, BOTH = ("  - kind: " + ORDER.split("  - kind: ")[number] for number in (3, 4))
RATE = '  - {name: rate, agent: clerk, input: "Rate {{ steps.draft.output }}."}\n'
SMALL = '{name: small, call: "doors:say", with: {text: small}}'
LARGE = '{name: large, call: "doors:say", with: {text: "large {{ steps.price.output }}"}}'
WRITE = '{name: write, call: "doors:say", with: {text: "draft {{ loop.index }}"}}'
PACK = '{name: pack, call: "doors:say", with: {text: "pack {{ item }}"}}'
LEFT, RIGHT = ('[{name: one, call: "doors:say", with: {text: left}}]', "      right: [")
CLOSED = "      closed:\n"
ENDED = (
    ORDER.replace("to: closed", "to: ended").replace("[closed]", "[ended]").replace(CLOSED, "      ended:\n")
)

KEPT = {
    "nothing": ORDER,
    "a comment": edited("steps:\n  - {name: price", "steps:\n  # first\n  - {name: price"),
    "a description": edited("name: order\n", "name: order\ndescription: Orders.\n"),
    "white space in an expression": edited("output > 5", "output>5"),
    "an expression with the same value": edited("loop.index >= 1", "loop.index == 1"),
    "another step after the question": edited("{name: send", "{name: post").replace(
        "steps.send.output", "steps.post.output"
    ),
    "a new step after the question": edited("  - {name: send", MORE + "  - {name: send"),
    "a step less after the question": edited(
        '  - {name: gift, call: "doors:say", with: {text: gift}, when: "context.total > 100"}\n', ""
    ),
    "a condition after the question": edited("total > 100", "total > 2"),
    "the output": edited('"{{ steps.send.output }}"\n', "done\n"),
    "a new step before the question": edited(ASK, MORE + ASK),
    "a new step in a branch that was not taken": edited(
        SMALL, '{name: more, call: "doors:say", with: {text: x}}\n      - ' + SMALL
    ),
    "another step in a branch that was not taken": edited("name: small", "name: tiny"),
    "a branch that was not taken is gone": edited(f"    else:\n      - {SMALL}\n", ""),
    "a renamed branch that was not chosen": edited("mid: [", "mild: ["),
    "a higher limit of a loop": edited("max_iterations: 4", "max_iterations: 9"),
    "a retry": edited("name: price,", "name: price, config: {max_retries: 2},"),
    "another callable": edited('name: send, call: "doors:say"', 'name: send, call: "doors:double"'),
    "another order of two steps": edited(BUY, "").replace(RATE, BUY + RATE),
    "tags": edited("name: price,", "name: price, tags: [money],"),
    "another message of the question": edited("Send {{ steps.rate", "Ship {{ steps.rate"),
}
"""Edits with which the run continues as if they had always been there."""

CHANGED = {
    "an argument": (edited('{{ input.amount }}"}', '{{ input.amount + 1 }}"}'), "price", "input"),
    "the name of an argument": (edited("with: {n:", "with: {m:"), "price", "input"),
    "what is saved": (edited("{total: output}", "{total: output + 1}"), "price", "context"),
    "an argument in a branch": (edited('text: "large', 'text: "huge'), "size:then/large", "input"),
    "an argument in an item": (edited("pack {{ item }}", "wrap {{ item }}"), "each[0]/pack", "input"),
    "an argument in an iteration": (edited("draft {{ loop.index }}", "text"), "draft[0]/write", "input"),
    "an argument in a concurrent branch": (edited("{text: left}", "{text: port}"), "both:left/one", "input"),
    "an argument in a chosen branch": (edited("{text: high}", "{text: tall}"), "route:high/rise", "input"),
    "an argument in a state": (edited("{text: closed}", "{text: shut}"), "machine:closed[0]/shut", "input"),
    "a prompt": (edited("Rate {{", "Judge {{"), "rate", "prompt"),
    "the instructions": (edited("Be kind to", "Be rude to"), "rate", "instructions"),
    "a model": (
        edited('clerk: {model: "openai:gpt-5-mini"', 'clerk: {model: "openai:gpt-5"'),
        "rate",
        "model",
    ),
    "the tools of an agent": (edited('people."}', 'people.", tools: ["doors:say"]}'), "rate", "tools"),
    "the prompt of a conversation": (edited("Buy {{", "Get {{"), "buy/turn[0]", "prompt"),
    "the instructions of a conversation": (edited('"Buy."', '"Sell."'), "buy", "instructions"),
    "the model of a conversation": (
        edited('buyer: {model: "openai:gpt-5-mini"', 'buyer: {model: "openai:gpt-5"'),
        "buy",
        "model",
    ),
    "a new tool of a conversation": (
        edited('["doors:double"]', '["doors:double", "doors:say"]'),
        "buy",
        "tools",
    ),
    "the output of a loop": (
        edited("until: loop.index >= 1", "until: loop.index >= 1\n    output: fixed"),
        "draft[1]",
        "output",
    ),
    "a decision of a completed step": (edited("output > 5", "output > 50"), "size", "decision"),
    "a decision of a completed loop": (edited("loop.index >= 1", "loop.index >= 2"), "draft[1]", "decision"),
    "the items of a completed map": (
        edited("over: input.lines", "over: input.lines + ['c']"),
        "each",
        "decision",
    ),
    "a transition of a completed machine": (
        edited('context.total > 1"', 'context.total > 9"'),
        "machine:open[0]",
        "decision",
    ),
}
"""Edits with which the run continues, with the first completed step that they would have made different."""

LOST = {
    "a renamed step": (ORDER.replace("name: rate", "name: mark").replace("s.rate.", "s.mark."), "rate"),
    "a renamed step in a branch": (edited("name: large", "name: huge"), "size:then/large"),
    "a renamed step of a map": (edited("name: pack", "name: wrap"), "each[0]/pack"),
    "a renamed step of a loop": (edited("name: write", "name: text"), "draft[0]/write"),
    "a renamed step of a state": (edited("name: look", "name: see"), "machine:open[0]/look"),
    "a renamed composite": (edited("name: both", "name: pair"), "both"),
    "a renamed branch": (edited("left: [", "port: ["), "both:left"),
    "a renamed chosen branch": (edited("high: [", "tall: ["), "route:high"),
    "a renamed state": (ENDED, "machine:closed[0]"),
    "a renamed conversation": (edited("name: buy", "name: get"), "buy"),
    "a renamed question": (ORDER.replace("name: ok", "name: sure").replace("s.ok.", "s.sure."), "ok"),
    "a completed step less": (edited(BUY, ""), "buy"),
    "a question less": (
        ORDER.replace(OK, "").replace("steps.ok.output", "steps.rate.output"),
        "ok",
    ),
    "another kind of step": (edited("name: rate, agent", "kind: granular, name: rate, agent"), "rate"),
    "a step that moved into a composite": (
        edited(RATE, "")
        .replace(LEFT, LEFT[:-1] + ', {name: rate, agent: clerk, input: "x"}]')
        .replace("{{ steps.rate.output }}?", "good: Rate draft 1.?"),
        "rate",
    ),
    "a step that moved out of a composite": (
        edited(f"      - {PACK}\n", '      - {name: other, call: "doors:say", with: {text: x}}\n').replace(
            RATE, '  - {name: pack, call: "doors:say", with: {text: x}}\n' + RATE
        ),
        "each[0]/pack",
    ),
    "a branch that was executed less": (edited(f"      left: {LEFT}\n", ""), "both:left"),
}
"""Edits that the run cannot continue with, and the first recorded path that is gone."""


def renamed(old: str, new: str, **paths: str) -> str:
    """Return the blueprint with another name of a step, and with migrations from old to new paths."""
    text = ORDER.replace(f"name: {old}", f"name: {new}").replace(f"steps.{old}.", f"steps.{new}.")
    return migrated(text, **paths)


def migrated(text: str, **paths: str) -> str:
    """Return a blueprint with migrations from old to new paths."""
    pairs = ", ".join(f'{{from: "{one}", to: "{other}"}}' for one, other in paths.items())
    return text.replace("steps:\n  - {name: ", f"migrations: [{pairs}]\nsteps:\n  - {{name: ", 1)


def moved(step: str, into: str, **paths: str) -> str:
    """Return the blueprint with a new composite around a step, which nothing reads any more."""
    assert step in ORDER, step
    text = ORDER.replace(step, into).replace("{{ steps.rate.output }}?", "good: Rate draft 1.?")
    text = text.replace("{{ steps.draft.output }}", "draft 1").replace("{{ steps.ok.output }}", "yes")
    return migrated(text, **paths)


def around(step: str, composite: str) -> str:
    """Return a step of the blueprint in a composite, at the place of `...`."""
    indent = len(step) - len(step.lstrip())
    inner = "".join(f"        {line}\n" for line in step.splitlines())
    return "".join(f"{' ' * indent}{line}\n" for line in composite.splitlines()).replace(
        "...\n", f"\n{inner}"
    )


MIGRATED = {
    "a step": renamed("rate", "mark", rate="mark"),
    "a step in a branch": renamed("large", "huge", **{"size:then/large": "size:then/huge"}),
    "a step of a map": renamed("pack", "wrap", **{"each/pack": "each/wrap"}),
    "a step of a loop": renamed("write", "text", **{"draft/write": "draft/text"}),
    "a step of a state": renamed("look", "see", **{"machine:open/look": "machine:open/see"}),
    "a composite": renamed("both", "pair", both="pair"),
    "a machine": renamed("machine", "device", machine="device"),
    "a conversation": renamed("buy", "get", buy="get"),
    "a question": renamed("ok", "sure", ok="sure"),
    "a chosen branch": migrated(edited("high: [", "tall: ["), **{"route:high": "route:tall"}),
    "another chosen branch": migrated(edited("low: [", "down: ["), **{"route:low": "route:down"}),
    "a chosen branch and its step": migrated(
        edited("high: [{name: rise", "tall: [{name: climb"),
        **{"route:high": "route:tall", "route:high/rise": "route:tall/climb"},
    ),
    "a router and a chosen branch": migrated(
        edited("name: route", "name: way").replace("high: [", "tall: ["),
        **{"route": "way", "route:high": "way:tall"},
    ),
    "a final state": migrated(ENDED, **{"machine:closed": "machine:ended"}),
    "the first state": migrated(
        edited("initial: open", "initial: begun").replace("      open:\n", "      begun:\n"),
        **{"machine:open": "machine:begun"},
    ),
    "every state, a step and the machine": migrated(
        ENDED.replace("initial: open", "initial: begun")
        .replace("      open:\n", "      begun:\n")
        .replace("name: look", "name: see")
        .replace("name: machine", "name: device"),
        **{
            "machine": "device",
            "machine:open": "device:begun",
            "machine:open/look": "device:begun/see",
            "machine:closed": "device:ended",
        },
    ),
}
"""Renamed parts with which the run keeps everything, because migrations name their old paths."""

CHECKS = "- kind: parallel\n  name: checks\n  branches:\n    one:\n..."
IF = "- kind: conditional\n  name: checks\n  if: context.total > 1\n  then:\n..."
MACHINE = "  - kind: " + ORDER.split("  - kind: ")[6].split("  - {name: rate")[0]
EACH = "  - kind: " + ORDER.split("  - kind: ")[2]

ASKED = ("checks:one/ok", "checks:then/ok")
MOVED = {
    "a step": moved(RATE, around(RATE, CHECKS), rate="checks:one/rate"),
    "a step with another name": moved(
        RATE, around(RATE, CHECKS).replace("name: rate", "name: mark"), rate="checks:one/mark"
    ),
    "two steps in sequence": moved(
        RATE + BUY, around(RATE + BUY, CHECKS), rate="checks:one/rate", buy="checks:one/buy"
    ),
    "a step into a condition": moved(RATE, around(RATE, IF), rate="checks:then/rate"),
    "a conversation": moved(BUY, around(BUY, CHECKS), buy="checks:one/buy"),
    "a question": moved(OK, around(OK, CHECKS), ok="checks:one/ok"),
    "a question into a condition": moved(OK, around(OK, IF), ok="checks:then/ok"),
    "a map": moved(EACH, around(EACH, CHECKS), each="checks:one/each"),
    "a map and its step": moved(
        EACH,
        around(EACH, CHECKS).replace("name: pack", "name: wrap"),
        **{"each": "checks:one/each", "each/pack": "checks:one/each/wrap"},
    ),
    "a loop": moved(DRAFT, around(DRAFT, IF), draft="checks:then/draft"),
    "a machine and a state": moved(
        MACHINE,
        around(MACHINE, CHECKS)
        .replace("to: closed", "to: ended")
        .replace("[closed]", "[ended]")
        .replace("closed:\n", "ended:\n"),
        **{"machine": "checks:one/machine", "machine:closed": "checks:one/machine:ended"},
    ),
    "a step of an iteration": moved(
        f"      - {WRITE}\n",
        around(f"      - {WRITE}\n", IF.replace("context.total > 1", "loop.index >= 0")),
        **{"draft/write": "draft/checks:then/write"},
    ),
    "a step of an item": moved(
        f"      - {PACK}\n", around(f"      - {PACK}\n", IF), **{"each/pack": "each/checks:then/pack"}
    ),
    "a step of a branch": moved(
        f"      - {LARGE}\n",
        around(f"      - {LARGE}\n", IF),
        **{"size:then/large": "size:then/checks:then/large"},
    ),
}
"""Steps in new composites, in which the run keeps them."""


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> StateStore:
    """A store with a run that waits at the question `ok`; a comparison only reads it."""
    made = MemoryStateStore()
    asyncio.run(recorded(made, tmp_path_factory.mktemp("recorded"), answer=None))
    return made


async def _compared(store: StateStore, folder: Path, text: str) -> Comparison:
    pipeline = compiled(text)
    binding = recorded_binding(workspace(folder), pipeline)
    subject = Replayed(pipeline=pipeline, binding=binding, is_pinned=False)
    return await compare(await recording_of(store, RUN), subject)


@pytest.mark.parametrize("text", MIGRATED.values(), ids=MIGRATED)
async def test_the_run_keeps_renamed_steps(waiting: StateStore, tmp_path: Path, text: str) -> None:
    found = await _compared(waiting, tmp_path, text)
    assert (found.can_continue, found.changed, found.lost) == (True, (), ())
    assert found.migrations.applied[0].new in [*map(without_counts, found.kept), "sure"]


@pytest.mark.parametrize("text", MOVED.values(), ids=MOVED)
async def test_the_run_keeps_steps_in_new_composites(waiting: StateStore, tmp_path: Path, text: str) -> None:
    found = await _compared(waiting, tmp_path, text)
    assert (found.refusal(), found.changed) == ("", ())
    assert found.migrations.applied[0].new in {*map(without_counts, found.kept), *ASKED}


@pytest.mark.parametrize("text", [*MIGRATED.values(), *MOVED.values()], ids=[*MIGRATED, *MOVED])
async def test_the_run_ends_as_if_it_had_always_been_so(tmp_path: Path, text: str) -> None:
    store = MemoryStateStore()
    await recorded(store, tmp_path, answer=None)
    before = await store.entries(RUN)
    result = await continued(store, tmp_path, text)
    assert (result.success, result.output) == (True, "yes"), result.error
    after = await store.entries(RUN)
    assert after[: len(before)] == before
    replay = await replayed(store, tmp_path, text)
    assert replay.differences == []


LEFT_OUT = {
    "into another branch of a condition": moved(
        RATE, around(RATE, IF.replace("> 1", "> 99")), rate="checks:then/rate"
    ),
    "into a composite that is skipped": moved(
        RATE, around(RATE, CHECKS.replace("\n", "\n  when: context.total > 99\n", 1)), rate="checks:one/rate"
    ),
    "a question into a composite that has ended": moved(OK, "", ok="both:left/ok").replace(
        LEFT, f'{LEFT[:-1]}, {{kind: hitl, name: ok, message: "Send?"}}]'
    ),
    "into a condition behind a new step": moved(RATE, MORE + around(RATE, IF), rate="checks:then/rate"),
}
"""Steps that have moved to where the run does not come, as far as it is known."""


@pytest.mark.parametrize("text", LEFT_OUT.values(), ids=LEFT_OUT)
async def test_the_run_cannot_continue_where_it_would_leave_out_a_step(tmp_path: Path, text: str) -> None:
    store = MemoryStateStore()
    await recorded(store, tmp_path, answer=None)
    found = await _compared(store, tmp_path, text)
    assert found.left_out == (found.migrations.applied[0].new,)
    assert "does not come to where" in found.refusal()
    entries = await store.entries(RUN)
    with pytest.raises(ChangesRefused, match="does not come to where"):
        await continued(store, tmp_path, text)
    assert await store.entries(RUN) == entries


async def test_what_the_run_has_copied_keeps_the_name_of_a_branch(
    waiting: StateStore, tmp_path: Path
) -> None:
    text = migrated(edited("left: [", "port: ["), **{"both:left": "both:port"})
    found = await _compared(waiting, tmp_path, text)
    assert found.refusal() == ""
    assert [(each.path, each.cause) for each in found.changed] == [("route", "prompt")]
    assert found.changed[0].got == {"port": "left", "right": "right"}


async def test_a_record_that_would_be_another_step_is_lost(waiting: StateStore, tmp_path: Path) -> None:
    text = renamed("rate", "buy", rate="buy").replace(BUY, "")
    found = await _compared(waiting, tmp_path, text)
    assert not found.can_continue
    assert "buy" in found.lost


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
async def test_the_run_keeps_its_steps(waiting: StateStore, tmp_path: Path, text: str) -> None:
    found = await _compared(waiting, tmp_path, text)
    assert (found.can_continue, found.changed, found.lost) == (True, (), ())
    assert found.kept[0] == "price"


@pytest.mark.parametrize(("text", "path", "cause"), CHANGED.values(), ids=CHANGED)
async def test_the_run_continues_with_a_completed_step_that_is_another_now(
    waiting: StateStore, tmp_path: Path, text: str, path: str, cause: str
) -> None:
    found = await _compared(waiting, tmp_path, text)
    assert (found.can_continue, found.lost) == (True, ())
    assert [(each.path, each.cause) for each in found.changed[:1]] == [(path, cause)]


@pytest.mark.parametrize(("text", "path"), LOST.values(), ids=LOST)
async def test_the_run_cannot_continue_without_a_recorded_step(
    waiting: StateStore, tmp_path: Path, text: str, path: str
) -> None:
    found = await _compared(waiting, tmp_path, text)
    assert not found.can_continue
    assert found.lost[0] == path
    assert path not in found.kept
