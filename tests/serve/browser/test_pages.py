"""Every page in a real browser: it runs no foreign script, is accessible, fits a phone, and works without scripts.

The pages are those of the table of endpoints, so that a new page is tested as well.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe

from flujo.domain import canonical
from flujo.domain.evaluations import Evaluation
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.queues import Queued
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, HumanInTheLoopStep
from flujo.domain.usage import Usage
from flujo.serve.routes import ENDPOINTS
from flujo.testing.store_suite import entry, move, new_run, writes
from serve.browser.conftest import Site, opened, site_of
from serve.browser.corpus import CORPUS
from support import call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALL = "\n".join(CORPUS)
NOT_PAGES = ("/healthz", "/readyz", ".csv", "/live", "/export")
"""The ends of paths whose answers are for programs."""


def fails(_: Any) -> Any:
    raise ValueError(ALL)


def returns(_: Any) -> Any:
    return {"texts": list(CORPUS), CORPUS[1]: CORPUS[2]}


async def _fill(site: Site) -> None:
    """Put the corpus into every field of runs that a page shows."""
    store, hostile = site.store, CORPUS[1]
    asks = pipeline(
        call("work", CallableRef.of(returns)), HumanInTheLoopStep("ask", message="{{ input }}"), name="asks"
    )
    metadata = {"texts": list(CORPUS)}
    who = {"user_id": hostile}
    user = {"context_schema": {"properties": {"user_id": {"type": "string"}}}}
    await start(asks, store, ALL, run_id="asked", metadata=metadata)
    await start(
        pipeline(call("work", CallableRef.of(fails)), name="fails", **user),
        store,
        run_id="failed",
        initial_context_data=who,
    )
    run = await store.accept(new_run("named", pipeline=hostile, user_id=hostile, metadata=metadata), {})
    used = Usage(input_tokens=1000, output_tokens=10, requests=1, cost_micro_usd=100_000)
    detail = canonical.encode({"agent": hostile, "model": CORPUS[2]})
    asked = entry(1, kind=EntryKind.WORK, usage=used, detail=detail, fingerprint="step", ended_at=2.0)
    await store.write(writes(run, asked))
    await store.write(move(run, RunStatus.COMPLETED, usage=used))
    await store.accept(new_run("queued", queued=Queued(queue=hostile)), {}, claim=False)
    fields: dict[str, Any] = {"pipeline": hostile, "closure": "c", "evaluator": hostile, "by": hostile}
    score = Evaluation(key="k", run_id=RunId("named"), score=0.5, reason=ALL, **fields)
    await store.add_evaluations([score])


GREET = f"""\
version: "1"
name: greet
description: {json.dumps(CORPUS[1])}
input_schema: {{type: object, properties: {{name: {{type: string, description: {json.dumps(CORPUS[1])}}}}}}}
steps:
  - {{kind: hitl, name: ask, message: "Well?"}}
"""
RUNS = ("asked", "failed")
"""The runs whose pages are opened."""


def addresses() -> list[str]:
    """Return the address of every page; that of a run is there for each of `RUNS`."""
    found: list[str] = []
    for each in ENDPOINTS:
        if each.method != "GET" or each.is_api or each.path.endswith(NOT_PAGES):
            continue
        runs = RUNS if each.path == "/runs/{run_id}" else RUNS[:1]
        for run in runs:
            values = {"run_id": quote(run), "pause_id": "ask", "blueprint": "greet"}
            found.append(re.sub(r"{(\w+):path}", r"{\1}", each.path).format_map(values))
    return [*found, "/stats?by=model", "/runs?user_id=" + quote(CORPUS[3]), "/nothing"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    (root / "blueprints").mkdir()
    (root / "blueprints/greet.yaml").write_text(GREET)
    async with site_of(root) as site:
        await _fill(site)
        yield site


_WIDER = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [
  document.documentElement.scrollWidth,
  ...[...document.querySelectorAll("body *")]
    .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth)
    .map((each) => each.outerHTML.slice(0, 120))]"""
"""The width of a page that is wider than its window, and the elements whose content does not fit."""


def _said(response: Any) -> str:
    violations = response["violations"]
    return "\n".join(
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in violations
    )


async def test_no_page_runs_a_foreign_script_or_is_hard_to_use(chromium: Browser, site: Site) -> None:
    wrong: dict[str, str] = {}
    # A colour that is still changing is neither that of the one scheme nor that of the other.
    async with opened(chromium, site.url, reduced_motion="reduce") as watched:
        page = watched.page
        for address in addresses():
            response = await page.goto(address)
            assert response is not None
            assert response.status < 500, address
            assert (await page.title()).endswith("Flujo"), address
            if said := _said((await Axe().run(page)).response):
                wrong[address] = said
            await page.emulate_media(color_scheme="dark")
            contrast = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
            if said := _said((await Axe().run(page, options=contrast)).response):
                wrong[f"{address} (dark)"] = said
            await page.emulate_media(color_scheme="light")
    assert wrong == {}


async def test_the_corpus_is_on_the_pages_as_text(chromium: Browser, site: Site) -> None:
    async with opened(chromium, site.url) as watched:
        for address in ("/runs/asked", "/runs/failed", "/runs", "/stats"):
            await watched.page.goto(address)
            assert CORPUS[1] in (await watched.page.text_content("body") or ""), address


async def test_every_page_fits_a_phone_and_is_there_without_scripts(chromium: Browser, site: Site) -> None:
    options: dict[str, Any] = {"viewport": {"width": 320, "height": 640}, "java_script_enabled": False}
    async with opened(chromium, site.url, **options) as watched:
        for address in addresses():
            await watched.page.goto(address)
            assert await watched.page.locator("h1").count() == 1, address
            assert await watched.page.evaluate(_WIDER) == [], address
