"""The modules that a start of Flujo loads: each one costs time before anything happens."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import json, sys
before, sys.argv = set(sys.modules), ["flujo", *sys.argv[1:]]
if sys.argv[1:] == ["import"]:
    import flujo
else:
    from flujo.__main__ import main
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
sys.stderr.write("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""


@dataclass(frozen=True)
class Start:
    """What one way to start Flujo may load, beyond a bare interpreter."""

    flujo: frozenset[str]
    """Modules of Flujo."""
    packages: frozenset[str]
    """Packages of others."""
    standard: int
    """The largest number of modules of the standard library; versions of Python differ by a few."""


_MAIN = frozenset({"flujo", "flujo.__main__", "flujo.cli", "flujo.cli.root_help", "flujo.cli.streams"})

STARTS = {
    "import": Start(frozenset({"flujo"}), frozenset(), 36),
    "--version": Start(_MAIN, frozenset(), 42),
    "--help": Start(_MAIN, frozenset(), 42),
}
"""The lists only shrink."""

NOT_FOR_CHECKS = {"sqlalchemy", "alembic", "psycopg", "pydantic_ai", "xllamacpp", "openai", "anthropic"}
"""What `flujo validate` does not need: the database, agents and providers."""


@pytest.mark.parametrize("word", STARTS)
def test_a_start_loads_only_the_listed_modules(word: str) -> None:
    loaded, allowed = loaded_by(word), STARTS[word]
    ours = {name for name in loaded if _package(name) == "flujo"}
    standard = {name for name in loaded if _package(name) in sys.stdlib_module_names}
    assert ours == allowed.flujo
    assert {_package(name) for name in loaded - ours - standard} == allowed.packages
    assert len(standard) <= allowed.standard, sorted(standard)


def test_validate_loads_no_database_and_no_provider(tmp_path: Path) -> None:
    (tmp_path / "flujo.toml").write_text('[project]\nname = "small"\n')
    (tmp_path / "small.yaml").write_text(
        'version: "1"\nname: small\nsteps:\n  - {kind: hitl, name: approve, message: "Continue?"}\n'
    )
    packages = {_package(name) for name in loaded_by("validate", "small.yaml", folder=tmp_path)}
    assert packages & NOT_FOR_CHECKS == set()


def loaded_by(*words: str, folder: Path | None = None) -> set[str]:
    """Return the modules that `import flujo` or a command loads in a fresh interpreter."""
    command = [sys.executable, "-c", _PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.rpartition("\n")[2]))


def _package(module: str) -> str:
    return module.partition(".")[0]
