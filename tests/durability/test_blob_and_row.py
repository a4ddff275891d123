"""`kill -9` around a reference: before its blob, between blob and row, and after both."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import warm
from flujo import ContextReference, FileProvider, Flujo, PipelineContext
from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.state.store import SqlStateStore
from support import call, pipeline

MOMENTS = ("before the blob", "between blob and row", "behind the row")
TEXT = "what the step writes"


class Doc(PipelineContext):
    raw: ContextReference[str]
    text: ContextReference[str] | None = None


class Deadly(FileProvider):
    """A blob folder whose process dies at a given moment of the write."""

    def __init__(self, folder: Path, moment: str) -> None:
        super().__init__(folder)
        self.moment = moment

    async def put(self, key: str, data: bytes) -> None:
        mine = data == TEXT.encode()
        if mine and self.moment == MOMENTS[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().put(key, data)
        if mine and self.moment == MOMENTS[1]:
            os.kill(os.getpid(), signal.SIGKILL)


def tree(moment: str) -> Any:
    async def write(context: Doc) -> None:
        context.text = await ContextReference.of(TEXT)

    async def read(context: Doc) -> str:
        if moment == MOMENTS[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        assert context.text is not None
        return await context.raw.get() + await context.text.get()

    return pipeline(
        call("write", CallableRef("doc:write", write)), call("read", CallableRef("doc:read", read))
    )


async def run(uri: str, folder: Path, moment: str) -> Any:
    """Start the run, or resume it when it exists."""
    store = SqlStateStore(uri)
    try:
        async with Flujo[Any, Any, Doc](
            tree(moment),
            context_model=Doc,
            store=store,
            state_providers={"files": Deadly(folder, moment)},
        ) as runner:
            return await runner.run_result_async(
                None, run_id="run", initial_context_data={"raw": "given "}, if_exists="resume"
            )
    finally:
        await store.aclose()


CHILD = """
import asyncio, importlib.util, sys
from pathlib import Path
found = importlib.util.spec_from_file_location("test_blob_and_row", sys.argv[1])
module = importlib.util.module_from_spec(found)
sys.modules["test_blob_and_row"] = module
found.loader.exec_module(module)
asyncio.run(module.run(sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
"""


@pytest.mark.guarantee("G24")
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_committed_reference_always_has_its_blob(store_uri: str, tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "blobs"
    command = [sys.executable, "-c", CHILD, __file__, store_uri, str(folder), moment]
    search = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    died = warm.run(command, env={**os.environ, "PYTHONPATH": search}, check=False)
    assert died.returncode == -signal.SIGKILL
    store = SqlStateStore(store_uri)
    entries = await store.entries(RunId("run"))
    assert (await store.run(RunId("run"))).status is RunStatus.RUNNING
    await store.aclose()
    stored = FileProvider(folder)._path(f"sha256/{canonical.digest(TEXT.encode())}").exists()
    written = [entry.path for entry in entries if entry.kind is EntryKind.WORK]
    assert (stored, written) == (moment != MOMENTS[0], ["write"] if moment == MOMENTS[2] else [])

    result = await run(store_uri, folder, "never")
    assert result.output == f"given {TEXT}"
    assert sorted(blob.read_text() for blob in (folder / "sha256").iterdir()) == sorted(["given ", TEXT])
