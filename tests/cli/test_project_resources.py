"""`[project] resources`: what the command line hands to callables is made once, and closed however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

POOL = '''\
"""The project's resources, and steps that use them."""

from contextlib import asynccontextmanager
from pathlib import Path

from flujo import AppResources
from skills.work import note


class Pool(AppResources):
    name: str


@asynccontextmanager
async def make_resources():
    note("opened")
    yield Pool(name="p1")
    note("closed")


def use(resources: Pool) -> str:
    return note(resources.name)


def fail(resources: Pool) -> str:
    raise ValueError("no")
'''

USES = """\
version: "1"
name: uses
steps:
  - {name: one, call: "skills.pool:use"}
  - {name: two, call: "skills.pool:use"}
"""


@pytest.fixture
def pool(project: Project) -> Project:
    (project.root / "skills/pool.py").write_text(POOL, "utf-8")
    project.blueprint("uses", USES)
    names(project, "skills.pool:make_resources")
    return project


def names(project: Project, target: str | None) -> None:
    """Let flujo.toml say who makes the resources."""
    path = project.root / "flujo.toml"
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("resources =")]
    if target is not None:
        lines.insert(lines.index("[project]") + 1, f'resources = "{target}"')
    path.write_text("\n".join(lines), "utf-8")


def test_a_run_gets_them_and_they_are_closed_after_it(flujo: Flujo, pool: Project) -> None:
    result = flujo("run", "uses")
    assert (result.exit_code, result.stdout) == (0, "p1\n")
    assert pool.notes() == ["opened", "p1", "p1", "closed"]


def test_they_are_closed_when_the_run_fails(flujo: Flujo, pool: Project) -> None:
    pool.blueprint("uses", USES.replace('two, call: "skills.pool:use"', 'two, call: "skills.pool:fail"'))
    assert flujo("run", "uses").exit_code == 1
    assert pool.notes() == ["opened", "p1", "closed"]


def test_resuming_makes_them_again(flujo: Flujo, pool: Project) -> None:
    pool.blueprint(
        "uses",
        USES
        + "  - {kind: hitl, name: ask, message: Go on?}\n"
        + USES.splitlines()[-1].replace("two", "three")
        + "\n",
    )
    assert flujo("run", "uses").exit_code == 5
    assert flujo("tasks", "resume", "@last", "--input", "yes").exit_code == 0
    assert pool.notes() == ["opened", "p1", "p1", "closed", "opened", "p1", "closed"]


def test_commands_that_run_nothing_make_none(flujo: Flujo, pool: Project) -> None:
    for words in (["tasks", "list"], ["validate", "uses"], ["doctor"]):
        flujo(*words)
    assert pool.notes() == []


def test_without_them_the_step_says_what_is_missing(flujo: Flujo, pool: Project) -> None:
    names(pool, None)
    result = flujo("run", "uses")
    assert result.exit_code == 1
    assert "[FLJ306]" in result.stderr
    assert "`[project] resources" in result.stderr


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("skills.pool:nobody", 3, "has no `nobody`"),
        ("skills.nowhere:make", 3, "there is no module `skills.nowhere`"),
        ("skills.pool:Pool", 2, "not an async context manager"),
        ("skills.bad:raises", 2, "raised ValueError: no pool"),
        ("skills.bad:gives_text", 2, "is `str`, not an instance"),
        ("skills.bad:forgets", 2, "returns coroutine, not an async context manager"),
    ],
)
def test_what_cannot_be_used_stops_the_command_before_a_run_is_recorded(
    target: str, code: int, says: str, flujo: Flujo, pool: Project
) -> None:
    bad = "from contextlib import asynccontextmanager\n\n\n"
    bad += "@asynccontextmanager\nasync def raises():\n    raise ValueError('no pool')\n    yield\n\n\n"
    bad += "@asynccontextmanager\nasync def gives_text():\n    yield 'p1'\n\n\n"
    bad += "async def forgets():\n    pass\n"
    (pool.root / "skills/bad.py").write_text(bad, "utf-8")
    names(pool, target)
    result = flujo("run", "uses")
    assert result.exit_code == code, result.stderr
    assert says in result.stderr
    assert "no matching runs" in flujo("tasks", "list").stderr
