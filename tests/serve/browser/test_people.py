"""Two people at the same question, and a person whose session ends while they write."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus, Write
from flujo.services.access import sessions
from flujo.settings_serve import ServeTable, UserTable
from flujo.testing.store_suite import move, new_run
from serve.asked import question
from serve.browser.conftest import Site, Watched, opened, site_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from flujo.domain.run import Pause

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "analytical"
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
SETTINGS = ServeTable(
    users={name: UserTable(role="answerer", password_hash=HASH) for name in ("ada", "bob")},
    changes_per_minute=1000,
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site_of(tmp_path_factory.mktemp("site"), SETTINGS) as site:
        yield site


async def _ask(site: Site, run_id: str) -> None:
    run = await site.store.accept(new_run(run_id), {})
    pause = question({"type": "string"}, f"Which {run_id}?")
    await site.store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,)))
    await site.store.write(move(run, RunStatus.PAUSED))


async def _asked(site: Site, run_id: str) -> Pause:
    [pause] = await site.store.pauses(RunId(run_id))
    return pause


async def _session(site: Site, name: str) -> str:
    """Begin a session, and return the secret of its cookie."""
    secret, _ = await sessions.begin(site.store, name, HASH, lives_s=3600.0, address="127.0.0.1")
    return secret


@asynccontextmanager
async def _browser_of(chromium: Browser, site: Site, secret: str) -> AsyncIterator[Watched]:
    cookie = {"name": "flujo_session", "value": secret, "url": site.url}
    async with opened(chromium, site.url) as watched:
        await watched.page.context.add_cookies([cookie])  # type: ignore[list-item]
        yield watched


async def test_of_two_people_the_first_answer_counts_and_the_late_one_sees_it(
    chromium: Browser, site: Site
) -> None:
    await _ask(site, "shared")
    secrets = await _session(site, "ada"), await _session(site, "bob")
    async with (
        _browser_of(chromium, site, secrets[0]) as adas,
        _browser_of(chromium, site, secrets[1]) as bobs,
    ):
        ada, bob = adas.page, bobs.page
        await ada.goto("/questions/shared/ask")
        await bob.goto("/questions/shared/ask")
        await ada.get_by_role("button", name="Claim for 15 minutes").click()
        await ada.get_by_text("You have claimed this question").wait_for()

        # Bob's page is older than the claim: his answer waits for his confirmation, and what he wrote stays.
        field = bob.locator("form.answer textarea")
        await field.fill("red")
        await bob.get_by_role("button", name="Answer", exact=True).click()
        assert "ada has claimed this question" in await bob.get_by_role("alert").inner_text()
        assert await field.input_value() == "red"
        assert (await _asked(site, "shared")).needs_answer

        await ada.locator("form.answer textarea").fill("blue")
        await ada.get_by_role("button", name="Answer", exact=True).click()
        await ada.get_by_text("You answered").wait_for()
        await bob.get_by_label("answer nevertheless").check()
        await bob.get_by_role("button", name="Answer", exact=True).click()
        assert "Nothing was recorded" in await bob.get_by_role("alert").inner_text()
        told = await bob.get_by_role("region", name="Answer").inner_text()
        assert "ada answered" in told
        assert '"blue"' in told
    answered = await _asked(site, "shared")
    assert (json.loads(answered.answer or b"null"), answered.by) == ("blue", "ada")


async def test_the_inbox_says_who_has_claimed_a_question(chromium: Browser, site: Site) -> None:
    await _ask(site, "claimed")
    await site.store.claim_question(RunId("claimed"), question().pause_id, "bob", take=False)
    async with _browser_of(chromium, site, await _session(site, "ada")) as watched:
        page = watched.page
        await page.goto("/?words=claimed")
        assert await page.locator("td[data-name=Claim]").inner_text() == "bob"
        await page.goto("/?words=claimed&claim=none")
        await page.get_by_text("No open question matches these filters").wait_for()


async def test_a_text_outlives_the_end_of_its_session(chromium: Browser, site: Site) -> None:
    await _ask(site, "slow")
    secret = await _session(site, "ada")
    async with _browser_of(chromium, site, secret) as watched:
        page = watched.page
        await page.goto("/questions/slow/ask")
        await page.locator("form.answer textarea").fill("a <b>long</b> answer")
        await sessions.end(site.store, secret)
        await page.get_by_role("button", name="Answer", exact=True).click()
        await page.get_by_role("heading", name="Your login has ended").wait_for()
        assert (await _asked(site, "slow")).needs_answer
        written = await page.locator("dd pre").inner_text()
        assert written == "a <b>long</b> answer"
        async with page.expect_popup() as beside:
            await page.get_by_role("link", name="Log in in another tab").click()
        other = await beside.value
        await other.get_by_label("Name").fill("ada")
        await other.get_by_label("Password").fill(PASSWORD)
        await other.get_by_role("button", name="Log in").click()
        await other.wait_for_url("**/questions/slow/ask")
        await other.locator("form.answer textarea").fill(written)
        await other.get_by_role("button", name="Answer", exact=True).click()
        await other.get_by_text("You answered").wait_for()
    assert json.loads((await _asked(site, "slow")).answer or b"null") == written
