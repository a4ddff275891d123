"""The wheel works without the checkout: an empty environment, an empty folder, the first four commands."""

import os
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

# The first of the two tests, in any order, builds and installs the wheel.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `make dist` (FLUJO_DIST names its folder), otherwise a newly built one."""
    folder = Path(os.environ["FLUJO_DIST"]) if "FLUJO_DIST" in os.environ else tmp_path_factory.mktemp("dist")
    if "FLUJO_DIST" not in os.environ:
        run(ROOT, sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), ".")
    (found,) = folder.glob("*.whl")
    return found.resolve()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with only the wheel and its dependencies.

    `make dist` installs these from the package index; otherwise they are linked from the environment of the tests.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    install = (sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--no-compile")
    if "FLUJO_DIST" in os.environ:
        run(folder, *install, "-c", str(ROOT / "constraints.txt"), str(wheel))
    else:
        run(folder, *install, "--no-deps", str(wheel))
        packages = Path(sysconfig.get_path("platlib", "venv", {"platbase": str(folder)}))
        (own,) = packages.glob("flujo-*.dist-info")
        for name in required(metadata.Distribution.at(own), frozenset(), {}):
            link(metadata.distribution(name), packages)
    return folder / "bin"


def required(
    distribution: metadata.Distribution, extras: frozenset[str], found: dict[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Add the names and extras of what a distribution requires, and of what those require."""
    for line in distribution.requires or ():
        each = Requirement(line)
        if each.marker and not any(each.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        name, wanted = canonicalize_name(each.name), frozenset(each.extras)
        if not wanted <= found.get(name, frozenset()) or name not in found:
            found[name] = found.get(name, frozenset()) | wanted
            required(metadata.distribution(name), found[name], found)
    return found


def link(distribution: metadata.Distribution, packages: Path) -> None:
    """Link the files of a distribution into another folder of packages."""
    for file in distribution.files or ():
        if ".." not in file.parts:
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            (packages / file).symlink_to(Path(str(distribution.locate_file(file))))


def test_the_wheel_makes_a_project_that_validates_migrates_and_runs(installed: Path, tmp_path: Path) -> None:
    flujo = str(installed / "flujo")
    run(tmp_path, flujo, "init", "shop")
    project = tmp_path / "shop"
    run(project, flujo, "validate")
    run(project, flujo, "migrate")
    assert run(project, flujo, "run", "hello", "--input", "Ada").startswith("Hello, Ada!")
    assert run(project, str(installed / "python"), "-m", "flujo", "--version").startswith("flujo ")


def test_the_wheel_contains_its_migrations_and_its_schema(installed: Path, tmp_path: Path) -> None:
    ask = (
        "import flujo, pathlib; here = pathlib.Path(flujo.__file__).parent; "
        "print(*sorted(str(p.relative_to(here)) for p in here.rglob('*') if p.is_file()), sep='\\n')"
    )
    files = run(tmp_path, str(installed / "python"), "-c", ask).splitlines()
    assert "_alembic/env.py" in files
    assert any(file.startswith("_alembic/versions/0001") for file in files)
    assert "blueprint/blueprint.schema.json" in files
    assert "py.typed" in files


def run(folder: Path, *command: str) -> str:
    """Run a command outside the checkout and return its stdout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLUJO_", "PYTHON"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env=kept,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
