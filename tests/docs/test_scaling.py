"""The model of docs/scaling.md: its laws, a simulation beside it, and the numbers of the page."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> ModuleType:
    """The module `bench/sizing_model.py`."""
    spec = importlib.util.spec_from_file_location("sizing_model", ROOT / "bench" / "sizing_model.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["sizing_model"] = made  # its dataclasses look for it
    spec.loader.exec_module(made)
    return made


def test_the_load_grows_with_runs_and_steps_and_has_no_more_commits_than_steps(model: Any) -> None:
    given = model.Deployment(1_000, 4, 100)
    base = model.load(given)
    more_runs = model.load(replace(given, runs=2_000))
    assert (more_runs.leases_s, more_runs.renewal_cores) == (2 * base.leases_s, 2 * base.renewal_cores)
    assert more_runs.commits_s == base.commits_s, "only steps commit"
    more_steps = model.load(replace(given, steps_s=200))
    assert (more_steps.step_cores, more_steps.claim_cores) == (2 * base.step_cores, 2 * base.claim_cores)
    assert base.commits_s < more_steps.commits_s < 2 * base.commits_s, "steps share commits"
    assert model.load(replace(given, processes=40)).commits_s > base.commits_s, "and not with other processes"
    slow = model.load(given, model.Constants(commit_s=1.0))
    assert slow.commits_s == pytest.approx(given.processes), "a writer commits once a second"


@pytest.mark.parametrize(("runs", "processes", "steps_s"), [(500, 1, 400), (2_000, 20, 300)])
def test_the_simulation_needs_what_the_model_says(
    model: Any, runs: int, processes: int, steps_s: float
) -> None:
    given = model.Deployment(runs, processes, steps_s, cores=8)
    known = model.Constants(commit_s=0.02)
    found, said = model.Simulation(given, known).run(30.0), model.load(given, known)
    assert found.steps_s == pytest.approx(steps_s, rel=0.05)
    assert astuple(found.load) == pytest.approx(astuple(said), rel=0.07)
    together = model.Simulation(given, known, together=True).run(0.5)
    assert together.slowest_renewal_s >= model.slowest_renewal_s(given, known)


def test_a_server_that_is_too_small_does_what_its_cores_can(model: Any) -> None:
    given = model.Deployment(2_000, 20, 1_000, cores=1)
    known = model.Constants(claim_s=0.01)
    assert model.load(given, known).cores > 3
    found = model.Simulation(given, known).run(20.0)
    assert found.load.cores <= 1.0001
    assert found.steps_s < given.steps_s / 2


def test_the_page_has_the_numbers_of_the_model(model: Any) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    given = model.Deployment(1_000, 4, 100)
    found = model.load(given)
    rows = {
        "commits a second": f"{found.commits_s:.0f}",
        "leases renewed a second": f"{found.leases_s:.0f} rows",
        "CPU of renewals": f"{found.renewal_cores:.1%} of a core".replace("%", " %"),
        "CPU of claims": f"{found.claim_cores:.1%} of a core".replace("%", " %"),
        "connections": str(model.CONNECTIONS * given.processes),
        "disk": f"{model.disk_bytes(given) / 1e9:.0f} GB",
        "entries a day to purge": f"{model.entries_of_a_day(given) / 1e6:.1f} million",
    }
    for name, value in rows.items():
        [row] = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert value in row.split("|")[3], row
