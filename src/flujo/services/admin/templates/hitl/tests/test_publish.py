"""The question and its three ends: yes, a better text, no answer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flujo.testing import TestClock, scripted_runner

PROJECT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publish into a folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answered(answer: Any) -> Any:
    """Run the blueprint to its question, and return the result after the answer."""

    async def run() -> Any:
        async with scripted_runner("publish", project=PROJECT) as runner:
            waiting = await runner.run_result_async("we open on Monday")
            assert waiting.status == "paused"
            assert waiting.pauses[0].message == "Publish this?\n\nDear customers, we open on Monday"
            return await runner.resume_async(waiting.run_id, answer)

    return asyncio.run(run())


def test_a_yes_publishes_the_draft(folder: Path) -> None:
    assert answered({"ok": True}).output == {"published": True}
    assert (folder / "published.txt").read_text() == "Dear customers, we open on Monday\n"


def test_a_human_can_change_the_text(folder: Path) -> None:
    answered({"ok": True, "text": "We open on Tuesday"})
    assert (folder / "published.txt").read_text() == "We open on Tuesday\n"


def test_without_an_answer_nothing_is_published(folder: Path) -> None:
    async def run() -> Any:
        clock = TestClock()
        async with scripted_runner("publish", project=PROJECT, clock=clock) as runner:
            waiting = await runner.run_result_async("we open on Monday")
            await clock.advance(hours=72)
            return await runner.resume_async(waiting.run_id)

    assert asyncio.run(run()).output == {"published": False}
    assert not (folder / "published.txt").exists()
