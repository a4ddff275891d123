"""Values take their declared types when they enter a run: its input, its context, outputs and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.models import PipelineContext
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, ImportStep, MapStep, Step
from flujo.exceptions import RunConflict
from flujo.services.runs.runner import Flujo
from support import pipeline

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

Runner = Flujo[Any, Any, Any]

NUMBER, WHOLE = {"type": "number"}, {"type": "integer"}
X = {"type": "object", "properties": {"x": NUMBER, "n": WHOLE, "xs": {"items": NUMBER}}}
SAME = CallableRef("tests:same", lambda data: data)


def given_by(value: Any, **more: Any) -> Step:
    return Step(name="give", call=CallableRef("tests:give", lambda data: value), **more)


async def output(store: StateStore, tree: Any, given: Any = None, **options: Any) -> bytes:
    async with Runner(tree, store=store) as runner:
        return canonical.encode((await runner.run_result_async(given, run_id="run", **options)).output)


@pytest.mark.parametrize("x", [3, 3.0])
async def test_the_input(store: StateStore, x: Any) -> None:
    texts = {
        "a": "{{ input.x * 1.5 }}",
        "b": "{{ input.x / 2 }}",
        "c": "{{ input.n % 2 }}",
        "d": "{{ input.x }}!",
    }
    tree = pipeline(Step(name="s", call=SAME, input=texts), input_schema=X)
    assert await output(store, tree, {"x": x, "n": x}) == b'{"a":4.5,"b":1.5,"c":1,"d":"3!"}'
    assert (await store.find("run")).input == b'{"n":3,"x":3.0}'


async def test_the_items_of_a_map(store: StateStore) -> None:
    body = pipeline(Step(name="s", call=SAME, input="{{ item / 2 }}"))
    tree = pipeline(MapStep(name="m", over="input.xs", body=body), input_schema=X)
    assert await output(store, tree, {"xs": [1, 2.0, 3]}) == b"[0.5,1.0,1.5]"


async def test_the_output_of_a_step(store: StateStore) -> None:
    tree = pipeline(given_by({"x": 3, "n": 3.0}, output_schema=X))
    assert await output(store, tree) == b'{"n":3,"x":3.0}'


async def test_the_input_of_an_import(store: StateStore) -> None:
    child = pipeline(Step(name="s", call=SAME, input="{{ input.x / 2 }}"), name="child", input_schema=X)
    step = ImportStep(name="i", blueprint="child", pipeline=child, arguments={"x": 3})
    assert await output(store, pipeline(step)) == b"1.5"


async def test_an_answer(store: StateStore) -> None:
    tree = pipeline(HumanInTheLoopStep(name="ask", message="how much?", answer_schema=NUMBER))
    async with Runner(tree, store=store) as runner:
        await runner.run_result_async(None, run_id="run")
        result = await runner.resume_async("run", 3)
    assert canonical.encode(result.output) == b"3.0"


async def test_what_a_step_saves_to_a_context_with_a_schema(store: StateStore) -> None:
    schema = {"properties": {"total": {**NUMBER, "default": 0}, "all": {"items": NUMBER, "default": [1]}}}
    tree = pipeline(
        given_by(3, save={"total": "output", "all": {"append": "output"}}),
        Step(name="s", call=SAME, input="{{ context.total / 2 }}"),
        output={"half": "{{ steps.s.output }}", "all": "{{ context.all }}"},
        context_schema=schema,
    )
    assert await output(store, tree) == b'{"all":[1.0,3.0],"half":1.5}'
    async with Runner(tree, store=store) as runner:
        kept = await runner.run_result_async(None, run_id="run", if_exists="return")
    assert canonical.encode(kept.context) == b'{"all":[1.0,3.0],"total":3.0}'


class Totals(PipelineContext):
    total: float = 0.0


async def test_what_a_step_saves_to_a_context_class(store: StateStore) -> None:
    tree = pipeline(
        given_by(3, save={"total": "output"}),
        Step(name="s", call=SAME, input="{{ context.total / 2 }}"),
        context_type=CallableRef("tests:Totals", Totals),
    )
    assert await output(store, tree) == b"1.5"


async def test_the_same_number_in_another_form_is_the_same_run(store: StateStore) -> None:
    tree = pipeline(Step(name="s", call=SAME), input_schema=X)
    assert await output(store, tree, {"x": 3}) == await output(store, tree, {"x": 3.0})
    with pytest.raises(RunConflict, match="another input"):
        await output(store, tree, {"x": 4})
