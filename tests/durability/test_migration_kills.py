"""`kill -9` at every statement of a migration: no partial migration remains, and the next one completes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import warm

if TYPE_CHECKING:
    from durability.conftest import Evidence

HERE = Path(__file__).parent
EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0")) or 59
"""Kill at each n-th statement; `make soak` takes every one."""


@pytest.mark.guarantee("G23")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("uri", ["empty_sqlite_uri", "empty_postgres_uri"])
def test_a_migration_killed_at_any_statement_is_completed_by_the_next_one(
    uri: str, request: pytest.FixtureRequest, tmp_path: Path, evidence: Evidence
) -> None:
    words = [str(request.getfixturevalue(uri)), str(tmp_path), "--every", str(EVERY)]
    done = warm.run(
        [sys.executable, str(HERE / "crash_migration.py"), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    evidence.add(faults=report["kills"], violations=report["violations"])
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // EVERY > 0
