"""A full inbox: it is paged and filtered, and many questions are answered together with the keyboard alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus, Write
from flujo.testing.store_suite import move, new_run
from serve.asked import approval, question
from serve.browser.conftest import Site, opened, site_of, tab_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from flujo.domain.run import Pause

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOTE = {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}}}
MIXED = (
    *((f"call-{number}", approval()) for number in range(40)),
    *((f"colour-{number}", question({"type": "string"}, "Which colour?")) for number in range(30)),
    *((f"note-{number}", question(NOTE, "What do we write?")) for number in range(30)),
)
"""A run and its question; those with the same form are neighbours in the inbox."""
ROWS = "a.question"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site_of(tmp_path_factory.mktemp("site")) as site:
        yield site


async def _ask(site: Site, run_id: str, pipeline: str, *pauses: Pause) -> None:
    run = await site.store.accept(new_run(run_id, pipeline=pipeline), {})
    await site.store.write(Write(run_id=run.run_id, fence=run.fence, pauses=pauses))
    await site.store.write(move(run, RunStatus.PAUSED))


async def test_a_thousand_questions_are_paged_and_found(chromium: Browser, site: Site) -> None:
    for run in range(20):
        pauses = [
            replace(question(message=f"Which of {number}?"), pause_id=StepPath(f"ask_{number:04}"))
            for number in range(50 * run, 50 * run + 50)
        ]
        await _ask(site, f"many-{run}", "many", *pauses)
    async with opened(chromium, site.url) as watched:
        page = watched.page
        await page.goto("/?blueprint=many")
        assert await page.locator(ROWS).first.inner_text() == "Which of 0?"
        seen = await page.locator(ROWS).all_inner_texts()
        for _ in range(2):
            await page.get_by_role("link", name="Next page").click()
            await page.wait_for_load_state()
            seen += await page.locator(ROWS).all_inner_texts()
        assert seen == [f"Which of {number}?" for number in range(150)]
        await page.get_by_label("Words").fill("987")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="Which of 987?").wait_for()
        assert await page.locator(ROWS).count() == 1
        assert await page.get_by_label("Blueprint").input_value() == "many"


async def test_a_hundred_mixed_questions_are_answered_with_the_keyboard(
    chromium: Browser, site: Site
) -> None:
    for run_id, pause in MIXED:
        await _ask(site, run_id, "mixed", pause)
    async with opened(chromium, site.url) as watched:
        page = watched.page
        for _ in range(len(MIXED)):
            await page.goto("/?blueprint=mixed")
            left = await page.locator(ROWS).count()
            if left == 0:
                break
            for _ in range(left):
                await page.keyboard.press("j")
                await page.keyboard.press("x")
            assert await page.locator("input[name=q]:checked").count() == left
            await _press(page, "form[action$='/batch'] button")
            if await page.get_by_text("These questions have different forms").count():
                await _press(page, "a[href*='/batch?q=']")
            await _answer_together(page)
    for run_id, _ in MIXED:
        [pause] = await site.store.pauses(RunId(run_id))
        answer = json.loads(pause.answer or b"null")
        kind = run_id.partition("-")[0]
        wanted = {"call": True, "colour": "blue", "note": {"note": "blue"}}[kind]
        assert (answer["approved"] if kind == "call" else answer) == wanted, run_id


async def _answer_together(page: Page) -> None:
    """Approve calls, or write into the field of other questions, and record it for all of them."""
    if await page.get_by_role("button", name="Look at the approvals").count() == 0:
        await tab_to(page, "form.answer textarea, form.answer input")
        await page.keyboard.type("blue")
    await _press(page, "form.answer button.main")
    await page.get_by_role("heading", name="The answer").wait_for()
    await _press(page, "button.main")
    await page.get_by_text("None of these questions is open now").wait_for()


async def _press(page: Page, wanted: str) -> None:
    """Go to a link or a button with Tab, press it, and wait for the next page."""
    await tab_to(page, wanted)
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
