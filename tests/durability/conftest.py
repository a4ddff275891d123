"""Proofs and their record: which guarantee a test proves, and what it did to try to break it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from durability.world import World
from durability.world import world as started

if TYPE_CHECKING:
    from collections.abc import Iterator


class Evidence:
    """What a proof has done. Its numbers are added up over a run of the suite."""

    def __init__(self) -> None:
        self.faults = 0
        self.seeds = 0
        self.violations: list[str] = []

    def add(self, *, faults: int = 0, seeds: int = 0, violations: list[str] | None = None) -> None:
        """Count faults that were injected (and seen to happen), seeds that were tried, what was found wrong."""
        self.faults += faults
        self.seeds += seeds
        self.violations += violations or []


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """Collect what this test does; `FLUJO_EVIDENCE` names the file that `docs/reliability.py` reads."""
    collected = Evidence()
    yield collected
    target = os.environ.get("FLUJO_EVIDENCE")
    if target is None:
        return
    guarantees = [name for mark in request.node.iter_markers("guarantee") for name in mark.args]
    line: dict[str, Any] = {
        "guarantees": guarantees,
        "test": request.node.nodeid.partition("[")[0],
        "faults": collected.faults,
        "seeds": collected.seeds,
        "violations": collected.violations,
    }
    with Path(target).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[World]:
    """The world outside, in a process of its own."""
    with started(tmp_path) as made:
        yield made
