"""Files of a step are read once: every attempt, every turn and every resume sends the same bytes."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Fault, Provider, provider_server
from agents.provider_server import Response as Sent
from domain.test_files import png
from flujo import ContextReference, MemoryProvider
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.files import MOST_BYTES
from flujo.domain.journal import EntryKind
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    CachePolicy,
    CacheStep,
    CallableRef,
    GranularStep,
    ImportStep,
    MapStep,
    Step,
    StepConfig,
)
from flujo.exceptions import StateBackendUnavailable
from flujo.services.runs.runner import Flujo
from flujo.state.memory_cache import MemoryCache
from flujo.testing import ScriptedAgent
from support import Expr, StoppingStore, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flujo.domain.ports import StateStore

MODEL = "openai-chat:gpt-4o"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.png").write_bytes(png())
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def step_of(kind: str, **keys: Any) -> Step | GranularStep:
    keys = {"input": "What is it?", "files": ["scan.png"]} | keys
    if kind == "granular":
        return GranularStep("see", AgentSpec("eye", MODEL, tools=[CallableRef.of(add)]), **keys)
    return Step("see", agent=AgentSpec("eye", MODEL), **keys)


def images(provider: Provider) -> list[list[str]]:
    """Return the images of each request."""
    return [
        [
            part["image_url"]["url"]
            for part in request["messages"][0]["content"]
            if part["type"] == "image_url"
        ]
        for request in provider.requests
    ]


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{b64encode(data).decode()}"


async def decisions(store: StateStore) -> dict[str, Any]:
    return {
        entry.path: canonical.decode(entry.output or b"null")
        for entry in await store.entries("run")  # type: ignore[arg-type]
        if entry.kind is EntryKind.DECISION
    }


@pytest.mark.parametrize("kind", ["step", "granular"])
async def test_a_file_is_sent_and_its_digest_is_recorded(
    provider: Provider, store: StateStore, kind: str
) -> None:
    provider.will_answer("A dot.")
    result = await start(pipeline(step_of(kind)), store)
    assert (result.status, result.output) == (RunStatus.COMPLETED, "A dot.")
    assert images(provider) == [[uri(png())]]
    digest = canonical.digest(png())
    [sent] = (await decisions(store))["see:files"]
    assert sent == {"name": "scan.png", "media_type": "image/png", "size": len(png()), "sha256": digest}
    assert await store.blobs([digest]) == {digest: png()}
    entries = await store.entries(result.run_id)
    assert not any(b64encode(png()) in (each.input or b"") + (each.output or b"") for each in entries)


@pytest.mark.parametrize(
    ("kind", "stop_at"), [("step", 0), ("step", 1), *(("granular", stop_at) for stop_at in range(5))]
)
async def test_a_resumed_run_sends_the_same_bytes_although_the_file_has_changed(
    provider: Provider, store: StateStore, tmp_path: Path, kind: str, stop_at: int
) -> None:
    first = [Sent(tool_call=("add", {"a": 1, "b": 2}))] if kind == "granular" else []
    provider.will_answer(*first, "A dot.")
    tree = pipeline(step_of(kind))
    stopping: Any = StoppingStore(store, stop_at)
    with pytest.raises(StateBackendUnavailable):
        await start(tree, stopping)
    (tmp_path / "scan.png").write_bytes(png(200))
    assert (await resume(tree, store)).output == "A dot."
    pinned = png() if stop_at else png(200)  # the first write is that of the files
    assert {url for sent in images(provider) for url in sent} == {uri(pinned)}


async def test_a_missing_file_does_not_stop_a_resume_that_has_read_it(
    provider: Provider, store: StateStore, tmp_path: Path
) -> None:
    provider.will_answer(Fault.SERVER_ERROR, "A dot.")
    assert (await start(pipeline(step_of("step")), store)).status is RunStatus.FAILED
    (tmp_path / "scan.png").unlink()
    result = await resume(pipeline(step_of("step")), store, retry_failed=True)
    assert result.output == "A dot."
    assert images(provider) == [[uri(png())]] * 2


async def test_each_attempt_sends_the_same_bytes(
    provider: Provider, store: StateStore, tmp_path: Path
) -> None:
    def changes(_: Any) -> Sent:
        (tmp_path / "scan.png").write_bytes(png(9))
        return Sent(status=500)

    provider.will_answer(changes, "A dot.")
    config = StepConfig(max_retries=1, retry=RetryPolicy(initial_s=0))
    assert (await start(pipeline(step_of("step", config=config)), store)).output == "A dot."
    assert images(provider) == [[uri(png())]] * 2


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ("{{ input.scan }}", "scan.png"),
        ("{{ input.scans }}", "scan.png"),
        (["./{{ input.scan }}"], "./scan.png"),
    ],
)
async def test_paths_come_from_expressions(
    provider: Provider, store: StateStore, files: Any, name: str
) -> None:
    provider.will_answer("A dot.")
    tree = pipeline(step_of("step", files=files))
    await start(tree, store, {"scan": "scan.png", "scans": ["scan.png"]})
    assert [each["name"] for each in (await decisions(store))["see:files"]] == [name]


async def test_a_reference_is_sent_as_a_file(provider: Provider, store: StateStore) -> None:
    async def scan() -> ContextReference[bytes]:
        return await ContextReference[bytes].of(png(3))

    provider.will_answer("A dot.")
    tree = pipeline(call("scan", CallableRef.of(scan)), step_of("step", files="{{ steps.scan.output }}"))
    async with Flujo[Any, Any, Any](tree, store=store, state_providers={"docs": MemoryProvider()}) as runner:
        assert (await runner.run_result_async(None, run_id="run")).output == "A dot."
    assert images(provider) == [[uri(png(3))]]


@pytest.mark.parametrize("kind", ["step", "granular"])
@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["../scan.png"], "'../scan.png' is not sent: it is outside the project"),
        (["missing.png"], "'missing.png' is not sent: the file does not exist"),
        (["{{ input.nothing }}"], "`files` has null, which is neither a path nor a reference"),
        ([7], "`files` has 7, which is neither a path nor a reference"),
        ([{"provider_id": "docs", "key": "a", "more": 1}], "which is not a complete reference"),
        ([{"file": "scan.png"}], "which is neither a path nor a reference"),
        (["large.txt", "large.txt"], "the files of a step are larger than 20 MiB together"),
        (["empty.txt"], "'empty.txt' is empty"),
    ],
)
async def test_what_cannot_be_sent_fails_the_step_before_a_request(
    provider: Provider, store: StateStore, tmp_path: Path, kind: str, files: Any, why: str
) -> None:
    (tmp_path / "large.txt").write_bytes(b"x" * (MOST_BYTES // 2 + 1))
    (tmp_path / "empty.txt").write_bytes(b"")
    result = await start(pipeline(step_of(kind, files=files)), store, {"nothing": None})
    assert result.error is not None
    assert (result.status, result.error.code, result.error.path) == (RunStatus.FAILED, "FLJ436", "see")
    assert why in result.error.message
    assert result.error.hint
    assert not provider.requests


async def test_a_file_with_a_known_secret_is_not_sent(
    provider: Provider, store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    provider.will_answer("never")
    (tmp_path / "notes.txt").write_text("the key is sk-0123456789abcdef", "utf-8")
    agent = AgentSpec("eye", MODEL)
    tree = pipeline(Step("first", agent=agent, input="hello"), step_of("step", files="notes.txt"))
    result = await start(tree, store)
    assert result.error is not None
    assert (result.error.code, len(provider.requests)) == ("FLJ416", 1)


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_cached_answer_is_that_of_the_bytes_not_of_the_path(
    provider: Provider, store: StateStore, tmp_path: Path, wrapped: bool
) -> None:
    provider.will_answer("first", "second", "third")
    tree = pipeline(CacheStep("known", step_of("step")) if wrapped else step_of("step", cache=CachePolicy()))
    cache = MemoryCache()
    (tmp_path / "same.png").write_bytes(png())

    async def asked(run_id: str) -> Any:
        return (await start(tree, store, run_id=run_id, cache=cache)).output

    assert [await asked("a"), await asked("b")] == ["first", "first"]
    (tmp_path / "scan.png").write_bytes(png(5))
    assert [await asked("c"), await asked("d")] == ["second", "second"]
    (tmp_path / "scan.png").write_bytes(png())
    assert await asked("e") == "first"
    assert images(provider) == [[uri(png())], [uri(png(5))]]


async def test_a_cache_around_a_step_with_files_does_not_answer(
    provider: Provider, store: StateStore, tmp_path: Path
) -> None:
    provider.will_answer("first", "second")
    child = pipeline(step_of("step"))
    tree = pipeline(ImportStep("child", child, cache=CachePolicy()))
    cache = MemoryCache()
    outputs = [(await start(tree, store, run_id=name, cache=cache)).output for name in "ab"]
    assert outputs == ["first", "second"]


async def test_a_fallback_sends_the_files_of_its_step(provider: Provider, store: StateStore) -> None:
    provider.will_answer(Fault.SERVER_ERROR, "A dot.")
    spare = Step("spare", agent=AgentSpec("spare", MODEL))
    result = await start(pipeline(step_of("step", fallback=spare)), store)
    assert result.output == "A dot."
    assert images(provider) == [[uri(png())]] * 2


async def test_items_of_a_map_send_their_own_files(
    provider: Provider, store: StateStore, tmp_path: Path
) -> None:
    provider.will_answer("seen")
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    see = step_of("step", files="{{ string(item) }}.png")
    tree = pipeline(MapStep("each", see, over=Expr("[0, 1, 2, 3]"), max_concurrency=2))
    result = await start(tree, store)
    assert result.output == ["seen"] * 4
    assert sorted(images(provider)) == sorted([uri(png(n))] for n in range(4))


async def test_a_script_sees_the_files(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.png").write_bytes(png())
    agent: Any = ScriptedAgent(["plain"])
    await start(
        pipeline(Step("see", CallableRef("scripts:see", agent), input="x", files=["scan.png"])), store
    )
    assert [file.name for file in agent.asked[0].files] == ["scan.png"]
    talking = ScriptedAgent(["in turns"])
    await start(pipeline(GranularStep("see", talking, input="x", files=["scan.png"])), store, run_id="other")
    [text, file] = talking.asked[0].data[0]["parts"][0]["content"]
    assert (text, file["media_type"], file["data"]) == ("x", "image/png", "")
