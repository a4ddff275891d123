"""`flujo acts`: who did what, over all runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


def test_acts_on_runs_and_on_none_are_listed_by_conditions(flujo: Flujo, project: Project) -> None:
    flujo("tokens", "create", "billing", "--role", "operator", "--by", "ada")
    run_id = json.loads(flujo("run", "ask", "--json", "--paused-ok").stdout)["run_id"]
    flujo("tasks", "resume", run_id, "-f", "ok=true", "--by", "bob")
    answered, issued = json.loads(flujo("acts", "--json").stdout)
    assert (answered["by"], answered["verb"], answered["run_id"]) == ("bob", "answer", run_id)
    assert (issued["by"], issued["verb"], issued["object"], issued["run_id"]) == (
        "ada",
        "issue",
        "billing",
        None,
    )
    for words, verbs in (
        (("--verb", "issue"), ["issue"]),
        (("--by", "bob"), ["answer"]),
        (("--object", "billing"), ["issue"]),
        (("--run", run_id), ["answer"]),
        (("--since", "1h", "--limit", "1"), ["answer"]),
        (("--until", "1h"), []),
    ):
        assert [each["verb"] for each in json.loads(flujo("acts", *words, "--json").stdout)] == verbs, words
    rows = flujo("acts").stdout.splitlines()
    assert [row.split()[2:5] for row in rows[1:]] == [["bob", "cli", "answer"], ["ada", "cli", "issue"]]
    assert "the newest 1 act" in flujo("acts", "--limit", "1").stderr
    assert flujo("acts", "--by", "eve").stderr == "no matching acts\n"
    assert (
        "invalid" in flujo("acts", "--since", "soon").stderr
        or flujo("acts", "--since", "soon").exit_code == 2
    )
