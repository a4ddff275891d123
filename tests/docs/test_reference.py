"""The reference is complete and current: every command, setting, exit code, error, rule and key is documented."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flujo import exceptions, settings
from flujo.blueprint.language import models
from flujo.blueprint.rules.availability import LATER_ON_AGENTS
from flujo.cli.exit_codes import ExitCode
from flujo.cli.root_help import COMMANDS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


def generator() -> ModuleType:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()


@pytest.mark.parametrize("name", sorted(GENERATE.PAGES))
def test_a_generated_page_is_current(name: str) -> None:
    assert (REFERENCE / name).read_text("utf-8") == GENERATE.PAGES[name](), "run `make docs`"


def test_every_command_is_documented() -> None:
    text = (REFERENCE / "cli.md").read_text("utf-8")
    for commands in COMMANDS.values():
        for name in commands:
            assert f"### `flujo {name}`" in text


def test_every_setting_and_variable_is_documented() -> None:
    text = (REFERENCE / "settings.md").read_text("utf-8")
    for key, _, _ in settings.load().listed():
        assert f"| `{key}` |" in text
    for variable in settings.ENVIRONMENT:
        assert f"`{variable}`" in text


def test_every_exit_code_is_documented() -> None:
    text = (REFERENCE / "exit-codes.md").read_text("utf-8")
    for code in ExitCode:
        assert f"| {int(code)} | {code.name} |" in text


def test_every_error_has_a_code_of_its_own_family_and_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text("utf-8")
    drawn = exceptions.__doc__ or ""
    for name, thing in vars(exceptions).items():
        if isinstance(thing, type) and issubclass(thing, exceptions.FlujoError):
            assert f"| {thing.code} | `{name}` |" in text
            assert name in drawn, f"{name} is missing in the tree at the top of exceptions.py"


KEYS = [
    ("blueprint.md", model.__name__, field.alias or name)
    for model in (models.Blueprint, models.Agent)
    for name, field in model.model_fields.items()
] + [
    (page if (REFERENCE / page).exists() else "blueprint.md", kind, field.alias or name)
    for kind, model in models.KINDS.items()
    for page in [f"steps/{kind}.md"]
    for name, field in model.model_fields.items()
    if name not in models.BaseStep.model_fields
]


@pytest.mark.parametrize(("page", "owner", "key"), KEYS)
def test_every_key_of_the_language_is_documented(page: str, owner: str, key: str) -> None:
    pages = (REFERENCE / page).read_text("utf-8") + (REFERENCE / "blueprint.md").read_text("utf-8")
    assert f"`{key}`" in pages, f"`{key}` of {owner} is neither in {page} nor in blueprint.md"


def test_the_page_of_the_language_names_every_kind_and_each_reserved_key() -> None:
    page = (REFERENCE / "blueprint.md").read_text("utf-8")
    assert [kind for kind in models.KINDS if f"[`{kind}`](steps/" not in page] == []
    reserved = page.partition("## Not available yet")[2].partition("\n## ")[0].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", reserved)) == set(LATER_ON_AGENTS)


def test_every_key_of_a_retry_is_documented() -> None:
    page = (REFERENCE / "steps/step.md").read_text("utf-8").partition("### Retries")[2]
    assert [key for key in models.Retry.model_fields if f"| `{key}` |" not in page] == []


def test_the_lock_of_the_examples_is_current() -> None:
    flujo = Path(sys.executable).parent / "flujo"
    done = subprocess.run([flujo, "lock", "verify"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/architecture").glob("*.md")), ids=lambda page: page.name
)
def test_an_architecture_page_names_existing_files(page: Path) -> None:
    there = {path.name for path in (ROOT / "src/flujo").rglob("*.py")}
    named = re.findall(r"`(?:[a-z_]+/)*([a-z_]+\.py)`", page.read_text("utf-8"))
    assert [name for name in named if name not in there] == []
