"""The page of a run changes with it, also after its server was killed and started again."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import entry, move, new_run, writes
from serve.browser.conftest import opened, site_of
from serve.server_process import server_process
from support import call, pipeline, start

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_live_page_continues_after_its_server_was_killed(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    async with aclosing(await SqlStateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        run = await store.accept(new_run("followed"), {})
        await store.write(writes(run, entry(1, "before")))
        with ExitStack() as servers:
            first, port = await asyncio.to_thread(servers.enter_context, server_process(tmp_path))
            async with opened(chromium, f"http://127.0.0.1:{port}") as watched:
                page = watched.page
                await page.goto("/runs/followed")
                await page.locator("#log", has_text="before").wait_for()
                first.kill()
                await asyncio.to_thread(first.wait, 60)
                await store.write(writes(run, entry(2, "meanwhile")))
                await asyncio.to_thread(servers.enter_context, server_process(tmp_path, port))
                await page.locator("#log", has_text="meanwhile").wait_for()
                await store.write(move(run, RunStatus.COMPLETED))
                await page.locator("#status", has_text="completed").wait_for()
                assert await page.locator("#log li", has_text="before").count() == 1
                watched.faults[:] = [each for each in watched.faults if "ERR_" not in each]  # it was away


BEGAN, MAY_END = asyncio.Event(), asyncio.Event()


async def quick(_: Any) -> str:
    return "quick result"


async def slow(_: Any) -> str:
    BEGAN.set()
    await MAY_END.wait()
    return "slow result"


async def test_the_tree_of_a_run_grows_while_it_is_executed(chromium: Browser, tmp_path: Path) -> None:
    names = {"first": quick, "second": slow, "third": quick}
    tree = pipeline(*(call(name, CallableRef.of(target)) for name, target in names.items()))
    async with site_of(tmp_path) as site:
        executing = asyncio.create_task(start(tree, site.store, run_id="real"))
        await BEGAN.wait()
        async with opened(chromium, site.url) as watched:
            page = watched.page
            await page.goto("/runs/real")
            steps = page.locator("#run details[data-path]")
            await steps.filter(has_text="first").first.wait_for()
            assert await steps.filter(has_text="third").count() == 0
            await page.evaluate("window.isTheSame = true")
            MAY_END.set()
            await steps.filter(has_text="third").first.wait_for()
            await page.locator("#status", has_text="completed").wait_for()
            assert await page.evaluate("window.isTheSame"), "it was not loaded again"
        await executing
