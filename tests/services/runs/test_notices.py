"""Which moves of a run send messages, and to whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Pipeline
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent
from flujo.domain.run import Move, NewRun, RunStatus
from flujo.domain.steps import HumanInTheLoopStep, Step
from flujo.exceptions import PipelineError, SettingsError
from flujo.governance.sink import GATE
from flujo.services.inspection.task_client import TaskClient
from flujo.services.project.system import SystemClock
from flujo.services.runs.notices import Notifier
from flujo.services.runs.run_request import pinned_by_name
from flujo.settings import load
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.store import StateStore

ALL = '[notify.all]\ncallable = "a:b"\non = ["paused", "waiting", "completed", "failed", "cancelled", "parked"]\n'


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        (tmp_path / "flujo.toml").write_text(text)

    return write


def fails(_: Any) -> None:
    raise ValueError("no room")


def tree(*steps: Any, **more: Any) -> Pipeline:
    return Pipeline(steps, name="p", **more)


async def sent(store: StateStore) -> list[tuple[str, str]]:
    return [(each.target, str(each.event)) for each in reversed(await store.messages())]


async def payload(store: StateStore) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((await store.messages())[0].payload)["data"]
    return data


async def run(pipeline: Pipeline, store: StateStore) -> None:
    async with Flujo(pipeline, store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id="run")


async def test_a_failure_is_reported_with_its_error(
    store: StateStore, settings: Callable[[str], None]
) -> None:
    settings(ALL)
    await run(tree(Step("break", fails)), store)
    assert await sent(store) == [("all", "failed")]
    assert (await payload(store))["error"] == {"code": "FLJ401", "message": "ValueError: no room"}


async def test_a_pause_is_reported_and_then_the_cancel_of_the_paused_run(
    store: StateStore, settings: Callable[[str], None]
) -> None:
    settings(ALL)
    pipeline = tree(HumanInTheLoopStep("ask", message="Ship it?"))
    await run(pipeline, store)
    async with Flujo(pipeline, store=store, recovery=False) as runner:
        await TaskClient(store, runners=[runner]).cancel_task("run", by="ada")
    assert await sent(store) == [("all", "paused"), ("all", "cancelled")]
    assert (await payload(store))["error"] == {"code": "FLJ410", "message": "cancelled by ada"}


async def test_a_run_that_recovery_parks_is_reported(
    store: StateStore, settings: Callable[[str], None]
) -> None:
    settings(ALL)
    closure, blobs = pinned_by_name("p")
    new = NewRun(run_id=RunId("run"), pipeline="p", closure=closure, input=b"1", context=b"{}")
    await store.accept(new, blobs)
    store.let_go(RunId("run"))
    async with Flujo(tree(Step("double", str)), store=store, recovery=False) as runner:
        result = await runner.recover_async(RunId("run"), max_recoveries=-1)
    assert result.status is RunStatus.PARKED
    assert await sent(store) == [("all", "parked")]


async def test_of_a_background_task_only_what_needs_a_person_is_reported(
    store: StateStore, settings: Callable[[str], None]
) -> None:
    settings(ALL)
    run = await store.accept(new_run(parent=Parent(run_id=RunId("above"), path=StepPath("a"), entry="a")), {})
    notifier = Notifier.of(load(Path("flujo.toml")), "p", (), SystemClock())
    told = {status: notifier.announced(run, Move(status=status)).notices for status in RunStatus}
    assert [status for status, notices in told.items() if notices] == ["paused", "failed", "parked"]
    assert json.loads(told[RunStatus.FAILED][0].payload)["data"]["parent_run_id"] == "above"


async def test_a_secret_in_a_question_does_not_leave(
    store: StateStore, settings: Callable[[str], None]
) -> None:
    settings(ALL)
    GATE.know(["hunter2-hunter2"], of="a test")
    await run(tree(HumanInTheLoopStep("ask", message="Is hunter2-hunter2 right?")), store)
    assert "hunter2" not in (await payload(store))["pauses"][0]["message"]


async def test_a_run_without_persistence_reports_nothing(settings: Callable[[str], None]) -> None:
    settings(ALL)
    async with Flujo(tree(Step("break", fails)), persist_state=False) as runner:
        await runner.run_result_async(1)
        assert runner.notifier.targets == {}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ((), {"completed": ["every"], "failed": ["every", "some"]}),
        (("named",), {"completed": ["every", "named"], "failed": ["every", "some", "named"]}),
        (
            {"failed": ["named"], "paused": ["every"]},
            {"completed": ["every"], "failed": ["every", "some", "named"], "paused": ["every"]},
        ),
        (("gone",), {"completed": ["every"], "failed": ["every", "some"]}),
    ],
)
def test_settings_and_pipeline_decide_together(
    settings: Callable[[str], None], tmp_path: Path, own: Any, expected: Any
) -> None:
    settings(
        '[notify.every]\ncallable = "a:b"\non = ["completed", "failed"]\n'
        '[notify.some]\ncallable = "a:b"\non = ["failed"]\nblueprints = ["night*"]\n'
        '[notify.named]\ncallable = "a:b"\non = ["completed", "failed"]\nblueprints = []\n'
    )
    notifier = Notifier.of(load(tmp_path / "flujo.toml"), "nightly", own, SystemClock())
    assert {str(event): list(names) for event, names in notifier.targets.items()} == expected


async def test_a_target_that_does_not_exist_is_an_error_of_the_runner(
    store: StateStore, settings: Callable[[str], None]
) -> None:
    settings(ALL)
    with pytest.raises(SettingsError, match=r"there is no \[notify.al\]") as caught:
        await run(tree(Step("double", str), notify=["al"]), store)
    assert "all" in str(caught.value.hint)


@pytest.mark.parametrize("given", [{"finished": ["ops"]}, {"failed": 1}, 7, [7]])
def test_notify_of_another_form_is_an_error_of_the_pipeline(given: Any) -> None:
    with pytest.raises(PipelineError, match="`notify`"):
        tree(Step("double", str), notify=given)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "either a `url` or a `callable`"),
        ('url = "https://a.b/c"', "every webhook is signed"),
        ('url = "ftp://a.b/c"\nsecret = "${S}"', "is not an address"),
        ('url = "https://a.b/c"\nsecret = "whsec_AAAA"', "names the variable"),
        ('callable = "a:b"\non = ["ended"]', "must be 'paused'"),
        ('callable = "a:b"\nwhen = 1', "unknown key `when`"),
    ],
)
def test_a_bad_target_is_an_error_with_its_line(
    settings: Callable[[str], None], tmp_path: Path, table: str, words: str
) -> None:
    settings(f"[notify.x]\n{table}\n")
    with pytest.raises(SettingsError, match=r"flujo.toml:\d") as caught:
        load(tmp_path / "flujo.toml")
    assert words in caught.value.message
