"""Resources: passed to the callables that declare them, by type; made and closed once a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.models import AppResources
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import ResourcesMissing, SettingsError
from flujo.services.runs.runner import Flujo
from support import ConditionalStep, Save, Text, call, pipeline

if TYPE_CHECKING:
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep

Runner = Flujo[Any, Any, Any]


class Pool(AppResources):
    name: str
    rows: list[str]
    limit: int = 3


class WiderPool(Pool):
    spare: Any


class Other(AppResources):
    pass


def reads(data: Any, resources: Pool) -> str:
    return f"{resources.name} {resources.limit}"


async def outcome(*steps: BaseStep, resources: AppResources | None = None) -> PipelineResult[Any, Any]:
    async with Runner(pipeline(*steps), persist_state=False, resources=resources) as runner:
        return await runner.run_result_async("x")


def step(fn: Any) -> BaseStep:
    return call("a", CallableRef("x:a", fn))


@pytest.mark.parametrize("kind", [Pool, WiderPool])
async def test_a_callable_gets_the_resources_it_declares(kind: type[Pool]) -> None:
    assert (await outcome(step(reads), resources=kind(name="p"))).output == "p 3"


async def test_it_is_the_very_object_and_changes_to_it_stay() -> None:
    def notes(data: Any, resources: Pool) -> None:
        resources.rows.append(data)

    pool = Pool(name="p", rows=[])
    await outcome(step(notes), call("b", CallableRef("x:b", notes)), resources=pool)
    assert pool.rows == ["x", None]


async def test_a_decision_may_ask_for_resources() -> None:
    def is_long(resources: Pool) -> bool:
        return len(resources.name) > 1

    then = pipeline(call("yes", CallableRef("x:yes", lambda data: "long")))
    route = ConditionalStep(
        name="route", condition=CallableRef("x:is_long", is_long), branches={"then": then}
    )
    assert (await outcome(route, resources=Pool(name="pool"))).output == "long"


async def test_a_callable_in_save_may_need_resources() -> None:
    def named(data: Any, resources: Pool) -> str:
        return f"{data} by {resources.name}"

    schema = {"type": "object", "properties": {"who": {"type": "string"}}}
    saving = call(
        "a", CallableRef("x:a", lambda data: data), save={"who": Save(CallableRef("x:named", named))}
    )
    tree = pipeline(saving, context_schema=schema, output=Text("{{ context.who }}"))
    async with Runner(tree, persist_state=False, resources=Pool(name="p")) as runner:
        assert (await runner.run_result_async("x")).output == "x by p"


async def test_another_class_is_refused_by_both_names() -> None:
    result = await outcome(step(reads), resources=Other())
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ305", "a")
    assert "takes `resources: Pool`, and those of the runner are `Other`" in result.error.message


async def test_none_at_all_is_an_error_with_a_way_out() -> None:
    result = await outcome(step(reads))
    assert result.status is RunStatus.FAILED
    assert isinstance(result.cause, ResourcesMissing)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ306", "a")
    assert "resources=" in (result.error.hint or "")


async def test_a_callable_may_do_without() -> None:
    def maybe(data: Any, resources: Pool | None = None) -> str:
        return "without" if resources is None else resources.name

    assert (await outcome(step(maybe))).output == "without"
    assert (await outcome(step(maybe), resources=Pool(name="p"))).output == "p"
    wrong = await outcome(step(maybe), resources=Other())
    assert wrong.error is not None
    assert "`Other`" in wrong.error.message


@pytest.mark.parametrize(
    "annotated", [lambda data, resources: resources.name, lambda resources: resources.name]
)
async def test_without_an_annotation_the_resources_are_passed_whatever_their_type(annotated: Any) -> None:
    assert (await outcome(step(annotated), resources=Pool(name="p"))).output == "p"


async def test_resources_are_never_journaled(store: StateStore) -> None:
    secret = "hunter2-in-the-pool"
    async with Runner(pipeline(step(reads)), store=store, resources=Pool(name="p", rows=[secret])) as runner:
        result = await runner.run_result_async("x")
    for entry in await store.entries(result.run_id):
        assert secret not in repr(entry)


async def test_a_retry_with_the_right_resources_succeeds(store: StateStore) -> None:
    tree: Pipeline = pipeline(step(reads))
    async with Runner(tree, store=store) as runner:
        failed = await runner.run_result_async("x")
    async with Runner(tree, store=store, resources=Pool(name="p")) as runner:
        assert (await runner.resume_async(failed.run_id, retry_failed=True)).output == "p 3"


@pytest.mark.parametrize("given", [{"name": "p"}, Pool, object()])
def test_an_object_that_is_not_resources_is_refused_at_once(given: Any) -> None:
    with pytest.raises(SettingsError, match="subclass of `AppResources`"):
        Runner(pipeline(), resources=given)


class TestFields:
    def test_an_unknown_field_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="Pool has no resource 'nmae'") as caught:
            Pool(nmae="p")
        assert caught.value.hint == "its fields are name, rows, limit"

    def test_a_subclass_has_the_fields_of_both(self) -> None:
        pool = WiderPool(name="p", spare=1, limit=5)
        assert (pool.name, pool.spare, pool.limit) == ("p", 1, 5)

    async def test_a_field_that_was_not_given_is_an_error_only_of_the_step_that_reads_it(self) -> None:
        def rows(resources: Pool) -> int:
            return len(resources.rows)

        assert (await outcome(step(reads), resources=Pool(name="p"))).success
        result = await outcome(step(rows), resources=Pool(name="p"))
        assert result.error is not None
        assert (result.error.code, result.error.path) == ("FLJ306", "a")
        assert "Pool was created without 'rows'" in result.error.message

    def test_a_name_without_a_field_is_not_an_attribute(self) -> None:
        assert not hasattr(Pool(), "rwos")
