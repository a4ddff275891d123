"""An imported blueprint cannot widen what its project allows, wherever in the closure it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.steps import CallableRef
from flujo.exceptions import BlueprintError, CallableError, LockMismatch
from flujo.services.checks.locking import write
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from support import ImportStep, call, pipeline

if TYPE_CHECKING:
    from pathlib import Path

TOML = '[blueprints]\nallow_callables = ["skills.*"]\n'
SKILL = "def f(data):\n    return data\n"
HEAD = 'version: "1"\nname: {name}\n'
CALL = 'steps: [{{name: a, call: "{call}"}}]\n'


def importing(*files: str, how: str = "own") -> str:
    steps = [
        f"  - {{kind: import, name: sub{n}, blueprint: {file}, context: {how}}}\n"
        for n, file in enumerate(files)
    ]
    return "steps:\n" + "".join(steps)


def workspace(root: Path, toml: str = TOML, **blueprints: str) -> Workspace:
    """Return a project whose blueprints are these; `top` imports the others."""
    (root / "blueprints").mkdir(parents=True, exist_ok=True)
    (root / "flujo.toml").write_text(toml)
    for folder in ("skills", "other"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "x.py").write_text(SKILL)
    for name, body in blueprints.items():
        (root / "blueprints" / f"{name}.yaml").write_text(HEAD.format(name=name) + body)
    return Workspace(find_project(root))


def findings(ws: Workspace) -> list[tuple[str, str]]:
    with pytest.raises(BlueprintError) as refused:
        ws.load("blueprints/top.yaml")
    return [(found.code, found.span.file) for found in refused.value.diagnostics]


@pytest.mark.parametrize("how", ["own", "inherit"])
@pytest.mark.parametrize("target", ["other.x:f", "os:system", "skills.x:f.__globals__"])
def test_a_callable_that_is_not_allowed_is_not_allowed_two_imports_down(
    tmp_path: Path, how: str, target: str
) -> None:
    ws = workspace(
        tmp_path,
        top=importing("./middle.yaml", how=how),
        middle=importing("./leaf.yaml", how=how),
        leaf=CALL.format(call=target),
    )
    assert ("FLJ250", "blueprints/leaf.yaml") in findings(ws)


def test_a_tree_built_in_python_is_held_to_the_same_list(tmp_path: Path) -> None:
    leaf = pipeline(call("a", CallableRef("other.x:f")), name="leaf")
    middle = pipeline(ImportStep(name="leaf", blueprint="leaf.yaml", pipeline=leaf), name="middle")
    tree = pipeline(ImportStep(name="middle", blueprint="m.yaml", pipeline=middle, context="inherit"))
    with pytest.raises(CallableError, match=r"other\.x:f"):
        workspace(tmp_path).bind(tree)


@pytest.mark.parametrize(
    "path", ["../../secret.yaml", "/etc/secret.yaml", "./link.yaml", "../blueprints/../../x"]
)
def test_no_import_of_an_import_leaves_the_project(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.yaml").write_text(HEAD.format(name="secret") + CALL.format(call="skills.x:f"))
    ws = workspace(tmp_path / "project", top=importing("./middle.yaml"), middle=importing(path))
    (tmp_path / "project" / "blueprints" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    codes = findings(ws)
    assert codes[0][1] == "blueprints/middle.yaml"
    assert codes[0][0] in ("FLJ220", "FLJ221")


def test_a_prompt_of_an_import_does_not_leave_the_project_either(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("not yours")
    agent = (
        "agents: {a: {model: 'x:y', instructions_file: ../../secret.md}}\nsteps: [{name: ask, agent: a}]\n"
    )
    ws = workspace(tmp_path / "project", top=importing("./child.yaml"), child=agent)
    assert ("FLJ220", "blueprints/child.yaml") in findings(ws)


def test_a_circle_and_a_chain_that_is_too_deep_are_refused(tmp_path: Path) -> None:
    circle = workspace(
        tmp_path / "a", top=importing("./b.yaml"), b=importing("./c.yaml"), c=importing("./b.yaml")
    )
    assert "FLJ222" in [code for code, _ in findings(circle)]
    chain = {f"c{n}": importing(f"./c{n + 1}.yaml") for n in range(17)}
    deep = workspace(tmp_path / "b", top=importing("./c0.yaml"), **chain, c17=CALL.format(call="skills.x:f"))
    assert "FLJ223" in [code for code, _ in findings(deep)]


def test_few_lines_that_mean_a_million_steps_are_refused(tmp_path: Path) -> None:
    doubling: dict[str, Any] = {f"c{n}": importing(*[f"./c{n + 1}.yaml"] * 8) for n in range(7)}
    ws = workspace(tmp_path, top=importing("./c0.yaml"), **doubling, c7=CALL.format(call="skills.x:f"))
    assert "FLJ223" in [code for code, _ in findings(ws)]


def test_the_lock_covers_imported_modules(tmp_path: Path) -> None:
    child = CALL.format(call="skills.x:f")
    ws = workspace(tmp_path, top=importing("./child.yaml"), child=child)
    write(ws.project)
    locked = workspace(tmp_path, TOML + "[lockfile]\nenabled = true\n")
    locked.load("blueprints/top.yaml")
    workspace(tmp_path, TOML + "[lockfile]\nenabled = true\n", child=child.replace("name: a", "name: b"))
    with pytest.raises(LockMismatch):
        locked.load("blueprints/top.yaml")
