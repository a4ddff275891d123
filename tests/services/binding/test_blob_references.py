"""References: the database holds a pointer, the provider the bytes, and a read returns the stored bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from pydantic import BaseModel, Field

from flujo import (
    ContextReference,
    FileProvider,
    Flujo,
    HumanInTheLoopStep,
    MemoryProvider,
    ParallelStep,
    PipelineContext,
    Step,
    StepConfig,
)
from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import (
    InputRejected,
    ProviderFailed,
    ProviderNotGiven,
    ReferenceMissing,
    SettingsError,
    StateBackendUnavailable,
    SyncInAsync,
)
from support import Expr, StoppingStore, Text, answer, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

SECRET = b"a very long document \x00\xff"
AT_ONCE = RetryPolicy(initial_s=0.0, jitter=False)


class Report(BaseModel):
    title: str
    pages: list[int] = Field(default_factory=list)


class Doc(PipelineContext):
    raw: ContextReference[bytes]
    text: ContextReference[str] | None = None
    report: ContextReference[Report] | None = None
    parts: list[ContextReference[bytes]] = Field(default_factory=list)


async def read(context: Doc) -> int:
    return len(await context.raw.get())


async def write(context: Doc) -> int:
    context.text = await ContextReference.of("größer")
    context.report = await ContextReference.of(Report(title="r", pages=[1]))
    context.parts.append(await ContextReference.of(b"one"))
    return len(context.parts)


def steps(*work: Callable[..., Any], **config: Any) -> Pipeline:
    return pipeline(
        *(
            Step(
                name=each.__name__,
                call=CallableRef(f"doc:{each.__name__}", each),
                config=StepConfig(**config),
            )
            for each in work
        )
    )


def runner(tree: Pipeline, store: StateStore, providers: Any, model: Any = Doc) -> Flujo[Any, Any, Any]:
    return Flujo(tree, context_model=model, store=store, state_providers=providers)


async def run(
    tree: Pipeline, store: StateStore, providers: Any, context: Any, model: Any = Doc
) -> PipelineResult[Any, Any]:
    async with runner(tree, store, providers, model) as made:
        return await made.run_result_async(None, run_id="run", initial_context_data=context)


def context_of(result: PipelineResult[Any, Any]) -> Any:
    assert result.context is not None
    return result.context


class Flaky(MemoryProvider):
    """A storage that is away for some calls."""

    def __init__(self, away: int) -> None:
        super().__init__()
        self.away = away

    def _try(self) -> None:
        self.away -= 1
        if self.away >= 0:
            raise ConnectionError("the storage is away")

    async def get(self, key: str) -> bytes:
        self._try()
        return await super().get(key)


async def test_values_go_to_the_provider_and_pointers_into_the_database(store: StateStore) -> None:
    files = MemoryProvider()
    result = await run(steps(read, write), store, {"files": files}, {"raw": SECRET})
    digest = canonical.digest(SECRET)
    assert result.success
    assert context_of(result).raw == ContextReference(
        provider_id="files", key=f"sha256/{digest}", sha256=digest, size=len(SECRET)
    )
    assert files.blobs[f"sha256/{digest}"] == SECRET
    record = await store.run(RunId("run"))
    entries = await store.entries(RunId("run"))
    kept = [record.context, record.context_now, *(e.patch for e in entries), *(e.output for e in entries)]
    assert not any(b"long document" in (each or b"") or "größer".encode() in (each or b"") for each in kept)
    assert canonical.decode(record.context)["raw"] == context_of(result).raw.model_dump()


async def test_a_reference_gives_what_its_type_says_in_the_run_and_from_the_result(store: StateStore) -> None:
    async def check(context: Doc) -> None:
        assert context.text is not None
        assert context.report is not None
        assert await context.text.get() == "größer"
        assert await context.report.get() == Report(title="r", pages=[1])
        assert [await part.get() for part in context.parts] == [b"one"]

    def check_in_a_thread(context: Doc) -> int:
        assert context.report is not None
        context.text = ContextReference.of_sync("in a thread")
        return len(context.report.get_sync().pages)

    tree = steps(write, check, check_in_a_thread)
    result = await run(tree, store, {"files": MemoryProvider()}, {"raw": SECRET})
    assert result.error is None
    assert result.output == 1
    assert await context_of(result).raw.get() == SECRET
    assert await context_of(result).text.get() == "in a thread"
    with pytest.raises(SyncInAsync, match=r"`get_sync` was called"):
        context_of(result).raw.get_sync()
    copy = context_of(result).model_copy(deep=True)
    assert await copy.raw.get() == SECRET


async def test_a_reference_is_a_value_like_any_other_between_steps(store: StateStore) -> None:
    async def make(data: Any) -> ContextReference[str]:
        return await ContextReference.of("as an output")

    async def take(data: ContextReference[str]) -> str:
        return await data.get()

    result = await run(steps(make, take), store, {"files": MemoryProvider()}, {"raw": b""})
    assert result.output == "as an output"


async def test_expressions_read_the_pointer(store: StateStore) -> None:
    tree = pipeline(
        Step(name="read", call=CallableRef("doc:read", read), when=Expr("context.raw.size > 3")),
        output=Text("{{ context.raw.provider_id }} {{ context.raw.size }}"),
    )
    result = await run(tree, store, {"files": MemoryProvider()}, {"raw": b"long"})
    assert result.output == "files 4"


async def test_a_pointer_without_a_digest_is_complete_from_the_start_of_the_run(store: StateStore) -> None:
    files = MemoryProvider()
    files.blobs["bucket/file.pdf"] = SECRET
    tree = pipeline(HumanInTheLoopStep(name="wait", message=Text("?")), *steps(read).steps)
    given = {"raw": {"provider_id": "s3", "key": "bucket/file.pdf"}}
    assert (await run(tree, store, {"s3": files}, given)).status is RunStatus.PAUSED
    pointer = canonical.decode((await store.run(RunId("run"))).context)["raw"]
    assert pointer == {**given["raw"], "sha256": canonical.digest(SECRET), "size": len(SECRET)}
    files.blobs["bucket/file.pdf"] = SECRET[:-1] + b"!"
    async with runner(tree, store, {"s3": files}) as made:
        result = await made.resume_async("run", "go")
    assert result.error is not None
    assert (result.error.type, result.error.path) == ("ReferenceCorrupt", "read")
    for part in ("`context.raw`", "'s3'", "'bucket/file.pdf'", canonical.digest(SECRET)):
        assert part in result.error.message
    files.blobs["bucket/file.pdf"] = SECRET
    async with runner(tree, store, {"s3": files}) as made:
        again = await made.resume_async("run", retry_failed=True)
    assert again.output == len(SECRET)


async def test_branches_bring_their_references_together_and_a_pause_keeps_them(store: StateStore) -> None:
    async def text(context: Doc) -> None:
        context.text = await ContextReference.of("text")

    async def part(context: Doc) -> None:
        context.parts = [await ContextReference.of(b"part")]

    tree = pipeline(
        ParallelStep(name="both", branches={"one": steps(text), "two": steps(part)}),
        HumanInTheLoopStep(name="wait", message=Text("?")),
        *steps(read).steps,
    )
    files = MemoryProvider()
    paused = await run(tree, store, {"files": files}, {"raw": SECRET})
    assert paused.status is RunStatus.PAUSED
    async with runner(tree, store, {"files": files}) as made:
        result = await made.resume_async("run", "go")
    assert result.success
    assert await context_of(result).text.get() == "text"
    assert await context_of(result).parts[0].get() == b"part"


async def test_a_run_stopped_after_any_write_has_the_same_references(store: StateStore) -> None:
    tree = steps(write, read)
    for allowed in range(10):
        files, stopping = MemoryProvider(), StoppingStore(store, allowed)
        try:
            async with runner(tree, cast("Any", stopping), {"files": files}) as made:
                await made.run_result_async(None, run_id=f"{allowed}", initial_context_data={"raw": SECRET})
            break
        except StateBackendUnavailable:
            async with runner(tree, store, {"files": files}) as made:
                result = await made.resume_async(f"{allowed}")
        assert result.output == len(SECRET)
        assert await context_of(result).text.get() == "größer"
        assert len(files.blobs) == 4
    assert allowed >= 2


async def test_the_settings_of_a_project_name_the_providers_of_its_runners(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[state_providers]\nfiles = "file:kept"\n'
    )
    monkeypatch.chdir(tmp_path)
    async with Flujo[Any, Any, Doc](steps(read), context_model=Doc) as made:
        result = await made.run_result_async(None, initial_context_data={"raw": SECRET})
    assert result.output == len(SECRET)
    assert result.context is not None
    assert (tmp_path / "kept" / result.context.raw.key).read_bytes() == SECRET


async def test_a_recovered_run_finds_its_references(store: StateStore) -> None:
    tree = pipeline(HumanInTheLoopStep(name="wait", message=Text("?")), *steps(read).steps)
    files = MemoryProvider()
    await run(tree, store, {"files": files}, {"raw": b"xyz"})
    await answer(store, "wait", "go")
    async with runner(tree, store, {"files": files}) as made:
        result = await made.recover_async(RunId("run"), max_recoveries=3)
    assert result.output == 3


# What bad input gets ------------------------------------------------------------------------------------


async def no_run(store: StateStore) -> bool:
    return await store.runs(RunQuery()) == []


@pytest.mark.parametrize(
    ("providers", "context", "error", "words"),
    [
        (
            {},
            {"raw": b"x"},
            ProviderNotGiven,
            r"`Doc\.raw` is a `ContextReference`, but .* no state provider",
        ),
        ({"a": 1, "b": 2}, {"raw": b"x"}, ProviderNotGiven, "the runner has 2: 'a', 'b'"),
        (
            {"a": 1},
            {"raw": {"provider_id": "s3", "key": "k"}},
            ProviderNotGiven,
            "'s3', but the runner has 'a'",
        ),
        (
            {"a": 1},
            {"raw": {"provider_id": "a", "key": "k"}},
            ReferenceMissing,
            "`context.raw`.*nothing under 'k'",
        ),
        ({"a": 1}, {"raw": {"provider_id": "a"}}, InputRejected, "raw.key"),
        ({"a": 1}, {"raw": 7}, InputRejected, "raw"),
        ({"a": 1}, {"raw": {"provider_id": "a", "key": "k", "size": -1}}, InputRejected, "raw.size"),
    ],
)
async def test_a_run_does_not_begin_with_a_reference_that_leads_nowhere(
    store: StateStore, providers: Any, context: Any, error: Any, words: str
) -> None:
    given = {name: MemoryProvider() for name in providers}
    with pytest.raises(error, match=words):
        await run(steps(read), store, given, context)
    assert await no_run(store)


async def test_a_storage_that_is_away_at_the_start_accepts_no_run(store: StateStore) -> None:
    class Away(MemoryProvider):
        async def put(self, key: str, data: bytes) -> None:
            raise ConnectionError("no route")

    with pytest.raises(ProviderFailed, match=r"could not write 'sha256/.*ConnectionError: no route"):
        await run(steps(read), store, {"files": Away()}, {"raw": b"x"})
    assert await no_run(store)


async def test_a_value_that_the_storage_does_not_return_counts_as_not_written(store: StateStore) -> None:
    class Liar:
        async def get(self, key: str) -> bytes:
            return b"something else"

        async def put(self, key: str, data: bytes) -> None:
            """Keep nothing."""

    with pytest.raises(ProviderFailed, match="returned different bytes"):
        await run(steps(read), store, {"files": Liar()}, {"raw": b"x"})
    assert await no_run(store)


async def test_a_storage_that_is_away_for_a_moment_costs_retries(store: StateStore) -> None:
    tree = steps(read, max_retries=2, retry=AT_ONCE)
    result = await run(tree, store, {"files": Flaky(2)}, {"raw": b"xyz"})
    assert result.output == 3


async def test_an_unavailable_storage_is_a_typed_failure_and_the_run_resumes_later(store: StateStore) -> None:
    files = Flaky(1)
    result = await run(steps(write, read), store, {"files": files}, {"raw": b"xyz"})
    assert result.error is not None
    assert (result.error.type, result.error.path, result.error.retryable) == ("ProviderFailed", "read", True)
    assert "could not read" in result.error.message
    async with runner(steps(write, read), store, {"files": files}) as made:
        again = await made.resume_async("run", retry_failed=True)
    assert again.output == 3


async def test_another_process_fails_typed_without_the_provider_and_resumes_with_it(
    store: StateStore,
) -> None:
    tree = pipeline(HumanInTheLoopStep(name="wait", message=Text("?")), *steps(read).steps)
    files = MemoryProvider()
    await run(tree, store, {"files": files}, {"raw": b"xyz"})
    async with runner(tree, store, {"others": MemoryProvider()}) as made:
        result = await made.resume_async("run", "go")
    assert result.error is not None
    assert result.error.type == "ProviderNotGiven"
    assert "'files', but the runner has 'others'" in result.error.message
    async with runner(tree, store, {"files": files}) as made:
        assert (await made.resume_async("run", retry_failed=True)).output == 3


async def test_bytes_of_another_type_are_corrupt(store: StateStore) -> None:
    async def report(context: Doc) -> Any:
        assert context.report is not None
        return (await context.report.get()).title

    files = MemoryProvider()
    files.blobs["k"] = b'{"pages": "none"}'
    context = {"raw": b"", "report": {"provider_id": "files", "key": "k"}}
    result = await run(steps(report), store, {"files": files}, context)
    assert result.error is not None
    assert result.error.type == "ReferenceCorrupt"
    assert "is not Report" in result.error.message


async def test_a_step_makes_references_and_does_not_assign_values(store: StateStore) -> None:
    def assign(context: Any) -> None:
        context.raw = b"not so"

    result = await run(steps(assign), store, {"files": MemoryProvider()}, {"raw": b""})
    assert result.error is not None
    assert "await ContextReference.of(value)" in result.error.message


async def test_outside_a_run_there_is_no_provider() -> None:
    with pytest.raises(ProviderNotGiven, match="outside a run"):
        await ContextReference.of(b"x")
    with pytest.raises(ProviderNotGiven, match="outside a run"):
        await ContextReference[bytes](provider_id="a", key="b").get()


@pytest.mark.parametrize(
    ("providers", "words"),
    [
        ({"a b": MemoryProvider()}, "'a b' is not a valid id"),
        ({"a": MemoryProvider}, "is `MemoryProvider`, not an object"),
        ({"a": object()}, "is `object`, not an object"),
    ],
)
def test_an_object_that_is_not_a_provider_is_refused_when_the_runner_is_built(
    providers: Any, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        Flujo(pipeline(), state_providers=providers)


# The same bytes on a disk -------------------------------------------------------------------------------


async def test_a_flipped_bit_in_a_file_is_found(store: StateStore, tmp_path: Path) -> None:
    files = FileProvider(tmp_path / "blobs")
    tree = pipeline(HumanInTheLoopStep(name="wait", message=Text("?")), *steps(read).steps)
    await run(tree, store, {"files": files}, {"raw": SECRET})
    (file,) = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
    file.write_bytes(bytes([SECRET[0] ^ 1, *SECRET[1:]]))
    async with runner(tree, store, {"files": FileProvider(tmp_path / "blobs")}) as made:
        result = await made.resume_async("run", "go")
        assert result.error is not None
        assert (result.status, result.error.type) == (RunStatus.FAILED, "ReferenceCorrupt")
        file.write_bytes(SECRET)
        assert (await made.resume_async("run", retry_failed=True)).output == len(SECRET)
