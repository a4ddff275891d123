"""Checking reads and never runs; every finding comes once, with the words of its rule."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import SettingsError
from flujo.services.admin.scaffold import scaffold
from flujo.services.checks.validation import as_data, check, codes, explain_rule, rendered, schema_text
from flujo.services.project.project import find_project

if TYPE_CHECKING:
    from pathlib import Path

CHILD = 'version: "1"\nname: child\nsteps: [{name: a, cll: "skills.greet:greet"}]\n'
PARENT = 'version: "1"\nname: {name}\nsteps: [{{kind: import, name: inner, blueprint: ./child.yaml}}]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    scaffold(tmp_path, "demo")
    return tmp_path


def test_an_error_in_a_shared_import_is_reported_once(root: Path) -> None:
    (root / "blueprints/child.yaml").write_text(CHILD, "utf-8")
    for name in ("one", "two"):
        (root / f"blueprints/{name}.yaml").write_text(PARENT.format(name=name), "utf-8")
    reports = check(
        find_project(root), ["blueprints/one.yaml", "blueprints/two.yaml", "blueprints/child.yaml"]
    )
    found = [
        finding
        for report in reports
        for finding in report.diagnostics
        if finding.span.file.endswith("child.yaml")
    ]
    assert len(found) == len(set(found)) >= 1


def test_a_finding_is_rendered_with_the_line_of_its_own_file(root: Path) -> None:
    (root / "blueprints/child.yaml").write_text(CHILD, "utf-8")
    (report,) = check(find_project(root), ["blueprints/child.yaml"])
    text = rendered(report.diagnostics[0], report.sources)
    assert "--> blueprints/child.yaml:3:" in text
    assert "cll" in text
    assert as_data(report.diagnostics[0])["span"]["file"] == "blueprints/child.yaml"
    assert not report.is_valid


def test_checking_imports_nothing_that_a_blueprint_names(root: Path) -> None:
    (root / "skills/greet.py").write_text("raise SystemExit('imported')\n\n\ndef greet(name): ...\n", "utf-8")
    [report] = check(find_project(root), ["blueprints/hello.yaml"])
    assert report.is_valid
    assert "skills.greet" in report.sources["blueprints/hello.yaml"], "the blueprint does name it"
    assert "skills.greet" not in sys.modules


def test_the_schema_is_json(root: Path) -> None:
    assert json.loads(schema_text())["$schema"].startswith("https://json-schema.org/")


def test_a_rule_is_found_by_its_slug_too() -> None:
    rules = [code for code in codes() if code.startswith("FLJ2")]
    text = explain_rule(rules[0])
    slug = text.split()[2].rstrip(":")
    assert explain_rule(slug) == text


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(SettingsError, match="no rule or error"):
        explain_rule("FLJ0")
