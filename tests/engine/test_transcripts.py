"""An attempt keeps its transcript, without secrets, as long as its run is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, detail, entries, talk
from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, DynamicParallelRouterStep, Step, StepConfig
from flujo.exceptions import OutputRejected
from flujo.services.admin.purge import purge
from flujo.services.inspection.task_client import TaskClient
from flujo.state.sql import tables
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from services.admin.test_purge import rows
from support import World, pipeline, start

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.journal import Entry
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

CANARY = "canary-7f3a9b1c5d2e"
SUSPECT = "suspect-4c1d8e6f0a9b"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets `[journal] transcripts` of the project."""
    monkeypatch.chdir(tmp_path)

    def keep(which: str) -> None:
        (tmp_path / "flujo.toml").write_text(f"[journal]\ntranscripts = '{which}'\n")

    return keep


def no_zero(answer: Any) -> str | None:
    return "it is zero" if answer == "0" else None


def asking(script: Any, **more: Any) -> Pipeline:
    agent: Any = ScriptedAgent(script, tools=[add])
    return pipeline(Step("sum", CallableRef("test:agent", agent), validators=[no_zero], **more))


async def attempts(store: StateStore) -> list[Entry]:
    return [entry for entry in await store.entries(RUN) if entry.kind is EntryKind.WORK]


async def transcript_in(store: StateStore, entry: Entry) -> Any:
    digest = detail(entry)["transcript"]
    return canonical.decode((await store.blobs([digest]))[digest])


def texts(transcript: Any) -> list[Any]:
    parts = [part for message in transcript["messages"] for part in message["parts"]]
    return [part.get("content", part.get("args")) for part in parts]


async def test_a_transcript_has_every_message_and_each_rejected_answer_with_the_reason(
    store: StateStore,
) -> None:
    tree = asking([calls(("add", {"a": 1, "b": 2})), "0", "3"])
    assert (await start(tree, store, "add")).output == "3"
    (entry,) = await attempts(store)
    transcript = await transcript_in(store, entry)
    assert transcript["tools"] == ["add"]
    reason = "That answer cannot be used: it is zero. Answer again, with the requested output only."
    assert texts(transcript) == ["add", {"a": 1, "b": 2}, 3, "0", reason, "3"]


@pytest.mark.parametrize(("which", "kept_of"), [("full", [1, 2]), ("last", [2]), ("off", [])])
async def test_the_settings_say_whose_transcripts_are_kept(
    store: StateStore, kept: Any, which: str, kept_of: list[int]
) -> None:
    kept(which)
    tree = asking(["0", "0", calls(("add", {"a": 1, "b": 2})), "3"], config=StepConfig(max_retries=1))
    assert (await start(tree, store, "add")).output == "3"
    first, second = await attempts(store)
    assert [entry.attempt for entry in (first, second) if "transcript" in detail(entry)] == kept_of
    if which == "full":
        assert texts(await transcript_in(store, first))[-1] == "0", "the answer that was rejected last"


@pytest.mark.parametrize("which", ["full", "last"])
async def test_a_failed_step_keeps_its_last_transcript(store: StateStore, kept: Any, which: str) -> None:
    kept(which)
    result = await start(asking(["0"] * 4, config=StepConfig(max_retries=1)), store, "add")
    assert result.status is RunStatus.FAILED
    assert "transcript" in detail((await attempts(store))[-1])


async def test_each_answer_of_a_router_keeps_its_transcript(store: StateStore) -> None:
    agent: Any = ScriptedAgent([calls(("add", {"a": 1, "b": 2})), ["nowhere"], ["left"]], tools=[add])
    branches = {"left": asking(["5"]), "right": asking(["6"])}
    route = DynamicParallelRouterStep("route", router=CallableRef("test:agent", agent), branches=branches)
    assert (await start(pipeline(route), store, "go")).output == {"left": "5"}
    task = await TaskClient(store).get_task(RUN, transcripts=True)
    refused, chosen = task.trace.at("route").transcripts
    assert texts(refused) == ["go", {"a": 1, "b": 2}, 3, '["nowhere"]']
    assert (refused["attempt"], refused["status"]) == (1, "failed")
    assert "'nowhere', which is not a branch" in refused["error"]
    assert (chosen["attempt"], texts(chosen)) == (2, ["go", '["left"]'])
    assert task.trace.conversation(task.trace.at("route")).path == "route", (
        "not the conversation in its branch"
    )


@pytest.mark.parametrize(("which", "kept_of"), [("last", [2]), ("off", [])])
async def test_the_settings_say_whose_transcripts_of_a_router_are_kept(
    store: StateStore, kept: Any, which: str, kept_of: list[int]
) -> None:
    kept(which)
    agent: Any = ScriptedAgent([["nowhere"], ["left"]], tools=[add])
    branches = {"left": asking(["5"]), "right": asking(["6"])}
    route = DynamicParallelRouterStep("route", router=CallableRef("test:agent", agent), branches=branches)
    await start(pipeline(route), store, "go")
    task = await TaskClient(store).get_task(RUN, transcripts=True)
    assert [each["attempt"] for each in task.trace.at("route").transcripts] == kept_of


async def test_a_step_that_calls_a_tool_that_raises_keeps_its_transcript(store: StateStore) -> None:
    def broken() -> None:
        raise LookupError("no table")

    agent: Any = ScriptedAgent([calls(("broken", {}))], tools=[broken])
    await start(pipeline(Step("ask", CallableRef("test:agent", agent))), store, "go")
    (entry,) = await attempts(store)
    assert texts(await transcript_in(store, entry)) == ["go", {}]


async def test_an_attempt_that_takes_too_long_keeps_its_transcript(store: StateStore) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    agent: Any = ScriptedAgent([calls(("hang", {}))], tools=[hang])
    slow = Step("ask", CallableRef("test:agent", agent), config=StepConfig(timeout_s=0.05))
    await start(pipeline(slow), store, "go")
    (entry,) = await attempts(store)
    assert texts(await transcript_in(store, entry)) == ["go", {}]


async def test_no_secret_is_in_a_transcript(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_API_KEY", CANARY)
    monkeypatch.setenv("SUSPECT_TOKEN", SUSPECT)

    def leak() -> str:
        return f"{CANARY} and {SUSPECT}"

    agent: Any = ScriptedAgent([calls(("leak", {})), "done"], tools=[leak])
    await start(pipeline(Step("ask", CallableRef("test:agent", agent))), store, "go")
    (entry,) = await attempts(store)
    kept_text = canonical.encode(await transcript_in(store, entry)).decode()
    assert "leak" in kept_text
    assert CANARY not in kept_text
    assert SUSPECT not in kept_text
    whole = await TaskClient(store).get_task(RUN, transcripts=True)
    (shown,) = whole.trace.at("ask").transcripts
    assert (shown["attempt"], shown["status"], shown["error"]) == (1, "completed", None)
    assert CANARY not in str(shown)


async def test_a_rejected_response_of_a_turn_is_kept_with_its_attempt(store: StateStore) -> None:
    cut = OutputRejected("cut", retryable=True)
    message = {"kind": "response", "parts": [{"part_kind": "text", "content": "The qu"}]}
    cut.transcript = {"messages": [message]}  # type: ignore[attr-defined]  # exceptions take attributes
    tree = talk([cut, "done"], config=StepConfig(max_retries=1))
    await start(tree, store, "go")
    failed, *_ = await attempts(store)
    assert texts(await transcript_in(store, failed)) == ["The qu"]


async def test_a_transcript_goes_with_its_run(store_uri: str) -> None:
    store = SqlStateStore(store_uri)
    await start(asking([calls(("add", {"a": 1, "b": 2})), "3"]), store, "add")
    (entry,) = await attempts(store)
    digest = detail(entry)["transcript"]
    assert digest in await store.blobs([digest])
    await purge(store, [RunStatus.COMPLETED], 0.0)
    assert [await rows(store, table) for table in (tables.blobs, tables.blob_refs)] == [0, 0]
    await store.aclose()


async def test_a_step_without_an_agent_has_no_transcript(store: StateStore) -> None:
    await start(pipeline(Step("add", World().add("add"))), store, 1)
    assert "transcript" not in detail((await entries(store))["add"])
