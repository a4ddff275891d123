"""A question is answered with the mouse, with the keyboard alone, and without scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Move, Pause, RunStatus, Write
from flujo.testing.store_suite import new_run
from serve.browser.conftest import Site, opened, site_of, tab_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIELD = "form.answer textarea, form.answer input:not([type=hidden])"
ANSWER = "form.answer button.main"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site_of(tmp_path_factory.mktemp("site")) as site:
        yield site


async def _ask(site: Site, run_id: str) -> None:
    run = await site.store.accept(new_run(run_id), {})
    pause = Pause(pause_id=StepPath("ask"), message=f"Which {run_id}?", answer_schema=b'{"type":"string"}')
    paused = Move(status=RunStatus.PAUSED)
    await site.store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,), move=paused))


async def _answered(site: Site, run_id: str) -> str:
    [pause] = await site.store.pauses(RunId(run_id))
    assert pause.answer is not None
    return str(json.loads(pause.answer))


@pytest.mark.parametrize("has_scripts", [True, False])
async def test_a_question_is_answered_with_the_mouse(
    chromium: Browser, site: Site, has_scripts: bool
) -> None:
    run_id = f"clicked-{has_scripts}"
    await _ask(site, run_id)
    async with opened(chromium, site.url, java_script_enabled=has_scripts) as watched:
        page = watched.page
        await page.goto("/")
        await page.get_by_role("link", name=f"Which {run_id}?").click()
        await page.locator(FIELD).first.fill("blue")
        await page.locator(ANSWER).click()
        await page.get_by_text("You answered").wait_for()
    assert await _answered(site, run_id) == "blue"


async def test_a_question_is_answered_with_the_keyboard_alone(chromium: Browser, site: Site) -> None:
    await _ask(site, "typed")
    async with opened(chromium, site.url) as watched:
        page = watched.page
        await page.goto("/")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", level=1).wait_for()
        await page.wait_for_url("**/questions/**")
        await tab_to(page, FIELD)
        await page.keyboard.type("green")
        await tab_to(page, ANSWER)
        await page.keyboard.press("Enter")
        await page.get_by_text("You answered").wait_for()
    assert await _answered(site, "typed") == "green"
