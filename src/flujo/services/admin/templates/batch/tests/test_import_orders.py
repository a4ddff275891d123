"""Bad lines are reported, and an interrupted import continues where it was."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flujo.testing import scripted_runner

PROJECT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store into a folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bad_lines_are_reported_and_the_others_are_stored(folder: Path) -> None:
    async def run() -> Any:
        async with scripted_runner("import_orders", project=PROJECT) as runner:
            return await runner.run_result_async(str(PROJECT / "data/orders.jsonl"))

    assert asyncio.run(run()).output == {"failed": 2, "lines": [3, 5]}
    assert sorted(file.stem for file in (folder / "stored").iterdir()) == [
        "A-1001",
        "A-1002",
        "A-1004",
        "A-1006",
    ]


def test_a_stopped_import_continues(folder: Path) -> None:
    orders = folder / "orders.jsonl"
    orders.write_text("".join(json.dumps({"id": f"B-{n}", "amount": 1}) + "\n" for n in range(40)))

    async def run() -> Any:
        async with scripted_runner("import_orders", project=PROJECT) as runner:
            importing = asyncio.create_task(runner.run_result_async(str(orders), run_id="import"))
            while not (importing.done() or (folder / "stored").exists()):
                await asyncio.sleep(0)
            importing.cancel()  # as Ctrl-C or a deploy does
            await asyncio.gather(importing, return_exceptions=True)
            return await runner.resume_async("import")

    assert asyncio.run(run()).output["failed"] == 0
    assert len(list((folder / "stored").iterdir())) == 40
