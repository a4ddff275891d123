"""An import with `context: inherit` reads and writes the enclosing context; one without starts with its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, PipelineContext
from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import BlueprintError
from support import (
    COUNTER_SCHEMA,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    ParallelStep,
    Save,
    StepConfig,
    StoppingStore,
    Text,
    World,
    answer,
    call,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

LOG = {"log": Save(Expr("output"), append=True)}


def child(world: World, *more: Any, **options: Any) -> Pipeline:
    """Return an imported pipeline that logs its input and the previous value."""
    steps = (
        call("one", world.add("one", lambda n: n + 1), save={"total": Save(Expr("context.total + output"))}),
        call("two", world.add("two", lambda n: n * 10), save=LOG),
        *more,
    )
    return pipeline(*steps, **{"name": "child", "context_schema": COUNTER_SCHEMA, **options})


def importing(tree: Pipeline, name: str = "sub", **options: Any) -> ImportStep:
    return ImportStep(name=name, blueprint="child.yaml", pipeline=tree, **{"context": "inherit", **options})


def parent(*steps: Any) -> Pipeline:
    return pipeline(*steps, context_schema=COUNTER_SCHEMA, output=Text("{{ context }}"))


@pytest.mark.parametrize(
    ("how", "expected"),
    [("inherit", {"total": 7, "log": [20]}), ("own", {"total": 5, "log": []})],
)
async def test_an_import_writes_to_the_context_around_it_when_it_inherits(
    store: StateStore, how: str, expected: Any
) -> None:
    tree = parent(importing(child(World()), context=how))
    result = await start(tree, store, 1, initial_context_data={"total": 5})
    assert result.output == expected


async def test_a_run_stopped_after_any_write_resumes_to_the_same_context(store: StateStore) -> None:
    tree = parent(importing(child(World()), "a"), importing(child(World()), "b"))
    for allowed in range(20):
        run_id = f"run-{allowed}"
        world = World()
        tree = parent(importing(child(world), "a"), importing(child(world), "b"))
        try:
            stopping: Any = StoppingStore(store, allowed)
            await start(tree, stopping, 1, run_id=run_id)
            break
        except Exception:  # noqa: BLE001  # the stopped store may raise any error
            result = await resume(tree, store, run_id=run_id)
        assert result.output == {"total": 23, "log": [20, 210]}
    else:
        pytest.fail("the run never ended by itself")
    assert (await start(tree, store, 1, run_id=run_id)).output == {"total": 23, "log": [20, 210]}


async def test_writes_of_a_failed_import_are_rolled_back_also_after_a_resume(store: StateStore) -> None:
    def fail(data: Any) -> Any:
        raise ValueError("no")

    world = World()
    failing = child(world, call("three", world.add("three", fail)))
    tree = parent(
        importing(failing, on_failure={"output": 3}),
        HumanInTheLoopStep(name="wait", message=Text("?")),
        importing(child(world), "again"),
    )
    paused = await start(tree, store, 1, initial_context_data={"total": 1})
    assert paused.status is RunStatus.PAUSED
    assert paused.context is not None
    assert (paused.context.total, paused.context.log) == (1, [])
    await answer(store, "wait", 2)
    result = await resume(tree, store)
    assert result.output == {"total": 4, "log": [30]}
    assert world.calls == ["one", "two", "three", "one", "two"]


async def test_a_pause_inside_an_import_keeps_earlier_writes(store: StateStore) -> None:
    tree = parent(importing(child(World(), HumanInTheLoopStep(name="ask", message=Text("?")))))
    paused = await start(tree, store, 1)
    assert paused.context is not None
    assert paused.context.log == [20]
    await answer(store, "sub/ask", "yes")
    assert (await resume(tree, store)).output == {"total": 2, "log": [20]}


async def test_branches_that_import_are_merged_like_others(store: StateStore) -> None:
    def logging(name: str) -> Pipeline:
        logged = pipeline(call("log", World().add("log"), save=LOG), context_schema=COUNTER_SCHEMA)
        return pipeline(importing(logged, name))

    tree = parent(ParallelStep(name="both", branches={"x": logging("x"), "y": logging("y")}))
    assert (await start(tree, store, 1)).output == {"total": 0, "log": [1, 1]}


async def test_a_retry_of_a_failed_run_keeps_the_writes_of_the_import(store: StateStore) -> None:
    broken = [True]

    def once(data: Any) -> Any:
        if broken:
            raise ValueError(broken.pop())
        return data

    world = World()
    tree = parent(importing(child(world, call("three", world.add("three", once)))))
    assert (await start(tree, store, 1)).status is RunStatus.FAILED
    result = await resume(tree, store, retry_failed=True)
    assert result.output == {"total": 2, "log": [20]}
    assert world.calls == ["one", "two", "three", "three"]


# Which contexts are the same ----------------------------------------------------------------------------


class Ours(PipelineContext):
    total: int = 0


class Theirs(PipelineContext):
    total: int = 0


async def add(context: Any) -> int:
    context.total += 1
    return int(context.total)


@pytest.mark.parametrize("declared", [Ours, None])
async def test_a_context_class_is_inherited_by_children_with_the_same_class_or_none(
    store: StateStore, declared: Any
) -> None:
    ref = None if declared is None else CallableRef.of(declared)
    inner = pipeline(call("add", CallableRef.of(add)), name="child", context_type=ref)
    tree = pipeline(importing(inner), output=Text("{{ context.total }}"))
    async with Flujo[Any, Any, Ours](tree, context_model=Ours, store=store) as runner:
        assert (await runner.run_result_async(None)).output == 1


@pytest.mark.parametrize(
    "other", [{"context_type": CallableRef.of(Theirs)}, {"context_schema": {"properties": {"x": {}}}}]
)
async def test_another_context_is_refused_before_the_run(store: StateStore, other: Any) -> None:
    inner = pipeline(call("add", CallableRef.of(add)), name="child", **other)
    nested = pipeline(ParallelStep(name="p", branches={"b": pipeline(importing(inner))}))
    async with Flujo[Any, Any, Ours](nested, context_model=Ours, store=store) as runner:
        with pytest.raises(
            BlueprintError, match=r"import 'sub' inherits the context, but 'child.yaml' declares"
        ):
            await runner.run_result_async(None)


@pytest.mark.parametrize("config", [StepConfig(), StepConfig(durability="exit")])
async def test_an_import_without_a_context_of_its_own_inherits_through_two_levels(
    store: StateStore, config: StepConfig
) -> None:
    leaf = pipeline(call("add", CallableRef.of(add), config=config), name="leaf")
    middle = pipeline(importing(leaf, "leaf"), name="middle")
    tree = pipeline(importing(middle, "middle"), output=Text("{{ context.total }}"))
    async with Flujo[Any, Any, Ours](tree, context_model=Ours, store=store) as runner:
        assert (await runner.run_result_async(None)).output == 1


def test_two_blueprints_with_equal_contexts_have_the_same_context() -> None:
    context = "context_schema: {properties: {label: {type: string}}}\n"
    steps = 'steps: [{name: a, call: "skills.x:f", save: {label: output}}]\n'
    files = {
        "top.yaml": f'version: "1"\nname: top\n{context}'
        "steps: [{kind: import, name: sub, blueprint: ./child.yaml, context: inherit}]\n",
        "child.yaml": f'version: "1"\nname: child\n{context}{steps}',
        "skills/x.py": "def f(data): ...\n",
    }
    source = PinnedSource({path: text.encode() for path, text in files.items()})
    compiled = compile_blueprint("top.yaml", source, allow_callables=["skills.*"])
    assert compiled.diagnostics == ()
