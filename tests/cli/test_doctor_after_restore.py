"""`flujo doctor --after-restore` lists and marks the runs that had not ended at the backup."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.conftest import Flujo


def test_unfinished_runs_are_listed_then_marked_once(flujo: Flujo) -> None:
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "ended").exit_code == 0
    assert flujo("run", "ask", "--run-id", "waits", "--paused-ok").exit_code == 0
    listed = flujo("doctor", "--after-restore", "--dry-run")
    assert "waits" in listed.stdout
    assert "ended" not in listed.stdout
    assert "1 run would be marked; nothing was changed" in listed.output
    told = json.loads(flujo("doctor", "--after-restore", "--by", "ann", "--json").stdout)
    assert told["runs"] == [{"run_id": "waits", "pipeline": "ask", "status": "paused", "state": "marked"}]
    assert "0 runs marked" in flujo("doctor", "--after-restore").output
    [act] = json.loads(flujo("tasks", "show", "waits", "--json").stdout)["acts"]
    assert (act["by"], act["verb"]) == ("ann", "after_restore")


def test_a_dry_run_belongs_to_the_marking(flujo: Flujo) -> None:
    assert flujo("doctor", "--dry-run").exit_code == 2
