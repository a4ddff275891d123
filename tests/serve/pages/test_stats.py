"""The figures: charts from the server, the same as tables and as CSV, by what the address says."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from flujo.domain.evaluations import Evaluation
from flujo.domain.journal import RunId
from flujo.domain.queues import Queued
from flujo.domain.run import RunStatus
from flujo.domain.usage import Usage
from flujo.testing.store_suite import move, new_run
from serve.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "=<svg onload=alert(1)>"


async def _fill(store: Any) -> None:
    for number in range(9):
        name = HOSTILE if number == 8 else f"p{number}"
        run = await store.accept(new_run(f"r{number}", pipeline=name), {})
        used = Usage(input_tokens=1000, requests=1, cost_micro_usd=(number + 1) * 100_000)
        await store.write(move(run, RunStatus.FAILED if number == 1 else RunStatus.COMPLETED, usage=used))
    await store.accept(new_run("waits", queued=Queued(queue="mail")), {}, claim=False)
    fields: dict[str, Any] = {"pipeline": "p1", "closure": "c", "evaluator": "polite", "by": "x"}
    await store.add_evaluations(
        [Evaluation(key=f"{each}", run_id=RunId("r1"), score=each, **fields) for each in (0.4, 0.6)]
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("stats")) as browser:
        browser.here(_fill, browser.here(browser.workspace.store))
        yield browser


def drawings(shown: str) -> dict[str, ET.Element]:
    """Return the charts of a page, by the beginning of their text; each is well-formed XML."""
    found = [ET.fromstring(each) for each in re.findall(r"<svg.*?</svg>", shown, re.DOTALL)]
    return {re.split(r" from |: ", each.attrib["aria-label"])[0]: each for each in found}


def test_each_figure_has_a_chart_with_its_values_in_words_and_a_table(filled: Served) -> None:
    shown = filled.get("/stats").text
    charts = drawings(shown)
    assert list(charts) == [
        "Cost",
        "Tokens",
        "Runs by status",
        "Median duration",
        "95th percentile of the duration",
        "Depth of the queues now",
        "Mean scores",
    ]
    assert "p7 at most $0.8000" in charts["Cost"].attrib["aria-label"]
    assert len(charts["Cost"].findall("g")) == 6
    assert "mail: 1" in charts["Depth of the queues now"].attrib["aria-label"]
    assert "p1 polite: 0.50" in charts["Mean scores"].attrib["aria-label"]
    assert shown.count('role="region"') == len(charts) + 1
    assert "The charts show the 6 with the highest cost" in shown
    assert "<svg onload" not in shown


def test_the_charts_stay_inside_their_frames(filled: Served) -> None:
    for chart in drawings(filled.get("/stats?since=24h").text).values():
        _, _, width, height = map(float, chart.attrib["viewBox"].split())
        for circle in chart.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height
        for box in chart.iter("rect"):
            assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
            assert float(box.attrib["height"]) >= 0


def test_the_address_has_the_filters(filled: Served) -> None:
    shown = filled.get("/stats?blueprint=p1&since=30d&every=day&by=blueprint").text
    assert next(iter(drawings(shown))) == "Cost"
    assert 'value="p1"' in shown
    assert "<option selected>day</option>" in shown
    assert "p7" not in shown
    assert "No run started in this time" in filled.get("/stats?blueprint=none&by=&every=").text
    assert "Model calls by status" in filled.get("/stats?by=model").text


def test_the_tables_are_there_as_csv_without_formulas(filled: Served) -> None:
    answer = filled.get("/stats.csv?table=totals")
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="flujo-totals.csv"' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["name"] for row in rows][:2] == [f"'{HOSTILE}", "p7"]
    assert (rows[1]["cost_usd"], rows[1]["completed"], rows[1]["failed"]) == ("0.8", "1", "0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00Z", rows[0]["at"])
    periods = list(csv.DictReader(filled.get("/stats.csv").text.splitlines()))
    assert sum(int(row["count"]) for row in periods) == 10
    assert filled.get("/stats.csv?table=queues").text.splitlines()[1].startswith("mail,1,")
    assert filled.get("/stats.csv?table=scores").text.splitlines()[1].startswith("p1,polite,2,0.5,")
    assert filled.get("/stats.csv?table=periods&blueprint=none").text == ""


@pytest.mark.parametrize("query", ["by=colour", "since=soon", "every=week", "since=999d&every=hour"])
def test_a_wrong_filter_is_an_error_page_with_a_hint(filled: Served, query: str) -> None:
    for path in ("/stats", "/stats.csv"):
        answer = filled.get(f"{path}?{query}")
        assert answer.status_code == 400
        assert "<h1>" in answer.text
        assert "<p>" in answer.text


def test_an_unknown_table_is_refused(filled: Served) -> None:
    assert filled.get("/stats.csv?table=runs").status_code == 400
