"""Blueprints in installed packages: which files are found, which are refused, and the closure with them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.lock.snapshot import contents
from flujo.blueprint.rules.autofix import apply_fixes
from flujo.blueprint.serializer import write_blueprint
from flujo.blueprint.sources.source_files import FileSource, PinnedSource, RevisionSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.sources.source_files import Source

ENTRY = "blueprints/desk.yaml"
FILES = {
    "__init__.py": "raise RuntimeError('the package was imported')\n",
    "greet.yaml": 'version: "1"\nname: greet\ninput_schema: {$ref: ./schemas/name.json}\n'
    "agents: {writer: {model: a:b, instructions_file: prompts/writer.md}}\n"
    "steps:\n  - {kind: import, name: inner, blueprint: ./flows/inner.yaml}\n  - {name: say, agent: writer}\n",
    "flows/inner.yaml": 'version: "1"\nname: inner\nsteps: [{name: look, call: "acme_flows.skills:look"}]\n',
    "flows/out.yaml": 'version: "1"\nname: out\nsteps: [{kind: import, name: a, blueprint: ../../desk.yaml}]\n',
    "flows/other.yaml": 'version: "1"\nname: o\nsteps: [{name: look, call: "other.skills:look"}]\n',
    "prompts/writer.md": "Greet.\n",
    "schemas/name.json": '{"type": "string"}',
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an installed package whose code must not be executed."""
    folder = tmp_path / "site" / "acme_flows"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(folder.parent)
    importlib.invalidate_caches()
    return folder


def read(
    root: Path,
    named: str = "pkg:acme_flows/greet.yaml",
    allow: Sequence[str] | None = ("acme_flows", "acme_flows.skills"),
) -> Compiled:
    """Return a blueprint of a project that imports `named`."""
    (root / ENTRY).parent.mkdir(exist_ok=True)
    text = f'version: "1"\nname: desk\ninput_schema: {{type: string}}\nsteps:\n  - kind: import\n    name: hello\n    blueprint: "{named}"\n'
    (root / ENTRY).write_text(text, "utf-8")
    return compile_blueprint(ENTRY, FileSource(root), allow_callables=allow)


@pytest.mark.parametrize("allow", [("acme_flows", "acme_flows.skills"), None])
def test_a_blueprint_of_a_package_is_read_with_the_files_that_it_names(
    package: Path, tmp_path: Path, allow: Sequence[str] | None
) -> None:
    result = read(tmp_path, allow=allow)
    assert [each.code for each in result.diagnostics] == ["FLJ253"]  # it is not imported to be checked
    assert set(result.closure.files) == {
        ENTRY,
        "pkg:acme_flows/greet.yaml",
        "pkg:acme_flows/flows/inner.yaml",
        "pkg:acme_flows/prompts/writer.md",
        "pkg:acme_flows/schemas/name.json",
    }
    (package / "prompts/writer.md").write_text("Greet warmly.\n", "utf-8")
    assert read(tmp_path, allow=allow).closure.digest != result.closure.digest
    pinned = compile_blueprint(ENTRY, PinnedSource(result.closure.files), allow_callables=allow)
    assert pinned.pipeline == result.pipeline


@pytest.mark.parametrize(
    ("named", "code", "what", "hint"),
    [
        ("pkg:acme_flows/gret.yaml", "FLJ221", "has no file 'gret.yaml'", "did you mean `pkg:acme_flows/greet.yaml`"),
        ("pkg:nowhere/greet.yaml", "FLJ221", "no package `nowhere` is installed", "install it"),
        ("pkg:own/greet.yaml", "FLJ220", "is a folder of this project", "../own/greet.yaml"),
        ("pkg:acme_flows/../greet.yaml", "FLJ220", "not a plain path", "pkg:acme_flows/greet.yaml"),
        ("pkg:acme_flows", "FLJ220", "not a plain path", "pkg:acme_flows/greet.yaml"),
        ("pkg:acme_flows/flows/out.yaml", "FLJ220", "leads out of the package `acme_flows`", "inside the package"),
        ("pkg:acme_flows/flows/other.yaml", "FLJ250", "`other.skills:look`", "allow_callables"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("package")
def test_other_paths_and_packages_are_refused(
    tmp_path: Path, named: str, code: str, what: str, hint: str
) -> None:
    (tmp_path / "own").mkdir()
    result = read(tmp_path, named, allow=("acme_flows", "skills.*", "nowhere", "own"))
    found = result.diagnostics[0]
    assert (found.code, result.pipeline) == (code, None)
    assert what in found.message
    assert hint in (found.hint or "")


def test_a_link_that_leads_out_of_a_package_is_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(FILES["flows/inner.yaml"], "utf-8")
    (package / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    found = read(tmp_path, "pkg:acme_flows/link.yaml").diagnostics[0]
    assert (found.code, "symbolic link" in found.message) == ("FLJ220", True)


def test_no_fix_changes_a_file_of_a_package(package: Path, tmp_path: Path) -> None:
    (package / "greet.yaml").write_text(FILES["flows/inner.yaml"].replace("steps", "step"), "utf-8")
    read(tmp_path)

    def findings(source: Source) -> Sequence[Diagnostic]:
        return compile_blueprint(ENTRY, source, allow_callables=None).diagnostics

    assert [each.span.file for each in findings(FileSource(tmp_path))] == ["pkg:acme_flows/greet.yaml"]
    assert apply_fixes(FileSource(tmp_path), findings) == {}


@pytest.mark.usefixtures("package")
def test_a_written_pipeline_and_a_lock_name_the_blueprint_of_a_package(tmp_path: Path) -> None:
    result = read(tmp_path)
    assert result.pipeline is not None
    written = write_blueprint(result.pipeline, ENTRY)
    assert list(written) == [ENTRY]
    assert "pkg:acme_flows/greet.yaml" in written[ENTRY]
    locked = contents({ENTRY: result.pipeline}, FileSource(tmp_path))
    assert {"pkg:acme_flows/greet.yaml", "pkg:acme_flows/flows/inner.yaml"} < locked["blueprints"].keys()


@pytest.mark.usefixtures("package")
def test_the_files_of_a_package_at_a_revision_are_those_of_today() -> None:
    source = RevisionSource("abc", lambda _path: None)
    assert source.read("pkg:acme_flows/prompts/writer.md") == b"Greet.\n"
