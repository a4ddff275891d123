"""`flujo validate`, `flujo explain`, the log and the trace say which cached steps are never cached, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

CODE = '''\
"""Callables whose answers have no key, each for another reason, and some whose answers have one."""

import io
import threading

from flujo import AppResources

OPEN = io.StringIO("x")


class Service:
    def __init__(self, client):
        self.client = client

    def look_up(self, data):
        return data

    def __call__(self, data):
        return data


def capturing(client):
    def inner(data):
        return client and data
    return inner


bound = Service(threading.Thread()).look_up
called = Service(threading.Thread())
captures = capturing(threading.Thread())
plain_bound = Service("eu").look_up
plain_captures = capturing(["eu"])


def reads_global(data):
    return OPEN and data


def reads_context(data, context):
    return data


def reads_resources(data, resources):
    return data


class Plain(AppResources):
    url: str = "x"


class Keyed(Plain):
    @property
    def cache_key(self):
        return self.url


def made() -> Plain:
    return Plain()
'''
NAMES = {
    "bound": "the object of `skills.kinds:bound`",
    "called": "`threading.Thread`, which cannot be compared by value",
    "captures": "`client`, which `skills.kinds:captures` captures",
    "reads_global": "`OPEN`, which `skills.kinds:reads_global` reads",
}
CACHED = (
    'version: "1"\nname: kinds\nsteps:\n  - {{name: ask, call: "skills.kinds:{}", cache: {{ttl_s: 1h}}}}\n'
)


@pytest.fixture
def kinds(project: Project) -> Project:
    (project.root / "skills/kinds.py").write_text(CODE, "utf-8")
    return project


def resources(kinds: Project, name: str) -> None:
    path = kinds.root / "flujo.toml"
    path.write_text(
        path.read_text("utf-8").replace("[project]", f'[project]\nresources = "skills.kinds:{name}"')
    )


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("name", NAMES)
def test_validate_with_imports_names_the_object_that_cannot_be_compared(
    name: str, kinds: Project, flujo: Flujo
) -> None:
    kinds.blueprint("kinds", CACHED.format(name))
    assert "FLJ262" not in flujo("validate", "kinds").stdout
    shown = flujo("validate", "kinds", "--import").stdout
    assert "FLJ262" in shown
    assert "blueprints/kinds.yaml:4" in shown
    assert NAMES[name] in shown
    assert "`cache_key`" in shown
    assert "ask is not cached, because `skills.kinds:" in flujo("explain", "kinds", "--import").stdout


@pytest.mark.parametrize("name", ["plain_bound", "plain_captures"])
def test_validate_with_imports_accepts_objects_that_are_compared_by_value(
    name: str, kinds: Project, flujo: Flujo
) -> None:
    kinds.blueprint("kinds", CACHED.format(name))
    assert "FLJ262" not in flujo("validate", "kinds", "--import").stdout
    assert "ask: its answer to equal input, for 1h" in flujo("explain", "kinds", "--import").stdout


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("made", ["Plain", "made"])
def test_resources_without_a_key_are_found_in_the_source(made: str, kinds: Project, flujo: Flujo) -> None:
    kinds.blueprint("kinds", CACHED.format("reads_resources"))
    resources(kinds, made)
    shown = flujo("validate", "kinds").stdout
    assert "takes `resources`, and Plain has no `cache_key`" in shown
    why = "ask is not cached, because `skills.kinds:reads_resources` takes `resources`"
    assert why in flujo("explain", "kinds").stdout


def test_resources_with_a_key_are_not_reported(kinds: Project, flujo: Flujo) -> None:
    kinds.blueprint("kinds", CACHED.format("reads_resources"))
    resources(kinds, "Keyed")
    assert "FLJ262" not in flujo("validate", "kinds", "--import").stdout


def test_a_finding_of_the_source_is_not_repeated_after_the_import(kinds: Project, flujo: Flujo) -> None:
    kinds.blueprint("kinds", CACHED.format("reads_context"))
    assert flujo("validate", "kinds", "--import").stdout.count("FLJ262") == 1


def test_validate_with_imports_reports_a_module_that_cannot_be_imported(kinds: Project, flujo: Flujo) -> None:
    (kinds.root / "skills/kinds.py").write_text("raise ValueError('no')\ndef ask(data): ...\n", "utf-8")
    kinds.blueprint("kinds", CACHED.format("ask"))
    assert "FLJ251" in flujo("validate", "kinds", "--import").stdout


@pytest.mark.guarantee("G21")
def test_the_trace_says_why_a_step_was_not_cached(kinds: Project, flujo: Flujo) -> None:
    kinds.blueprint("kinds", CACHED.format("bound"))
    flujo("run", "kinds", "--input", "x")
    assert "not cached: `skills.kinds:bound` depends on" in flujo("trace", "@last").stdout
