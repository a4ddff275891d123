"""The list of open questions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.domain.run import PauseKind, Write
from flujo.testing.store_suite import new_run
from serve.asked import call, opened, question

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace


def runs(page: str) -> list[str]:
    return re.findall(r'name="q" value="([^":]*):', page)


def test_questions_come_by_urgency_and_are_filtered_by_the_url(
    browser: TestClient, workspace: Workspace
) -> None:
    opened(browser, workspace, "old", question(message="Old <b>?</b>"), metadata={"team": "north"})
    opened(browser, workspace, "soon", question(deadline_s=90.0), pipeline="mail", user_id="ann")
    opened(browser, workspace, "new", question(), metadata={"floor": 3})
    shown = browser.get("/").text
    assert runs(shown) == ["soon", "old", "new"]
    assert "Old &lt;b&gt;?&lt;/b&gt;" in shown
    assert 'href="/questions/soon/ask"' in shown
    assert "the longest open. Sort by <a" in shown
    for filters, expected in {
        "words=old": ["old"],
        "blueprint=mail": ["soon"],
        "user_id=ann": ["soon"],
        "kind=doubt": [],
        "meta=team%3Dnorth": ["old"],
        "meta=floor%3D3": ["new"],
        "claim=none": ["soon", "old", "new"],
        "claim=mine": [],
    }.items():
        page = browser.get(f"/?{filters}").text
        assert runs(page) == expected, filters
        assert "Clear</a>" in page
    assert "No open question matches" in browser.get("/?words=nothing").text
    wrong = browser.get("/?meta=team")
    assert (wrong.status_code, "key=value" in wrong.text) == (400, True)


def test_a_long_list_has_pages(browser: TestClient, workspace: Workspace) -> None:
    async def many() -> None:
        store = await workspace.store()
        for number in range(51):
            run = await store.accept(new_run(f"run-{number:02}"), {})
            await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(question(),)))

    call(browser, many)
    first = browser.get("/?blueprint=triage").text
    following = re.search(r'rel="next" href="([^"]*)"', first)
    assert following is not None
    assert len(runs(first)) == 50
    assert runs(browser.get(following[1].replace("&amp;", "&")).text) == ["run-50"]


def test_questions_are_sorted_by_risk_as_the_url_asks(browser: TestClient, workspace: Workspace) -> None:
    opened(browser, workspace, "soon", question(deadline_s=90.0))
    opened(browser, workspace, "spends", question(kind=PauseKind.LIMIT))
    opened(browser, workspace, "pays", question(kind=PauseKind.DOUBT))
    assert runs(browser.get("/").text) == ["soon", "spends", "pays"]
    shown = browser.get("/?blueprint=triage").text
    by_risk = re.search(r'href="(/\?[^"]*sort=risk)"', shown)
    assert by_risk is not None
    page = browser.get(by_risk[1].replace("&amp;", "&")).text
    assert runs(page) == ["pays", "spends", "soon"]
    assert re.findall(r'data-name="Risk">(\w+)<', page) == ["high", "medium", "low"]
    assert 'value="triage"' in page
    other = browser.get("/?sort=risk&after=urgency:1:0:1.0:1.0:a:b")
    assert (other.status_code, "list by risk" in other.text) == (400, True)
    assert browser.get("/?sort=size").status_code == 400
