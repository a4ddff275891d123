"""The plugin in a real `pytest`: cassettes are tests, without a key; options record again and refuse calls."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import warm
from agents.provider_server import provider_server
from architecture.source import ROOT
from flujo.testing.cassettes import CassetteFailed
from flujo.testing.pytest_plugin import Cassettes
from support import plugin_variables
from testing import test_cassettes

if TYPE_CHECKING:
    from pathlib import Path

taped, project, saved = test_cassettes.taped, test_cassettes.project, test_cassettes.saved

TEST = """\
def test_by_hand(cassette):
    played = cassette.play("tests/cassettes/desk.yaml")
    played.require_matches()
    assert played.output["label"] == "billing"


async def test_in_a_coroutine(cassette):
    (await cassette.play_async("tests/cassettes/desk.yaml")).require_expected()
"""


def pytest_in(root: Path, *words: str, run: Any = warm.run) -> subprocess.CompletedProcess[str]:
    """Run pytest in a project, with the plugin as an installed package has it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *words]
    command += ["--basetemp", str(root / "pytest")]
    ran: subprocess.CompletedProcess[str] = run(
        command, cwd=root, env={**kept, **plugin_variables()}, capture_output=True, timeout=110
    )
    return ran


def test_cassettes_of_a_folder_are_tests(saved: Path, project: Path) -> None:
    folder = saved.parent
    text = saved.read_text("utf-8")
    (project / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nflujo_cassettes = tests/cassettes\n")
    (project / "tests/test_desk.py").write_text(TEST, "utf-8")
    (folder / "data.yaml").write_text("other: data\n", "utf-8")
    (folder / "changed.yaml").write_text(text.replace("Sort tickets.", "Sort everything."), "utf-8")
    (folder / "damaged.yaml").write_text("flujo_cassette: 1\n", "utf-8")
    (folder / "dials.yaml").write_text(
        text.replace("expect:", 'live: ["skills.desk:dial"]\nexpect:'), "utf-8"
    )
    ran = pytest_in(project, "--flujo-strict", "tests/test_desk.py", "tests/cassettes")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 failed, 4 passed" in ran.stdout, ran.stdout
    assert "exchange 1 of `sort` no longer matches the request of agent 'sorter'" in ran.stdout
    assert "-[instructions] Sort everything." in ran.stdout
    assert "`blueprint` is missing [FLJ563]" in ran.stdout
    assert "Traceback" not in ran.stdout


async def test_a_cassette_below_a_refreshed_path_is_recorded_again(
    saved: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_cassettes.edit(project / "blueprints/desk.yaml", "Sort tickets.", "Sort.")
    with pytest.raises(CassetteFailed):
        (await plugin(project).play_async(saved)).require_expected()
    with pytest.raises(CassetteFailed):
        (await plugin(project, "tests/cassettes/other.yaml").play_async(saved)).require_expected()
    with provider_server() as server:
        server.will_answer('{"label": "sales"}', "Nobody.")
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        played = await plugin(project, "tests/cassettes").play_async("tests/cassettes/desk.yaml")
    played.require_expected()
    assert played.output["label"] == "sales"
    assert "label: sales" in "\n".join(test_cassettes.lines(saved))


def plugin(folder: Path, *refreshed: str) -> Cassettes:
    """Return what the fixture gives in a session with these options."""
    options = {"--flujo-strict": False, "--flujo-refresh": list(refreshed)}
    config: Any = SimpleNamespace(getoption=options.get, invocation_params=SimpleNamespace(dir=folder))
    return Cassettes(config)


def test_the_package_has_the_plugin_and_it_imports_nothing_heavy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"flujo": "flujo.testing.pytest_plugin"}
    code = (
        "import sys, flujo.testing.pytest_plugin; "
        "print(sorted({'pydantic_ai', 'sqlalchemy', 'flujo.engine', 'flujo.services'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_cassette_is_played_without_a_warning_and_without_other_plugins(saved: Path, project: Path) -> None:
    # pytest-asyncio warns in each project that does not configure it, with and without Flujo, which does not need it.
    # A process of its own, because pytest warns of modules that are loaded before it.
    run = partial(subprocess.run, text=True, check=False)
    ran = pytest_in(project, "-p", "no:asyncio", "-W", "error", str(saved), run=run)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
    assert "warning" not in (ran.stdout + ran.stderr).lower()
