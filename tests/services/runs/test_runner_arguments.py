"""Every wrong argument of the public Python API is an error of Flujo, never one of Python's."""

from __future__ import annotations

import inspect
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

import flujo
from flujo import ContextReference, Flujo, HumanInTheLoopStep, Pipeline, Step, TaskClient
from flujo.exceptions import FlujoError, PipelineError, SettingsError
from flujo.services.runs.forks import Fork
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Callable

WRONG: tuple[Any, ...] = (5, "name", b"x", ["x"], {"x": 1}, object(), int)


def same(data: str) -> str:
    return data


TREE = Pipeline(Step("same", same) >> HumanInTheLoopStep("ask", "Well?"), name="tree")


def parameters(function: Callable[..., Any], *, without: tuple[str, ...] = ()) -> list[str]:
    names = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.kind is not each.VAR_KEYWORD
    ]
    return [
        name for name in names if name not in ("self", "initial_input", "input", "answer", "result", *without)
    ]


async def outcome(work: Callable[[], Any]) -> object:
    """Return what a call ends with: its result, or the error of Flujo; any other error fails the test."""
    try:
        result = work()
        return await result if inspect.isawaitable(result) else result
    except FlujoError as error:
        return error


@pytest.mark.parametrize("name", parameters(Flujo.__init__, without=("pipeline", "raise_on_pause")))
async def test_a_wrong_argument_of_a_runner(name: str) -> None:
    for wrong in WRONG:

        async def run(wrong: Any = wrong) -> object:
            arguments: dict[str, Any] = {"store": MemoryStateStore(), "recovery": False, name: wrong}
            async with Flujo(TREE, **arguments) as runner:
                return await runner.run_result_async("x")

        await outcome(run)


@pytest.mark.parametrize("wrong", [*WRONG, None, Step("same", same)], ids=lambda wrong: type(wrong).__name__)
def test_what_is_not_a_pipeline_is_refused_by_a_runner(wrong: Any) -> None:
    with pytest.raises(PipelineError, match=r"`pipeline` is .*, not a pipeline") as raised:
        Flujo(wrong)
    assert raised.value.hint is not None
    assert "read_blueprint" in raised.value.hint


@pytest.mark.parametrize(
    "method", ["run_result_async", "run_stream", "resume_async", "resolve_async", "recover_async"]
)
async def test_a_wrong_argument_of_a_method_of_a_runner(method: str) -> None:
    function = getattr(Flujo, method)
    for name in parameters(function):
        for wrong in (*WRONG, None):
            async with Flujo(TREE, store=MemoryStateStore(), recovery=False) as runner:
                await runner.run_result_async("x", run_id="one")
                arguments = {"run_id": "one", "outcome": "done", "max_recoveries": 1}
                needed = {key: value for key, value in arguments.items() if key in parameters(function)}
                given = {**needed, name: wrong}
                begins = method in ("run_result_async", "run_stream")
                positional: tuple[Any, ...] = ("x",) if begins else ()
                if begins and name != "run_id":
                    given.pop("run_id")

                async def call(
                    method: str = method,
                    given: Any = given,
                    positional: Any = positional,
                    runner: Any = runner,
                ) -> object:
                    made = getattr(runner, method)(*positional, **given)
                    if method != "run_stream":
                        return await made
                    async with made as stream:
                        return [item async for item in stream]

                await outcome(call)


@pytest.mark.parametrize("name", parameters(TaskClient.__init__))
async def test_a_wrong_argument_of_a_client(name: str) -> None:
    for wrong in WRONG:

        async def list_(wrong: Any = wrong) -> object:
            arguments: dict[str, Any] = {"state": MemoryStateStore(), name: wrong}
            async with TaskClient(**arguments) as client:
                return await client.list_tasks()

        await outcome(list_)


@pytest.mark.parametrize(
    "method", [name for name in vars(TaskClient) if not name.startswith("_") and name != "aclose"]
)
async def test_a_wrong_argument_of_a_method_of_a_client(method: str) -> None:
    function = getattr(TaskClient, method)
    for name in parameters(function):
        for wrong in (*WRONG, None):
            store = MemoryStateStore()
            async with Flujo(TREE, store=store, recovery=False) as runner:
                await runner.run_result_async("x", run_id="one")
            client = TaskClient(store)
            arguments = {"run_id": "one", "outcome": "done", "input": "yes", "event": "paid", "score": 0.5}
            arguments |= {"blueprint": "tree", "fork": Fork(at="same"), "data": b"x", "provider": "documents"}
            arguments |= {"reference": ContextReference[bytes](provider_id="documents", key="k")}
            needed = {
                key: value
                for key, value in arguments.items()
                if key in inspect.signature(function).parameters
            }
            given = {**needed, name: wrong}
            await outcome(lambda client=client, given=given: getattr(client, method)(**given))  # type: ignore[misc]


BODY = Pipeline(Step("same", same), name="body")
NEEDED: dict[str, dict[str, Any]] = {
    "ConditionalStep": {"name": "c", "condition": "input", "branches": {"a": BODY}},
    "DynamicParallelRouterStep": {"name": "r", "router": same, "branches": {"a": BODY}},
    "HumanInTheLoopStep": {"name": "h", "message": "Well?"},
    "ImportStep": {"name": "i", "pipeline": BODY},
    "LoopStep": {"name": "l", "body": BODY, "until": "true", "max_iterations": 2},
    "MapStep": {"name": "m", "over": "input", "body": BODY},
    "ParallelStep": {"name": "p", "branches": {"a": BODY}},
    "SetStep": {"name": "s", "values": {"n": 1}},
    "SleepStep": {"name": "s", "for_s": 3},
    "Step": {"name": "s", "call": same},
}
"""Arguments with which a class can be created; the other classes get a text for each that they need."""
CLASSES = sorted(
    name
    for name in flujo.__all__
    if isinstance(getattr(flujo, name), type)
    and getattr(flujo, name).__module__.startswith("flujo.")
    and not getattr(getattr(flujo, name), "_is_protocol", False)
    and not hasattr(getattr(flujo, name), "model_fields")
    and not issubclass(getattr(flujo, name), Enum)
    and name != "RunStream"
)
"""The classes that callers create, without the models of pydantic, which are user data."""


@pytest.mark.parametrize("name", CLASSES)
def test_a_wrong_argument_of_a_constructor(name: str) -> None:
    cls = getattr(flujo, name)
    signature = inspect.signature(cls)
    empty = inspect.Parameter.empty
    named = [
        each
        for each in signature.parameters.values()
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    for each in named:
        for wrong in (*WRONG, None, "", -1, 1.5, float("nan"), True, [], {}):
            needed = {other.name: "x" for other in named if other.default is empty}
            arguments = {**needed, **NEEDED.get(name, {}), each.name: wrong}
            with suppress(FlujoError):
                cls(**arguments)


@pytest.mark.parametrize("wrong", [5, b"x", ["x"], None, int])
def test_a_blueprint_has_a_name_and_a_registered_pipeline_a_function(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="`name` is"):
        flujo.read_blueprint(wrong)
    if not callable(wrong):
        with pytest.raises(SettingsError, match="`factory` is"):
            flujo.register(wrong)
