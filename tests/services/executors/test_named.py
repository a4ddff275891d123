"""The executors of flujo.toml, and the steps that name them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from flujo import AgentSpec, CallableTool, MapStep, Pipeline, Secret, Step, StepConfig
from flujo.domain.executor import Needs, memory, needs
from flujo.exceptions import (
    CallableError,
    ExecutorUnavailable,
    FlujoError,
    PipelineError,
    ResourcesUnavailable,
    SettingsError,
)
from flujo.services.admin.doctor import examine
from flujo.services.executors.this_host import this_host
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLES = """
[blueprints]
allow_callables = ["json"]
[executors.cores]
kind = "processes"
size = 1
[executors.wide]
kind = "threads"
size = 50
"""

HEAVY = """version: "1"
name: heavy
agents: {clerk: {model: "a:b", tools: [{call: "json:loads", executor: wide, resources: {memory: 900TiB}}]}}
steps:
  - {name: ask, agent: clerk}
  - {name: ask_again, agent: clerk}
  - {name: heavy, call: json:dumps, config: {executor: cores, resources: {cpu: 10000, gpu: 1, memory: 1MiB}}}
  - {name: light, call: json:dumps, config: {executor: cores, resources: {cpu: 0.5}}}
"""
HERE = sys.modules[__name__]
"""This module, which a test before may have removed from the loaded ones."""


def pid(data: Any) -> list[Any]:
    """Return the input, and the process that called this function."""
    return [data, os.getpid()]


def takes_context(data: Any, context: Any) -> Any:
    """Return the input; a worker has no context."""
    del context
    return data


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    monkeypatch.setitem(sys.modules, __name__, HERE)
    (tmp_path / "flujo.toml").write_text(TABLES, "utf-8")
    return Workspace(find_project(tmp_path))


def _pipeline(call: Callable[..., Any], **config: Any) -> Pipeline[Any, Any]:
    return Pipeline([Step("one", call, config=StepConfig(**config))], name="placed")


def test_a_step_and_those_in_a_map_have_their_executor(workspace: Workspace) -> None:
    own = Step("own", pid, config=StepConfig(executor="wide"))
    other = Step("other", pid)
    mapped = MapStep(
        "all", [own, other], config=StepConfig(executor="cores", resources={"cpu": 2, "memory": "1GiB"})
    )
    apart = Step("apart", pid)
    pipeline = Pipeline([mapped, apart], name="placed")
    bound = workspace.bind(pipeline)
    inner = pipeline.steps[0].bodies()["steps"].steps
    placed = [bound.placed(step) for step in (*inner, pipeline.steps[1])]
    assert [each and each.executor.name for each in placed] == ["wide", "cores", None]
    assert placed[1] is not None
    assert placed[1].needs == Needs(cpu=2, memory=2**30)


def test_threads_is_the_usual_one(workspace: Workspace) -> None:
    pipeline = _pipeline(pid, executor="threads")
    assert workspace.bind(pipeline).placed(pipeline.steps[0]) is None


def test_an_unknown_executor_is_refused_with_those_that_there_are(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match=r"there is no \[executors.core\]") as refused:
        workspace.bind(_pipeline(pid, executor="core"))
    assert refused.value.hint == "did you mean `cores`?"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda data: data, "cannot be imported there"),
        (takes_context, "takes `context`"),
    ],
)
def test_a_callable_that_cannot_travel_is_refused(
    workspace: Workspace, call: Callable[..., Any], says: str
) -> None:
    with pytest.raises((CallableError, PipelineError), match=says) as refused:
        workspace.bind(_pipeline(call, executor="cores"))
    assert refused.value.code == ("FLJ324" if call is takes_context else CallableError.code)


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (
            CallableTool(takes_context, executor="cores"),
            r"tool `.*:takes_context` runs on .* takes `context`",
        ),
        (CallableTool(lambda data: data, executor="cores"), "cannot be imported there"),
        (CallableTool(pid, executor="cores", with_={"data": Secret("SOME_KEY")}), "has a secret"),
        (CallableTool(pid, executor="core"), r"there is no \[executors.core\]"),
    ],
)
def test_a_tool_that_cannot_travel_is_refused(workspace: Workspace, tool: CallableTool, says: str) -> None:
    agent = AgentSpec("clerk", "test:model", tools=[tool])
    with pytest.raises(FlujoError, match=says):
        workspace.bind(Pipeline([Step("ask", agent=agent)], name="placed"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cpu": 0}, "`cpu`"),
        ({"gpu": -1}, "`gpu`"),
        ({"memory": "8 apples"}, "not a size"),
        ({"disk": 1}, "which no worker has"),
        ("much", "expected"),
    ],
)
def test_needs_that_are_none_are_refused(given: Any, says: str) -> None:
    with pytest.raises(PipelineError, match=says):
        needs(given, "`resources`")


def test_sizes_have_units() -> None:
    sizes = {"8GiB": 8 * 2**30, "1.5 MiB": 1_572_864, "2GB": 2 * 10**9, "10": 10, 7: 7}
    assert {given: memory(given, "`memory`") for given in sizes} == sizes


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('kind = "proceses"', "processes"),
        ('kind = "threads"\nsize = 0', "size"),
        ('kind = "threads"\nsise = 3', "sise"),
        ('kind = "threads"\nbatch_size = 3', r"`batch_size` is for `kind = \"dask\"` or `kind = \"ray\"`"),
        ('kind = "dask"', "needs `address`"),
        ('kind = "dask"\naddress = "here:1"', r"`tcp://HOST:PORT`"),
        ('kind = "dask"\naddress = "tcp://here:1"\nsize = 3', "the workers of a cluster decide"),
        ('kind = "dask"\naddress = "tls://here:1"\ntls_ca = "ca.pem"', "all of `tls_ca`"),
        ('kind = "ray"\naddress = "ray://here:1"', "without `ray://`"),
        ('kind = "dask"\naddress = "tcp://here:1"\ncode = "sent"', "`executors.there.code` must be 'same'"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "flujo.toml").write_text(f"[executors.there]\n{table}\n", "utf-8")
    with pytest.raises(FlujoError, match=says):
        find_project(tmp_path)


def test_the_list_of_settings_has_the_keys_of_the_kind(tmp_path: Path) -> None:
    tables = 'pool = {kind = "processes"}\nray = {kind = "ray"}'
    (tmp_path / "flujo.toml").write_text(f"[executors]\n{tables}\n", "utf-8")
    listed = [key.split(".")[1:] for key, _, _ in find_project(tmp_path).settings.listed()]
    keys = {name: [part[1] for part in listed if part[:1] == [name]] for name in ("pool", "ray")}
    assert keys == {
        "pool": ["kind", "size", "max_result"],
        "ray": ["kind", "max_result", "address", "batch_size", "code"],
    }


@pytest.mark.parametrize(
    ("kind", "address", "package"), [("dask", "tcp://here:1", "distributed"), ("ray", "here:1", "ray")]
)
def test_a_cluster_whose_package_is_missing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, address: str, package: str
) -> None:
    for module in [name for name in sys.modules if name.startswith(f"flujo.services.executors.{kind}")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "flujo.toml").write_text(
        f'[executors.there]\nkind = "{kind}"\naddress = "{address}"\n', "utf-8"
    )
    with pytest.raises(ExecutorUnavailable, match=f"needs the package `{package}") as refused:
        Workspace(find_project(tmp_path)).executors.named("there")
    assert refused.value.hint == f"`pip install 'flujo[{kind}]'`"


def test_doctor_says_what_executors_have_and_what_they_lack(workspace: Workspace) -> None:
    (workspace.project.root / "blueprints").mkdir()
    (workspace.project.root / "blueprints" / "heavy.yaml").write_text(HEAVY, "utf-8")
    there = [each for each in examine(workspace.project) if each.name == "executors"]
    assert all(isinstance(each.error, ResourcesUnavailable) == (each.state == "fail") for each in there)
    found = [(each.state, each.detail) for each in there]
    has = this_host()
    assert found == [
        ("ok", f"cores: processes, 1 worker with {has}"),
        (
            "fail",
            "cores: step `heavy` of blueprints/heavy.yaml needs 10000 cpu, 1 gpu, "
            f"and the executor has {has}",
        ),
        ("ok", f"wide: threads, 50 workers with {has}"),
        (
            "fail",
            "wide: tool `loads` of agent 'clerk' of blueprints/heavy.yaml needs 921600 GiB of memory, "
            f"and the executor has {has}",
        ),
    ]
