"""`tree_search`: proposes candidates, evaluates them, and expands the best."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import AgentSpec
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, TreeSearchStep
from flujo.domain.usage import Usage
from flujo.exceptions import PausedException, PipelineAbortSignal
from flujo.services.binding.binding import PipelineBinding
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, Expr, Save, Text, World, answer, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline

COSTS = Usage(input_tokens=7, requests=1, cost_micro_usd=30)


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


def letters(node: Any) -> list[str]:
    return [(node["candidate"] or "") + letter for letter in "abc"]


def count_of(letter: str) -> Callable[[Any], int]:
    return lambda node: int(node["candidate"].count(letter))


def search(propose: Any, evaluate: Any, **more: Any) -> Pipeline:
    """Return a pipeline of one search, `s`."""
    return pipeline(
        TreeSearchStep(
            name="s",
            propose=CallableRef("x:propose", propose),
            evaluate=CallableRef("x:evaluate", evaluate),
            **more,
        )
    )


async def failed(tree: Pipeline, code: str, path: str, said: str) -> PipelineResult[Any, Any]:
    result = await start(tree, MemoryStateStore(), 1)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.path) == (code, path)
    assert said in result.error.message
    return result


# Results --------------------------------------------------------------------------------------------------


async def test_the_best_candidate_is_returned_with_its_path(store: MemoryStateStore) -> None:
    tree = search(letters, count_of("b"), goal=Expr("score == 2"), beam_width=1)
    assert (await start(tree, store)).output == {
        "candidate": "bb",
        "score": 2,
        "path": ["b", "bb"],
        "depth": 2,
        "goal_reached": True,
    }


async def test_without_a_goal_the_best_candidate_of_all_levels_is_returned(store: MemoryStateStore) -> None:
    falling = search(letters, lambda node: -len(node["candidate"]), max_depth=3)
    assert (await start(falling, store)).output == {
        "candidate": "a",
        "score": -1,
        "path": ["a"],
        "depth": 1,
        "goal_reached": False,
    }


async def test_equal_scores_keep_the_order_of_proposal(store: MemoryStateStore) -> None:
    tree = search(letters, lambda node: 0, beam_width=2, max_depth=2, goal=Expr("candidate == 'ba'"))
    assert (await start(tree, store)).output["path"] == ["b", "ba"]


async def test_only_the_beam_is_expanded(store: MemoryStateStore, world: World) -> None:
    propose = world.add("propose", letters)
    evaluate = world.add("evaluate", count_of("c"))
    step = TreeSearchStep(name="s", propose=propose, evaluate=evaluate, beam_width=2, max_depth=3)
    await start(pipeline(step), store)
    assert (world.calls.count("propose"), world.calls.count("evaluate")) == (1 + 2 + 2, 3 + 6 + 6)


async def test_a_dead_end_is_not_a_failure_and_an_exhausted_search_ends(store: MemoryStateStore) -> None:
    tree = search(lambda node: [1, 2] if node["depth"] == 0 else [], lambda node: node["candidate"])
    assert (await start(tree, store)).output["candidate"] == 2


async def test_both_agents_get_the_node_and_the_input(store: MemoryStateStore) -> None:
    nodes: list[Any] = []

    def propose(node: Any) -> list[int]:
        nodes.append(node)
        return [1]

    def evaluate(node: Any) -> float:
        nodes.append(node)
        return 0.5

    await start(search(propose, evaluate, max_depth=2, input={"n": Text("{{ input }}")}), store, 7)
    given = {"n": 7}
    assert nodes == [
        {"candidate": None, "path": [], "depth": 0, "input": given},
        {"candidate": 1, "path": [1], "depth": 1, "input": given},
        {"candidate": 1, "path": [1], "depth": 1, "input": given},
        {"candidate": 1, "path": [1, 1], "depth": 2, "input": given},
    ]


async def test_a_score_may_have_a_reason_and_save_stores_the_result(store: MemoryStateStore) -> None:
    step = TreeSearchStep(
        name="s",
        propose=CallableRef("x:p", letters),
        evaluate=CallableRef("x:e", lambda node: {"score": 0.5, "reason": "so so"}),
        save={"total": Save(Expr("output.depth"))},
        max_depth=1,
    )
    result = await start(
        pipeline(step, context_schema=COUNTER_SCHEMA, output=Text("{{ context.total }}")), store
    )
    assert result.output == 1


async def test_a_goal_callable_is_called_once_for_each_node(store: MemoryStateStore) -> None:
    asked: list[Any] = []

    def goal(node: Any) -> bool:
        asked.append(node)
        return bool(node["candidate"] == "ca")

    tree = search(letters, count_of("c"), goal=CallableRef("x:goal", goal), beam_width=1)
    assert (await start(tree, store)).output["candidate"] == "ca"
    assert asked[0] == {"candidate": "c", "score": 1, "depth": 1}
    assert len(asked) == 3 + 2


@given(scores=st.lists(st.integers(0, 3), min_size=1, max_size=8), width=st.integers(1, 4))
def test_the_order_of_answers_changes_nothing(scores: list[int], width: int) -> None:
    async def run(backwards: bool) -> Any:
        async def evaluate(node: Any) -> int:
            number = node["path"][-1]
            for _ in range(len(scores) - number if backwards else number):
                await asyncio.sleep(0)
            return scores[int(number)] - scores[int(node["path"][0])]

        tree = search(lambda node: list(range(len(scores))), evaluate, beam_width=width, max_depth=2)
        return (await start(tree, MemoryStateStore())).output

    assert asyncio.run(run(backwards=False)) == asyncio.run(run(backwards=True))


def naive(tree: dict[str, list[tuple[str, int]]], width: int, depth: int, goal: int) -> tuple[str, int, bool]:
    """Return the result of a plain beam search over a tree of names, level by level."""
    beam, best = [("", 0)], ("", -99)
    for _ in range(depth):
        level = [child for name, _ in beam for child in tree.get(name, [])]
        level.sort(key=lambda node: -node[1])
        for name, score in level:
            if score >= goal:
                return name, score, True
        best = next((node for node in level if node[1] > best[1]), best)
        beam = level[:width]
    return *best, False


TREES = st.dictionaries(
    st.sampled_from(["", "0", "1", "2", "00", "01", "10", "11", "20"]),
    st.lists(st.integers(0, 9), max_size=3),
).filter(lambda tree: tree.get(""))


@given(scores=TREES, width=st.integers(1, 3), depth=st.integers(1, 4), goal=st.integers(3, 12))
def test_the_result_equals_that_of_a_plain_beam_search(
    scores: dict[str, list[int]], width: int, depth: int, goal: int
) -> None:
    tree = {
        name: [(f"{name}{number}", score) for number, score in enumerate(below)]
        for name, below in scores.items()
    }
    score_of = dict(child for below in tree.values() for child in below)
    searching = search(
        lambda node: [name for name, _ in tree.get(node["candidate"] or "", [])],
        lambda node: score_of[node["candidate"]],
        beam_width=width,
        max_depth=depth,
        goal=Expr(f"score >= {goal}"),
    )
    found = asyncio.run(start(searching, MemoryStateStore())).output
    assert (found["candidate"], found["score"], found["goal_reached"]) == naive(tree, width, depth, goal)


# Agents --------------------------------------------------------------------------------------------------


async def test_agents_without_a_schema_get_one_for_their_answer(
    store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinker = ScriptedAgent(lambda ask: ["x"], usage=COSTS)
    judge = ScriptedAgent(lambda ask: {"score": 1}, usage=COSTS)
    own = {"type": "object", "required": ["score"]}
    propose = AgentSpec(name="thinker", model="a:b", instructions=Text("After {{ previous.depth }} go on."))
    evaluate = AgentSpec(name="judge", model="a:b", output_schema=own)
    monkeypatch.setattr(PipelineBinding, "_chat", lambda _, spec: thinker if spec is propose else judge)
    monkeypatch.setattr(PipelineBinding, "agent", lambda _, who: thinker if who is propose else judge)
    result = await start(
        pipeline(TreeSearchStep(name="s", propose=propose, evaluate=evaluate, max_depth=2)), store
    )
    assert result.output["path"] == ["x"]
    assert [asked.instructions for asked in thinker.asked] == ["After 0 go on.", "After 1 go on."]
    assert thinker.asked[0].output_schema == {"type": "array"}
    assert judge.asked[0].output_schema is None
    assert result.usage == COSTS + COSTS + COSTS + COSTS


@pytest.mark.parametrize("score", ["0.7", 0.7, {"score": "0.7"}, {"score": 0.7, "reason": "so"}])
async def test_a_score_of_a_judge_that_is_written_as_text_counts(
    store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch, score: Any
) -> None:
    judge = ScriptedAgent(lambda ask: score)
    monkeypatch.setattr(PipelineBinding, "_chat", lambda *_: judge)
    step = TreeSearchStep(
        name="s",
        propose=CallableRef("x:propose", lambda node: ["a"]),
        evaluate=AgentSpec(name="judge", model="a:b"),
        max_depth=1,
    )
    assert (await start(pipeline(step), store, 1)).output["score"] == 0.7


# Errors ---------------------------------------------------------------------------------------------------


async def test_a_search_without_a_first_candidate_fails() -> None:
    await failed(search(lambda node: [], count_of("a")), "FLJ304", "s/propose", "no candidate for the root")


@pytest.mark.parametrize("nonsense", ["ab", 1, None, {"a": 1}])
async def test_a_proposal_that_is_not_a_list_names_the_node(nonsense: Any) -> None:
    tree = search(lambda node: nonsense if node["depth"] else ["a"], count_of("a"))
    await failed(tree, "FLJ304", "s[0]/propose", "output of step 'propose'")


@pytest.mark.parametrize("nonsense", ["1", None, True, {}, {"score": "high"}, {"score": None}, [1]])
async def test_an_answer_without_a_score_names_the_node(nonsense: Any) -> None:
    tree = search(letters, lambda node: nonsense if node["candidate"] == "b" else 1)
    await failed(tree, "FLJ304", "s[1]/evaluate", "output of step 'evaluate'")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), {"score": float("nan")}])
async def test_a_score_that_is_not_a_number_is_refused(score: Any) -> None:
    await failed(search(letters, lambda node: score), "FLJ405", "s[0]/evaluate", "finite")


async def test_a_goal_that_is_not_a_boolean_is_refused() -> None:
    await failed(search(letters, count_of("a"), goal=Expr("score")), "FLJ404", "s", "neither true nor false")


async def test_a_failure_keeps_earlier_nodes(store: MemoryStateStore, world: World) -> None:
    fails = [True]

    def evaluate(node: Any) -> int:
        if node["candidate"] == "cb" and fails[0]:
            raise ValueError("tired")
        return int(node["candidate"].count("c"))

    evaluating, proposing = world.add("evaluate", evaluate), world.add("propose", letters)
    tree = pipeline(
        TreeSearchStep(
            name="s", propose=proposing, evaluate=evaluating, max_depth=2, beam_width=1, max_concurrency=1
        )
    )
    result = await start(tree, store)
    assert result.error is not None
    assert result.error.path == "s[2][1]/evaluate"
    fails[0] = False
    world.calls.clear()
    assert (await resume(tree, store, retry_failed=True)).output["candidate"] == "cc"
    assert world.calls == ["evaluate", "evaluate"]


async def test_an_evaluated_goal_is_not_evaluated_again(store: MemoryStateStore) -> None:
    asked: list[str] = []
    fails = [True]

    def goal(node: Any) -> bool:
        asked.append(node["candidate"])
        return False

    def evaluate(node: Any) -> int:
        if node["depth"] == 3 and fails[0]:
            raise ValueError("tired")
        return int(node["candidate"].count("c"))

    tree = search(letters, evaluate, goal=CallableRef("x:goal", goal), beam_width=1, max_depth=3)
    assert (await start(tree, store)).status is RunStatus.FAILED
    assert asked == ["c", "a", "b", "cc", "ca", "cb"]
    fails[0] = False
    assert (await resume(tree, store, retry_failed=True)).output["candidate"] == "ccc"
    assert asked == ["c", "a", "b", "cc", "ca", "cb", "ccc", "cca", "ccb"]


async def test_an_abort_ends_the_run_and_a_pause_waits(store: MemoryStateStore) -> None:
    def abort(node: Any) -> int:
        raise PipelineAbortSignal("enough")

    assert (await start(search(letters, abort), store)).status is RunStatus.CANCELLED

    def ask(node: Any) -> int:
        if node["candidate"] == "b":
            raise PausedException("how good is b?")
        return 0

    tree = search(letters, ask, max_depth=1)
    result = await start(tree, store, run_id="asks")
    assert (result.status, [pause.pause_id for pause in result.pauses]) == (
        RunStatus.PAUSED,
        ["s[1]/evaluate"],
    )
    await answer(store, "s[1]/evaluate", 5, run_id="asks")
    assert (await resume(tree, store, run_id="asks")).output["candidate"] == "b"


async def test_max_concurrency_limits_the_requests_in_progress(store: MemoryStateStore) -> None:
    busy, most = [0], [0]

    async def evaluate(ask: Any) -> int:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        await asyncio.sleep(0)
        busy[0] -= 1
        return 0

    await start(search(lambda node: list(range(9)), evaluate, max_concurrency=2, max_depth=1), store)
    assert most == [2]
