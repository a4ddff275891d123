"""A lock is checked before a run, for the blueprint that is run, as the chosen environment sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, read_blueprint
from flujo.domain.acts import Actor, Via
from flujo.domain.run import RunStatus
from flujo.exceptions import LockMismatch, LockUnreadable, SettingsError
from flujo.services.admin.scaffold import scaffold
from flujo.services.checks import locking
from flujo.services.checks.locking import require_match, verify, write
from flujo.services.checks.validation import compiled
from flujo.services.project.project import Project, find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.services.runs.worker import Worker, WorkerEvents
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline

OTHER = """\
version: "1"
name: other
steps:
  - {name: a, call: "skills.greet:greet", with: {name: x}}
  - {kind: hitl, name: ok, message: "Fine?"}
"""
AGENT = """\
version: "1"
name: asks
agents: {writer: {model: "openai:gpt-5-mini-2025-08-07", instructions: Write.}}
steps: [{name: write, agent: writer}]
"""
EVALUATORS = """
[evaluation]
model = "openai:gpt-5-mini-2025-08-07"

[evaluation.evaluators.polite]
judge = "Is it polite?"

[evaluation.evaluators.near]
call = "skills.scores:near"
"""
ENABLED = "\n[lockfile]\nenabled = true\n"
ENVIRONMENTS = """
[env.dev.agents."*"]
model = "local:smollm2"

[env.dev.lockfile]
enabled = false

[env.prod.lockfile]
enabled = true
"""

ADA = Actor("ada", Via.API)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("FLUJO_ENV", raising=False)
    scaffold(tmp_path, "demo")
    (tmp_path / "blueprints/other.yaml").write_text(OTHER, "utf-8")
    monkeypatch.chdir(tmp_path)
    return find_project(tmp_path)


def edited(project: Project, path: str, old: str, new: str) -> Project:
    """Return the project as it is read after an edit."""
    file = project.root / path
    assert old in file.read_text("utf-8")
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    return find_project(project.root, project.environment)


def settled(project: Project, toml: str, environment: str = "") -> Project:
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write(toml)
    return find_project(project.root, environment)


def tree(project: Project, name: str) -> Pipeline:
    found = compiled(project, f"blueprints/{name}.yaml").pipeline
    assert found is not None
    return found


def match(project: Project, name: str) -> str:
    return require_match(project, f"blueprints/{name}.yaml", tree(project, name))


def test_a_lock_that_was_just_written_matches(project: Project) -> None:
    written = write(project)
    assert (written.blueprints, written.changed) == (2, True)
    assert not write(project).changed
    found = verify(project, strict=True)
    assert (found.differences, found.notes) == ([], [])
    assert match(project, "hello") == match(project, "other")


def test_without_a_lock_nothing_matches(project: Project) -> None:
    with pytest.raises(LockMismatch, match=r"there is no flujo.lock"):
        match(project, "hello")


def test_a_change_refuses_its_own_blueprint_only(project: Project) -> None:
    write(project)
    project = edited(project, "blueprints/other.yaml", "Fine?", "Good?")
    match(project, "hello")
    with pytest.raises(LockMismatch, match=r"step 'ok' of blueprints/other.yaml: `message` was") as caught:
        match(project, "other")
    assert all("hello" not in line for line in caught.value.facts["differences"])


def test_a_comment_refuses_nothing(project: Project) -> None:
    write(project)
    before = (project.root / "flujo.lock").read_bytes()
    project = edited(project, "blueprints/other.yaml", "name: other", "name: other  # so called")
    match(project, "other")
    write(project)
    assert (project.root / "flujo.lock").read_bytes() == before


def test_a_new_blueprint_is_not_locked(project: Project) -> None:
    write(project)
    (project.root / "blueprints/new.yaml").write_text(OTHER.replace("other", "new"), "utf-8")
    with pytest.raises(LockMismatch, match=r"new.yaml is not in flujo.lock"):
        match(project, "new")
    found = verify(project)
    assert (found.differences, found.notes) == ([], ["blueprint blueprints/new.yaml is not in the lock"])
    assert verify(project, strict=True).differences == ["blueprint blueprints/new.yaml is not in the lock"]


def test_strict_also_checks_callables_settings_and_missing_entries(project: Project) -> None:
    write(project)
    edited(project, "skills/greet.py", "def greet", "def before(): ...\n\n\ndef greet")
    (project.root / "blueprints/hello.yaml").unlink()
    project = settled(project, "\n[aros]\ncoercion_tolerant_level = 1\n")
    assert verify(project).differences == []
    found = "\n".join(verify(project, strict=True).differences)
    assert "blueprint blueprints/hello.yaml is in the lock but not in the project" in found
    assert "callable skills.greet:greet: the source of its module has changed" in found
    assert "setting aros.coercion_tolerant_level was 2 and is 1" in found


def test_strict_also_checks_the_evaluators_of_the_project(project: Project) -> None:
    (project.root / "skills/scores.py").write_text("def near(output):\n    return 1.0\n", "utf-8")
    project = settled(project, EVALUATORS)
    write(project)
    assert verify(project, strict=True).differences == []
    edited(project, "flujo.toml", "Is it polite?", "Is it short?")
    edited(project, "flujo.toml", "openai:gpt-5-mini-2025-08-07", "openai:gpt-5-2025-08-07")
    project = edited(project, "skills/scores.py", "1.0", "0.5")
    assert verify(project).differences == []
    found = "\n".join(verify(project, strict=True).differences)
    assert 'setting evaluation.evaluators.polite.judge was "Is it polite?" and is "Is it short?"' in found
    assert "setting evaluation.evaluators.polite.model was " in found
    assert "callable skills.scores:near: the source of its module has changed" in found
    assert found.count("\n") == 2


def test_strict_refuses_models_whose_names_float_unless_the_project_allows_them(project: Project) -> None:
    (project.root / "blueprints/asks.yaml").write_text(AGENT.replace("-2025-08-07", ""), "utf-8")
    write(project)
    assert verify(project).differences == []
    [said] = verify(project, strict=True).differences
    assert "agent 'writer' of blueprints/asks.yaml: openai:gpt-5-mini has no version" in said
    project = settled(project, '\n[lockfile]\nallow_floating = ["openai:gpt-5-mini"]\n')
    assert verify(project, strict=True).differences == []


def test_other_library_versions_are_a_note(project: Project) -> None:
    write(project)
    lock = project.root / "flujo.lock"
    lock.write_text(lock.read_text().replace("[libraries]\n", '[libraries]\nold = "1"\n'))
    found = verify(project, strict=True)
    assert (found.differences, found.notes) == ([], ["library old is in the lock but not installed"])


def test_each_environment_is_held_to_its_own_models(project: Project) -> None:
    (project.root / "blueprints/asks.yaml").write_text(AGENT, "utf-8")
    write(settled(project, ENVIRONMENTS))
    lock = (project.root / "flujo.lock").read_bytes()
    for name, model in (
        ("", "openai:gpt-5-mini-2025-08-07"),
        ("dev", "local:smollm2"),
        ("prod", "openai:gpt-5-mini-2025-08-07"),
    ):
        seen = find_project(project.root, name)
        match(seen, "asks")
        assert model in str(tree(seen, "asks"))
        assert not write(seen).changed, "a lock is the same from wherever it is written"
    edited(project, "flujo.toml", "local:smollm2", "local:other")
    match(find_project(project.root, "prod"), "asks")
    with pytest.raises(LockMismatch, match=r'`model` was "local:smollm2" and is "local:other"'):
        match(find_project(project.root, "dev"), "asks")
    assert (project.root / "flujo.lock").read_bytes() == lock


def test_a_developer_edits_a_prompt_and_production_does_not_start_with_it(project: Project) -> None:
    (project.root / "blueprints/asks.yaml").write_text(AGENT, "utf-8")
    write(settled(project, ENVIRONMENTS))
    edited(project, "blueprints/asks.yaml", "Write.", "Write well.")
    Workspace(find_project(project.root, "dev")).load("blueprints/asks.yaml")
    with pytest.raises(LockMismatch, match="the instructions have changed"):
        Workspace(find_project(project.root, "prod")).load("blueprints/asks.yaml")


def test_locking_does_not_need_variables_that_only_production_has(project: Project) -> None:
    project = settled(project, '\n[env.prod]\nstate_uri = "${DATABASE_OF_PRODUCTION}"\n')
    assert write(project).changed
    assert verify(project, strict=True).differences == []


def test_other_models_for_one_run_are_a_mismatch(project: Project) -> None:
    (project.root / "blueprints/asks.yaml").write_text(AGENT, "utf-8")
    project = settled(project, ENABLED)
    write(project)
    workspace = Workspace(project)
    same = {"agents.writer.model": "openai:gpt-5-mini-2025-08-07"}
    assert workspace.load("blueprints/asks.yaml", overrides=same).lock_digest
    with pytest.raises(LockMismatch, match="`model` was"):
        workspace.load("blueprints/asks.yaml", overrides={"agents.*.model": "local:smollm2"})


def test_a_file_that_is_not_a_lock_is_refused(project: Project) -> None:
    (project.root / "flujo.lock").write_text("not a lock", "utf-8")
    with pytest.raises(LockUnreadable, match=r"flujo\.lock:1: not TOML"):
        verify(project)
    (project.root / "flujo.lock").write_bytes(b"version = 2\n\xff")
    with pytest.raises(LockUnreadable, match=r"flujo\.lock:2: byte 0xFF at offset 12 is not UTF-8"):
        verify(project)
    assert Workspace(project).load("blueprints/hello.yaml").lock_digest is None, "the lock is not enabled"


def test_a_project_without_blueprints_has_nothing_to_lock(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no blueprints to lock"):
        write(find_project(tmp_path))


def test_a_lock_is_written_whole_or_not_at_all(project: Project) -> None:
    write(project)
    before = (project.root / "flujo.lock").read_bytes()
    (project.root / "blueprints/other.yaml").write_text(OTHER.replace("ok, m", "ok, mess"), "utf-8")
    with pytest.raises(Exception, match="has errors"):
        write(project)
    assert (project.root / "flujo.lock").read_bytes() == before
    assert [path.name for path in project.root.iterdir() if path.name.startswith(".flujo.lock")] == []


# Runs ----------------------------------------------------------------------------------------------------


async def started(project: Project, name: str = "other", **options: Any) -> Any:
    async with Workspace(project) as ws:
        blueprint = ws.load(f"blueprints/{name}.yaml")
        result = await blueprint_runs.start(ws, blueprint, Request(None, **options))
        store = await ws.store()
        return await store.run(result.run_id)


async def test_a_run_records_the_lock_that_held_it(project: Project) -> None:
    assert (await started(project)).lock_digest is None
    write(project)
    assert (await started(project)).lock_digest == match(project, "other")
    edited(project, "blueprints/other.yaml", "Fine?", "Good?")
    assert (await started(project)).lock_digest is None


async def test_python_is_refused_what_the_lock_does_not_hold_and_records_what_it_does(
    project: Project,
) -> None:
    project = settled(project, ENABLED)
    with pytest.raises(LockMismatch):
        read_blueprint("other")
    write(project)
    async with Flujo(read_blueprint("other")) as runner:
        result = await runner.run_result_async(None)
    assert result.status is RunStatus.PAUSED
    async with Workspace(project) as ws:
        assert (await (await ws.store()).run(result.run_id)).lock_digest == match(project, "other")


async def test_a_run_resumes_with_the_files_that_were_tested_when_it_was_accepted(project: Project) -> None:
    """A deploy with another lock must not strand the runs that wait for a human."""
    project = settled(project, ENABLED)
    write(project)
    record = await started(project)
    project = edited(project, "blueprints/other.yaml", "Fine?", "Good?")
    write(project)
    async with Workspace(project) as ws:
        result = await blueprint_runs.answer(ws, record.run_id, None, "yes", actor=ADA)
    assert result.status is RunStatus.COMPLETED


async def test_a_run_that_no_lock_held_is_refused_where_one_is_required(project: Project) -> None:
    record = await started(project)
    project = settled(project, ENABLED)
    async with Workspace(project) as ws:
        with pytest.raises(
            LockMismatch, match=r"started with files that do not match the lock\nthere is no flujo.lock"
        ):
            await blueprint_runs.resume(ws, record.run_id, actor=ADA)
    write(project)
    async with Workspace(project) as ws:
        assert (
            await blueprint_runs.answer(ws, record.run_id, None, "yes", actor=ADA)
        ).status is RunStatus.COMPLETED


async def test_a_worker_leaves_a_run_that_no_lock_held_and_says_why(project: Project) -> None:
    record = await started(project)
    async with Workspace(project) as ws:
        await blueprint_runs.answer(ws, record.run_id, None, "yes", detach=True, actor=ADA)
    project = settled(project, ENABLED)
    told: list[WorkerEvents] = []
    async with Workspace(project) as ws:
        worker = Worker(ws, RecoveryPolicy(), told.append)
        await worker.drain()
        await worker.aclose()
        assert (await (await ws.store()).run(record.run_id)).status is RunStatus.PAUSED
    assert [(each.event, "do not match the lock" in each.detail) for each in told] == [("skipped", True)]


async def test_files_that_took_the_place_of_locked_ones_are_held_to_the_lock_again(project: Project) -> None:
    """An environment that allows untested files accepts them into a run; production does not resume that run."""
    write(project)
    record = await started(project)
    assert record.lock_digest is not None
    changed = edited(project, "blueprints/other.yaml", "Fine?", "Good?")
    async with Workspace(changed) as ws:
        await blueprint_runs.resume(ws, record.run_id, accept_changes=True, actor=ADA)
    production = settled(project, ENABLED)
    async with Workspace(production) as ws:
        with pytest.raises(LockMismatch, match="do not match the lock"):
            await blueprint_runs.resume(ws, record.run_id, actor=ADA)
    locking.write(production)
    async with Workspace(production) as ws:
        assert (
            await blueprint_runs.answer(ws, record.run_id, None, "yes", actor=ADA)
        ).status is RunStatus.COMPLETED
