"""At its limit of turns, a granular step with `on_limit: pause` asks a human, who decides how it continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, detail, entries, talk, value
from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.steps import CallableRef, GranularStep, LoopStep, ParallelStep, StepConfig
from flujo.domain.usage import Usage
from flujo.exceptions import StateBackendUnavailable
from flujo.testing import ScriptedAgent
from support import StoppingStore, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

ENDLESS = [calls(("add", {"a": turn, "b": 1})) for turn in range(20)]
ASKED = "research!limit[{}]"


async def answered(tree: Pipeline, store: StateStore, number: int, said: Any) -> PipelineResult[Any, Any]:
    await answer(store, ASKED.format(number), said)
    return await resume(tree, store)


async def test_at_the_limit_the_run_pauses_with_its_progress_in_the_question(store: StateStore) -> None:
    one = Usage(requests=1, input_tokens=1000, output_tokens=50, cost_micro_usd=1500)
    tree = talk(ENDLESS, max_turns=2, on_limit="pause", usage=one)
    paused = await start(tree, store, "go")
    assert paused.status is RunStatus.PAUSED
    (question,) = paused.pauses
    assert (question.pause_id, question.kind) == ("research!limit[0]", PauseKind.LIMIT)
    assert question.message == (
        "step 'research' reached its limit of turns, and the agent gave no answer.\n"
        "so far: 2 turns, 1 tool call, 2,100 tokens, $0.0030\n"
        "Answer with one of: turns (how many more), finish: true (a last request without tools), or "
        "fail: true."
    )
    again = await resume(tree, store)
    assert [(pause.pause_id, pause.message) for pause in again.pauses] == [
        (question.pause_id, question.message)
    ]


async def test_more_turns_make_the_pending_calls_and_the_next_limit_asks_again(store: StateStore) -> None:
    script = [*ENDLESS[:4], "done"]
    tree = talk(script, max_turns=2, on_limit="pause")
    await start(tree, store, "go")
    assert "research/turn[1]/tool[0]" not in await entries(store), "no call is made in vain"
    paused = await answered(tree, store, 0, {"turns": 1})
    assert [pause.pause_id for pause in paused.pauses] == ["research!limit[1]"]
    done = await answered(tree, store, 1, {"turns": 5})
    assert (done.status, done.output) == (RunStatus.COMPLETED, "done")
    recorded = await entries(store)
    asked = [recorded[ASKED.format(number)] for number in range(2)]
    assert [(entry.kind, value(entry), detail(entry)) for entry in asked] == [
        (EntryKind.ANSWER, {"turns": 1}, {"turns": 2}),
        (EntryKind.ANSWER, {"turns": 5}, {"turns": 3}),
    ]
    assert detail(recorded["research"]) == {"stopped": "answer", "tool_calls": 4, "turns": 5}


async def test_finish_makes_one_last_request_without_tools(store: StateStore) -> None:
    tree = talk([*ENDLESS[:2], "two"], max_turns=2, on_limit="pause")
    await start(tree, store, "go")
    assert (await answered(tree, store, 0, {"finish": True})).output == "two"
    recorded = await entries(store)
    assert detail(recorded["research"]) == {"stopped": "limit", "tool_calls": 2, "turns": 3}
    assert "All 2 turns are used" in str(canonical.decode(recorded["research/turn[2]"].input or b""))


async def test_fail_fails_the_step_and_a_retry_asks_again(store: StateStore) -> None:
    tree = talk([*ENDLESS[:2], "two"], max_turns=2, on_limit="pause")
    await start(tree, store, "go")
    failed = await answered(tree, store, 0, {"fail": True})
    assert failed.error is not None
    assert (failed.error.code, failed.error.path) == ("FLJ418", "research")
    assert "used its 2 turns, and the agent gave no answer" in failed.error.message
    paused = await resume(tree, store, retry_failed=True)
    assert [pause.pause_id for pause in paused.pauses] == ["research!limit[1]"]
    assert (await answered(tree, store, 1, {"turns": 1})).output == "two"


async def test_a_last_request_that_calls_tools_fails_and_a_retry_asks_again(store: StateStore) -> None:
    tree = talk([*ENDLESS[:2], "late"], max_turns=1, on_limit="pause")
    await start(tree, store, "go")
    failed = await answered(tree, store, 0, {"finish": True})
    assert failed.error is not None
    assert "used its 1 turn and a last request without tools" in failed.error.message
    await resume(tree, store, retry_failed=True)
    assert (await answered(tree, store, 1, {"turns": 1})).output == "late"


async def test_a_rejected_answer_at_the_limit_asks_before_it_is_requested_again(store: StateStore) -> None:
    def is_long(text: str) -> str | None:
        return None if len(text) > 3 else "it is too short"

    tree = talk(["no", "long enough"], max_turns=1, on_limit="pause", validators=[is_long])
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    assert (await answered(tree, store, 0, {"turns": 1})).output == "long enough"
    sent = canonical.decode((await entries(store))["research/turn[1]"].input or b"")
    assert "it is too short" in str(sent)


async def test_a_raised_limit_continues_without_the_answer_and_closes_the_question(store: StateStore) -> None:
    await start(talk(ENDLESS, max_turns=1, on_limit="pause"), store, "go")
    more = talk([*ENDLESS[:2], "done"], max_turns=2, on_limit="pause")
    paused = await resume(more, store)
    assert [pause.pause_id for pause in paused.pauses] == ["research!limit[0]"], "opened again, at two turns"
    assert "2 turns" in paused.pauses[0].message
    most = talk([*ENDLESS[:2], "done"], max_turns=3, on_limit="pause")
    done = await resume(most, store)
    assert done.output == "done"
    assert not [pause for pause in await store.pauses(RUN) if pause.is_open]


async def test_an_answer_counts_from_the_turns_at_its_limit(store: StateStore) -> None:
    await start(talk(ENDLESS, max_turns=3, on_limit="pause"), store, "go")
    lowered = talk([*ENDLESS[:4], "done"], max_turns=1, on_limit="pause")
    await answer(store, ASKED.format(0), {"turns": 2})
    assert (await resume(lowered, store)).output == "done"


@pytest.mark.parametrize("stop_at", range(1, 10))
async def test_a_run_that_stops_at_any_write_asks_once_and_repeats_nothing(
    store: StateStore, stop_at: int
) -> None:
    made, asked = list[int](), list[int]()

    def one(x: int) -> int:
        made.append(x)
        return x

    def script(ask: Any) -> Any:
        turn = sum(message["kind"] == "response" for message in ask.data)
        asked.append(turn)
        return "done" if turn == 3 else calls(("one", {"x": turn}))

    tree = talk(script, tools=[one], max_turns=2, on_limit="pause")

    async def lived(stopping: StateStore) -> PipelineResult[Any, Any]:
        result = await start(tree, stopping, "go")
        for number, said in enumerate(({"turns": 1}, {"finish": True})):
            assert [pause.pause_id for pause in result.pauses] == [ASKED.format(number)]
            await answer(store, ASKED.format(number), said)
            result = await resume(tree, stopping)
        return result

    try:
        result = await lived(StoppingStore(store, stop_at))
    except StateBackendUnavailable:
        result = await resume(tree, store)
        while result.pauses:
            number = int(result.pauses[0].pause_id[-2])
            result = await answered(tree, store, number, [{"turns": 1}, {"finish": True}][number])
    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    assert len(await store.pauses(RUN)) == 2
    assert [value(entry) for path, entry in (await entries(store)).items() if "!limit" in path] == [
        {"turns": 1},
        {"finish": True},
    ]
    assert sorted(set(asked)) == [0, 1, 2, 3]
    assert sorted(set(made)) == [0, 1, 2]
    assert len(asked) + len(made) <= 7 + 1, "at most the request or the call that was cut off is made again"


async def test_two_conversations_ask_at_the_same_time(store: StateStore) -> None:
    def talking(name: str) -> GranularStep:
        agent = ScriptedAgent([ENDLESS[0], name], tools=[add])
        return GranularStep("talk", agent, max_turns=1, on_limit="pause")

    both = ParallelStep("both", branches={name: pipeline(talking(name)) for name in ("p", "q")})
    tree = pipeline(both)
    paused = await start(tree, store, "go")
    assert sorted(pause.pause_id for pause in paused.pauses) == [
        "both:p/talk!limit[0]",
        "both:q/talk!limit[0]",
    ]
    await answer(store, "both:p/talk!limit[0]", {"turns": 1})
    half = await resume(tree, store)
    assert [pause.pause_id for pause in half.pauses] == ["both:q/talk!limit[0]"]
    await answer(store, "both:q/talk!limit[0]", {"finish": True})
    assert (await resume(tree, store)).output == {"p": "p", "q": "q"}


async def test_each_iteration_of_a_loop_has_questions_of_its_own(store: StateStore) -> None:
    agent = ScriptedAgent([ENDLESS[0], "end"], tools=[add])
    body = pipeline(GranularStep("talk", agent, max_turns=1, on_limit="pause"))
    tree = pipeline(LoopStep("twice", body, until="loop.index == 1"))
    result = await start(tree, store, "go")
    for number in range(2):
        assert [pause.pause_id for pause in result.pauses] == [f"twice[{number}]/talk!limit[0]"]
        await answer(store, f"twice[{number}]/talk!limit[0]", {"turns": 1})
        result = await resume(tree, store)
    assert result.output == "end"


async def test_a_fallback_runs_when_the_answer_is_fail(store: StateStore) -> None:
    step = GranularStep(
        "research",
        ScriptedAgent(ENDLESS, tools=[add]),
        max_turns=1,
        on_limit="pause",
        fallback=call("spare", _constant("spare")),
    )
    tree = pipeline(step)
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    assert (await answered(tree, store, 0, {"fail": True})).output == "spare"


async def test_an_attempt_of_an_enclosing_step_asks_again_after_fail(store: StateStore) -> None:
    agent = ScriptedAgent([ENDLESS[0], "end"], tools=[add])
    body = pipeline(GranularStep("talk", agent, max_turns=1, on_limit="pause"))
    config = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none", on=("FLJ418",)))
    tree = pipeline(LoopStep("once", body, until="true", config=config))
    await start(tree, store, "go")
    await answer(store, "once[0]/talk!limit[0]", {"fail": True})
    paused = await resume(tree, store)
    assert [pause.pause_id for pause in paused.pauses] == ["once[0]/talk!limit[1]"]
    await answer(store, "once[0]/talk!limit[1]", {"turns": 1})
    assert (await resume(tree, store)).output == "end"


def _constant(text: str) -> CallableRef:
    return CallableRef("test:constant", lambda _: text)
