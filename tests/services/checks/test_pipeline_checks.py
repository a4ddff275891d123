"""What a runner refuses when it takes a pipeline, and what Python may write for the words of the tree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, TypedDict

import pytest
from pydantic import BaseModel

from flujo import AgentSpec, Flujo, MergeStrategy, Pipeline, PipelineContext
from flujo.domain.steps import (
    CachePolicy,
    CacheStep,
    Carry,
    ConditionalStep,
    DynamicParallelRouterStep,
    GranularStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Processors,
    Save,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Transition,
    TreeSearchStep,
)
from flujo.domain.tools import CallableTool
from flujo.domain.values import CallableRef, Expr, Text
from flujo.exceptions import ArgumentsRejected, PausedException, PipelineError
from flujo.services.checks.type_compatibility import fits
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Callable


class Ticket(BaseModel):
    """A model."""

    text: str


class Urgent(Ticket):
    """A model that is a ticket too."""


class Invoice(BaseModel):
    """A model of another kind."""

    total: int


@dataclass
class Label:
    """A dataclass."""

    name: str


class Row(TypedDict):
    """A typed dict."""

    id: int


class Counter(PipelineContext):
    """A context."""

    seen: int = 0


class Judge:
    """A class that no JSON Schema describes."""

    def __call__(self, data: str) -> str:
        return data


def read(data: str) -> Ticket:
    return Ticket(text=data)


async def hurry(data: Ticket) -> Urgent:
    return Urgent(text=data.text.upper())


def count(data: Ticket) -> int:
    return len(data.text)


def bill(data: Invoice) -> int:
    return data.total


def listed(data: str) -> list[Ticket]:
    return [Ticket(text=part) for part in data.split()]


def untyped(data: Any) -> Any:
    return data


WRITER = AgentSpec("writer", "a:b")


async def run(pipeline: Pipeline[Any, Any], value: Any) -> Any:
    async with Flujo(pipeline, store=MemoryStateStore()) as runner:
        result = await runner.run_result_async(value)
    assert result.error is None
    return result.output


class TestWhatPythonMayWrite:
    def test_live_things_become_the_words_of_the_tree(self) -> None:
        assert Step("count", count) == Step(name="count", call=CallableRef(f"{__name__}:count"))
        assert Step("count", agent=count) == Step("count", f"{__name__}:count")
        step = Step(
            "write",
            agent=WRITER,
            input="About {{ input }}",
            output_schema=list[str],
            when="size(input) > 1",
            save={"n": "output.n", "log": {"append": "{{ output }}"}, "by": count},
            cache=CachePolicy(key="input.id"),
            tags=["a"],
            config=StepConfig(timeout_s=3),
            validators=[count],
            processors=Processors(output=[count]),
        )
        assert step.input == Text("About {{ input }}")
        assert step.output_schema == {"type": "array", "items": {"type": "string"}}
        assert step.when == Expr("size(input) > 1")
        assert step.save == {
            "n": Save(Expr("output.n")),
            "log": Save(Expr("output"), append=True),
            "by": Save(CallableRef.of(count)),
        }
        assert step.cache is not None
        assert step.cache.key == Expr("input.id")
        assert (step.tags, step.validators) == (("a",), (CallableRef.of(count),))
        assert step.processors.output == (CallableRef.of(count),)

    def test_steps_stand_where_a_body_is_expected(self) -> None:
        one, two = Step("one", count), Step("two", untyped)
        bodies: list[Any] = [one, [one], (one,), Pipeline([one]), Pipeline(one, name="named")]
        for body in bodies:
            assert LoopStep("loop", body, until=True).body == Pipeline((one,))
        assert ParallelStep("p", {"a": one, "b": one >> two}).branches["b"] == Pipeline((one, two))
        assert State(one, [Transition("end", "context.n > 1")]).body == Pipeline((one,))

    def test_the_names_of_the_manual_and_of_the_yaml_are_one(self) -> None:
        step = Step("one", count)
        assert LoopStep("x", step, exit_condition_callable=count) == LoopStep("x", step, until=count)
        assert ConditionalStep("x", condition_callable=count, branches={"a": step}) == ConditionalStep(
            name="x", condition=count, form="switch", branches={"a": [step]}
        )
        assert ConditionalStep("x", condition="input > 1", then=step, else_=step).form == "if"
        branches = {"a": step}
        assert ParallelStep("x", branches, merge_strategy=MergeStrategy.OVERWRITE) == ParallelStep(
            "x", branches, merge="overwrite"
        )
        assert DynamicParallelRouterStep("x", branches, router_agent=count).router == CallableRef.of(count)
        assert MapStep("x", step).over == Expr("previous")
        assert Step.granular("x", WRITER) == GranularStep("x", WRITER)
        assert TreeSearchStep("x", propose=WRITER, evaluate=count).evaluate == CallableRef.of(count)
        assert CacheStep("x", step, key="input").key == Expr("input")
        assert Carry("", "loop.n") == Carry(Text(""), Expr("loop.n"))
        assert AgentSpec("w", "a:b", instructions="Hi", tools=[count], output_type=Ticket).tools == (
            CallableTool(count),
        )

    def test_a_callable_goes_by_the_name_that_it_can_be_found_by(self) -> None:
        assert CallableRef.of(partial(count)).target == f"{__name__}:count"
        assert CallableRef.of(Judge()).target.endswith(":Judge")
        assert CallableRef.of(Ticket).target == f"{__name__}:Ticket"

    async def test_two_lambdas_of_one_module_are_two(self) -> None:
        assert await run(Step("a", lambda data: data + 1) >> Step("b", lambda data: data * 10), 1) == 20

    async def test_a_condition_gets_data_and_context_by_name(self) -> None:
        def enough(data: int, context: Counter) -> bool:
            return data + context.seen > 5

        tree = Pipeline(
            LoopStep(
                "grow",
                Step("plus", lambda data: data + 1, save={"seen": "output"}),
                exit_condition_callable=enough,
            ),
            context_type=Counter,
        )
        assert await run(tree, 0) == 3


class TestJoining:
    def test_steps_and_pipelines_are_joined_in_order_however_they_are_grouped(self) -> None:
        a, b, c = Step("a", count), Step("b", untyped), Step("c", untyped)
        assert (a >> b) >> c == a >> (b >> c) == Pipeline([a, b, c])
        assert [path for path, _ in (a >> b >> c).walk()] == ["a", "b", "c"]

    async def test_a_pipeline_is_one_step_of_another(self) -> None:
        child = Pipeline(Step("read", read) >> Step("count", count), "child", output={"n": "{{ previous }}"})
        tree = ImportStep("measure", child) >> Step("double", lambda data: data["n"] * 2)
        assert [path for path, _ in tree.walk()] == ["measure", "measure/read", "measure/count", "double"]
        assert await run(tree, "four") == 8

    def test_what_a_pipeline_says_beside_its_steps_is_never_lost(self) -> None:
        child = Pipeline([Step("a", count)], output="{{ previous }}")
        with pytest.raises(PipelineError, match="`output`, which would be lost") as caught:
            Step("b", count) >> child
        assert "ImportStep" in str(caught.value.hint)

    def test_walking_goes_from_the_outside_to_the_inside_in_the_order_of_the_tree(self) -> None:
        leaf = Step("leaf", count)
        tree = Pipeline([LoopStep("loop", [MapStep("each", leaf), Step("end", count)], until=True)])
        assert [(path, step.kind) for path, step in tree.walk()] == [
            ("loop", "loop"),
            ("loop/each", "map"),
            ("loop/each/leaf", "step"),
            ("loop/end", "step"),
        ]


def machine(**more: Any) -> StateMachineStep:
    return StateMachineStep(
        **{"name": "m", "initial": "a", "states": {"a": State(Step("x", count))}, "final": ["a"], **more}
    )


WRONG_ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "nobody answers": (lambda: Step("x"), "has no `agent` or `call`"),
    "two answer": (lambda: Step("x", count, agent=WRITER), "has `agent` and `call`"),
    "a number is called": (lambda: Step("x", 3), "`call` is 3; expected a callable"),  # type: ignore[call-overload]
    "an unknown key": (lambda: Step("x", count, wen="input"), "`Step` has no argument `wen`"),  # type: ignore[call-overload]
    "a set as a value": (lambda: Step("x", count, input={1}), "which is not JSON data"),  # type: ignore[call-overload]
    "arguments as a list": (lambda: Step("x", count, arguments=[1]), "expected a mapping"),  # type: ignore[call-overload]
    "a callable as a body": (lambda: LoopStep("x", count, until=True), "expected steps"),  # type: ignore[arg-type]
    "a list of callables as a body": (lambda: LoopStep("x", [count], until=True), "expected steps"),  # type: ignore[list-item]
    "a loop without an end": (lambda: LoopStep("x", Step("a", count)), "no `until` or `exit_condition"),
    "none at all": (lambda: LoopStep("x", Step("a", count), until=True, max_iterations=0), "at least 1"),
    "two forms": (
        lambda: ConditionalStep("x", condition="input", then=Step("a", count), default=Step("b", count)),
        "mixes the two forms",
    ),
    "a branch and a default of one name": (
        lambda: ConditionalStep(
            "x", condition="input", branches={"default": Step("a", count)}, default=Step("b", count)
        ),
        "would have the same paths",
    ),
    "a text as tags": (lambda: Step("x", count, tags="ab"), "expected a list of texts"),
    "a dict as config": (lambda: Step("x", count, config={}), "expected an instance of `StepConfig`"),  # type: ignore[call-overload]
    "no such way to save": (lambda: Step("x", count, save={"a": {"add": "output"}}), "`{'append': …}`"),
    "a class that JSON Schema cannot say": (
        lambda: Step("x", count, output_schema=Judge),
        "has no JSON Schema",
    ),
    "a dict as a state": (lambda: machine(states={"a": {}}), "expected an instance of `State`"),
    "an agent that is none": (lambda: GranularStep("x", "writer"), "expected an instance of `AgentSpec`"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_a_wrong_argument_is_refused_where_it_is_given(name: str) -> None:
    build, words = WRONG_ARGUMENTS[name]
    with pytest.raises(PipelineError) as caught:
        build()
    assert words in str(caught.value)


def test_an_unknown_key_suggests_the_one_that_was_meant() -> None:
    with pytest.raises(PipelineError) as caught:
        Step("x", count, wen="input")  # type: ignore[call-overload]
    assert caught.value.hint == "did you mean `when`?"


class TestTypes:
    @pytest.mark.parametrize(
        ("tree", "words"),
        [
            (
                Pipeline([Step("a", read), Step("b", bill)]),
                "'a' returns `Ticket`, but step 'b' takes `Invoice`",
            ),
            (Pipeline([Step("a", count), Step("b", read)]), "'a' returns `int`, but step 'b' takes `str`"),
            (
                Pipeline([Step("a", count), LoopStep("l", Step("b", read), until=True)]),
                "step 'l/b' takes `str`",
            ),
            (Pipeline(LoopStep("l", Step("b", read), until=True)), "'l/b' returns `Ticket`, but step 'l/b'"),
            (Pipeline([Step("a", count), MapStep("m", Step("b", read))]), "iterates over a list"),
            (Pipeline([Step("a", listed), MapStep("m", Step("b", bill))]), "step 'm/b' takes `Invoice`"),
            (
                Pipeline([Step("a", read), ImportStep("i", Pipeline(Step("b", bill)))]),
                "step 'i/b' takes `Invoice`",
            ),
            (Pipeline([Step("a", agent=WRITER), Step("b", bill)]), "'a' returns `str`"),
            (
                Pipeline([Step("a", read), Step("b", count, fallback=Step("c", bill))]),
                "step 'b/fallback' takes `Invoice`",
            ),
            (Pipeline([Step("a", read), ParallelStep("p", {"x": Step("b", bill)})]), "step 'p/b' takes"),
        ],
    )
    def test_a_step_that_does_not_take_what_the_one_before_gives_is_refused(
        self, tree: Pipeline[Any, Any], words: str
    ) -> None:
        with pytest.raises(PipelineError) as caught:
            Flujo(tree)
        assert words in str(caught.value)
        assert caught.value.hint

    @pytest.mark.parametrize(
        "tree",
        [
            Pipeline([Step("a", read), Step("b", hurry), Step("c", count)]),
            Pipeline([Step("a", count), Step("b", untyped), Step("c", read)]),
            Pipeline([Step("a", count), Step("b", read, input="{{ input }}")]),
            Pipeline([Step("a", count), Step("b", read, arguments={"data": "x"})]),
            Pipeline([Step("a", count), Step("b", read, processors=Processors(input=[str]))]),
            Pipeline([Step("a", count, processors=Processors(output=[str])), Step("b", read)]),
            Pipeline([Step("a", count), Step("b", untyped, when="false"), Step("c", read)]),
            Pipeline([Step("a", listed), MapStep("m", Step("b", count)), Step("c", lambda data: data)]),
            Pipeline([Step("a", "x.y:z"), Step("b", bill)]),
            Pipeline([Step("a", agent=AgentSpec("w", "a:b", output_type=Ticket)), Step("b", count)]),
        ],
    )
    def test_a_step_that_takes_what_the_one_before_gives_or_says_nothing_is_accepted(
        self, tree: Pipeline[Any, Any]
    ) -> None:
        assert Flujo(tree).pipeline is tree

    def test_a_callable_without_a_place_for_its_input_is_refused_when_it_is_built(self) -> None:
        def two(left: str, right: str) -> str:
            return left + right

        with pytest.raises(ArgumentsRejected, match="can take the step's input"):
            Flujo(Pipeline([Step("a", agent=WRITER), Step("b", two)]))

    async def test_a_result_is_what_the_last_callable_is_annotated_to_give(self) -> None:
        tree = Pipeline(Step("read", read) >> Step("hurry", hurry), name="p")
        async with Flujo(tree, store=MemoryStateStore()) as runner:
            result = await runner.run_result_async("fire", run_id="r")
            again = await runner.run_result_async("fire", run_id="r")
            async with runner.run_stream("smoke") as stream:
                streamed = [item async for item in stream][-1]
        assert result.output == again.output == Urgent(text="FIRE")
        assert getattr(streamed, "output", None) == Urgent(text="SMOKE")

    async def test_a_human_answer_in_place_of_an_output_is_returned_unchanged(self) -> None:
        def ask(data: str) -> Ticket:
            raise PausedException("Which?")

        async with Flujo(Pipeline(Step("ask", ask), name="p"), store=MemoryStateStore()) as runner:
            await runner.run_result_async("x", run_id="r")
            result = await runner.resume_async("r", 3)
        assert result.success
        assert result.output == 3  # type: ignore[comparison-overlap]  # a human answered, not the callable


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("given", "taken", "fit"),
    [
        (str, str, True),
        (str, int, False),
        (int, float, True),
        (float, int, False),
        (bool, int, True),
        (int, bool, False),
        (int, int | None, True),
        (int | None, int, False),
        (int | str, int | str | float, True),
        (None, None, True),
        (str, Any, True),
        (Any, str, True),
        (str, object, True),
        (UserId, int, True),
        (Annotated[str, "note"], str, True),
        (Literal["a", "b"], str, True),
        (Literal["a"], int, False),
        (str, Literal["a"], True),
        (Urgent, Ticket, True),
        (Ticket, Invoice, False),
        (Ticket, dict[str, Any], True),
        (dict[str, Any], Ticket, True),
        (Label, Row, False),
        (dict[str, int], Row, True),
        (Ticket, str, False),
        (list[int], list[int], True),
        (list[int], list[str], False),
        (list[Urgent], list[Ticket], True),
        (list[int], set[int], True),
        (list[int], list, True),
        (list[int], str, False),
        (bytes, str, True),
        (list[int | None], list[int], False),
    ],
)
def test_annotations_are_judged_as_json(given: Any, taken: Any, fit: bool) -> None:
    assert fits(given, taken) is fit


def test_the_answer_of_a_human_can_have_a_class_as_its_schema() -> None:
    assert HumanInTheLoopStep("ask", "Send?", answer_schema=bool).answer_schema == {"type": "boolean"}
