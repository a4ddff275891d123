"""`flujo stats`: the table, the bars, JSON, and a project without a database."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from flujo.domain.evaluations import Evaluation
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.usage import Usage
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    import pytest

    from cli.conftest import Flujo, Project


async def _fill(uri: str) -> None:
    store = await SqlStateStore.open(uri)
    for number in range(8):
        run = await store.accept(new_run(f"r{number}", pipeline=f"p{number % 7}"), {})
        used = Usage(input_tokens=1000, requests=1, cost_micro_usd=(number + 1) * 100_000)
        status = RunStatus.FAILED if number == 1 else RunStatus.COMPLETED
        await store.write(move(run, status, usage=used))
    await store.add_evaluations(
        [
            Evaluation(
                key="k", run_id=RunId("r1"), pipeline="p1", closure="c", evaluator="polite", by="x", score=0.5
            )
        ]
    )
    await store.aclose()


def test_the_figures_are_shown_as_a_table_as_bars_and_as_json(
    flujo: Flujo, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(_fill(sqlite_uri))
    monkeypatch.setenv("FLUJO_STATE_URI", sqlite_uri)
    table = flujo("stats")
    rows = table.stdout.splitlines()
    assert rows[0].split() == ["BLUEPRINT", "RUNS", "FAILED", "COST", "TOKENS", "P50", "P95"]
    assert rows[1].split()[:4] == ["p0", "2", "$0.9000", "2,000"]
    assert re.search(r"^p1 +1 +1 +\$0\.2000", table.stdout, re.MULTILINE)
    assert re.search(r"^p1 +polite +0\.50", table.stdout, re.MULTILINE)
    plotted = flujo("stats", "--plot", "--since", "2h")
    assert plotted.stdout.count("█" * 32) == 1
    assert "the 5 with the highest cost; 2 more without --plot" in plotted.stderr
    data = json.loads(flujo("stats", "--json").stdout)
    assert [each["name"] for each in data["totals"]][:2] == ["p0", "p6"]
    assert sum(each["count"] for each in data["periods"]) == 8
    assert json.loads(flujo("stats", "--by", "model", "--json=totals").stdout) == {"totals": []}


def test_without_a_database_there_are_no_figures(flujo: Flujo, project: Project) -> None:
    said = flujo("stats")
    assert said.exit_code == 0
    assert "no run started in this time" in said.stderr
    assert json.loads(flujo("stats", "--json").stdout)["totals"] == []
    assert not (project.root / ".flujo/state.db").exists()


def test_a_wrong_option_says_what_to_write(flujo: Flujo, project: Project) -> None:
    for words, hint in (
        (("--since", "9"), "write 2h or 30d"),
        (("--every", "week"), "'hour'"),
        (("--since", "50d", "--every", "hour"), "1000 at most"),
    ):
        refused = flujo("stats", *words)
        assert refused.exit_code == 2
        assert hint in refused.stderr
