"""What a worker of a Dask cluster does with the batches that it is sent."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.exceptions import CodeDiffers
from flujo.services.executors.dask_worker import PROCESS, abandon, about_worker, execute_batch
from flujo.services.executors.wire import ProjectOnWorker, encoded_unit, output_of
from services.executors.suite import unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """A project with one module; this process is the worker."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "executed_here.py").write_text(
        "import asyncio, pathlib\n"
        "async def waits(file: str) -> None:\n"
        "    pathlib.Path(file).touch()\n"
        "    await asyncio.sleep(600)\n"
        "def double(n: int) -> int:\n"
        "    return 2 * n\n",
        "utf-8",
    )
    yield ProjectOnWorker(
        root=str(tmp_path),
        allow_callables=("executed_here",),
        state_providers={},
        max_result=1000,
        flujo=about_worker()["flujo"],
        log_level=logging.root.level,
    ).encoded()
    sys.modules.pop("executed_here", None)


async def test_a_batch_is_executed_in_order_by_the_process_that_it_was_sent_to(project: bytes) -> None:
    units = [encoded_unit(unit("double", number), None) for number in range(3)]
    answers = await execute_batch(PROCESS, "b1", units, project)
    assert [output_of(each, unit("double"), "there") for each in answers or ()] == [0, 2, 4]
    assert await execute_batch("another process", "b2", units, project) is None


async def test_an_abandoned_batch_stops_or_never_begins(project: bytes, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    units = [encoded_unit(unit("waits", file=str(begun)), None)]
    under_way = asyncio.ensure_future(execute_batch(PROCESS, "b1", units, project))
    while not begun.exists():  # noqa: ASYNC110 - it appears on another event loop
        await asyncio.sleep(0.01)
    await abandon("b1")
    assert await under_way is None
    begun.unlink()
    await abandon("b2")
    assert await execute_batch(PROCESS, "b2", units, project) is None
    assert not begun.exists()


async def test_a_module_that_the_worker_lacks_is_other_code(project: bytes) -> None:
    lacking = canonical.encode({**canonical.decode(project), "allow_callables": ["*", "not_here_at_all"]})
    target = canonical.decode(encoded_unit(unit("double", 1), None)) | {"target": "not_here_at_all:double"}
    (answer,) = await execute_batch(PROCESS, "b1", [canonical.encode(target)], lacking) or [b""]
    with pytest.raises(CodeDiffers, match=r"worker on .* has other code: `not_here_at_all:double`"):
        output_of(answer, unit("double"), "there")
