"""`flujo validate` for machines, and what `--fix` changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from inline_snapshot import snapshot

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

WRONG = """\
version: 1
name: wrong  # a comment that stays
steps:
  - name: one
    call:   skills.greet:greet
    wth: {name: Ada}   # and this one
  - name: two
    kind: conditonal
    if: !steps.one.output
    then: [{name: three, call: skills.greet:greet, with: {name: Ada}}]
"""


def test_sarif_names_rules_places_and_fixes(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    result = flujo("validate", "wrong", "--format", "sarif")
    assert result.exit_code == 4
    log = json.loads(result.stdout)
    assert log["version"] == "2.1.0"
    [run] = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for found in run["results"]:
        assert rules[found["ruleIndex"]]["id"] == found["ruleId"]
    key = next(found for found in run["results"] if "`wth`" in found["message"]["text"])
    assert key["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "blueprints/wrong.yaml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 6, "startColumn": 5, "endLine": 6, "endColumn": 8},
    }
    [change] = key["fixes"][0]["artifactChanges"]
    assert change["replacements"][0]["insertedContent"]["text"] == "with"


def test_junit_has_a_case_for_each_blueprint(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    suite = ET.fromstring(flujo("validate", "wrong", "hello", "--format", "junit").stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert {case.get("name") for case in suite} == {"blueprints/wrong.yaml", "blueprints/hello.yaml"}
    assert any("wrong.yaml:6:5" in (failure.text or "") for failure in suite.iter("failure"))


def test_diff_shows_the_fixes_and_writes_nothing(flujo: Flujo, project: Project) -> None:
    path = project.blueprint("wrong", WRONG)
    result = flujo("validate", "wrong", "--diff")
    assert result.exit_code == 4
    assert result.stdout == snapshot("""\
--- blueprints/wrong.yaml
+++ blueprints/wrong.yaml
@@ -3,8 +3,8 @@
 steps:
   - name: one
     call:   skills.greet:greet
-    wth: {name: Ada}   # and this one
+    with: {name: Ada}   # and this one
   - name: two
-    kind: conditonal
-    if: !steps.one.output
+    kind: conditional
+    if: '!steps.one.output'
     then: [{name: three, call: skills.greet:greet, with: {name: Ada}}]
""")
    assert path.read_text("utf-8") == WRONG
    assert "1 file would change" in result.stderr


def test_fix_changes_only_the_findings_with_a_fix(flujo: Flujo, project: Project) -> None:
    path = project.blueprint("wrong", WRONG)
    path.chmod(0o640)
    assert "next: flujo validate --fix" in flujo("validate", "wrong").stderr
    result = flujo("validate", "wrong", "--fix")
    text = path.read_text("utf-8")
    assert "    call:   skills.greet:greet\n    with: {name: Ada}   # and this one\n" in text
    assert "version: 1\nname: wrong  # a comment that stays\n" in text
    assert "kind: conditional\n    if: '!steps.one.output'\n" in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert "fixed blueprints/wrong.yaml" in result.stderr
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []
    flujo("validate", "wrong", "--fix")
    assert path.read_text("utf-8") == text, "what is mended is not mended again"


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_ends_and_a_byte_order_mark_stay(ending: str, flujo: Flujo, project: Project) -> None:
    path = project.blueprint("wrong", "")
    path.write_bytes(("\ufeff" + WRONG.replace("\n", ending)).encode())
    flujo("validate", "wrong", "--fix")
    data = path.read_bytes().decode()
    assert data.startswith("\ufeffversion:")
    assert data.count("\n") == WRONG.count("\n")
    assert data.count("\r\n") == (WRONG.count("\n") if ending == "\r\n" else 0)


SPARE = """\
version: "1"
name: spare
agents:
  spare: {model: "local:smollm2"}COMMENT
steps:
  - {name: greet, call: skills.greet:greet, with: {name: "# flujo: ignore[FLJ204] a text"}}
"""


def _codes(flujo: Flujo, project: Project, comment: str) -> list[tuple[str, int]]:
    project.blueprint("spare", SPARE.replace("COMMENT", comment))
    [report] = json.loads(flujo("validate", "spare", "--json").stdout)
    return [(found["code"], found["span"]["line"]) for found in report["diagnostics"]]


def test_a_warning_is_ignored_on_its_line_with_a_reason(flujo: Flujo, project: Project) -> None:
    [(code, line)] = _codes(flujo, project, "")
    assert line == 4
    assert _codes(flujo, project, f"  # flujo: ignore[{code}] for the next release") == []
    above = SPARE.replace("COMMENT", "").replace("  spare:", f"  # flujo: ignore[{code}] soon\n  spare:")
    project.blueprint("spare", above)
    assert flujo("validate", "spare").stdout == ""


def test_an_ignore_is_judged_itself(flujo: Flujo, project: Project) -> None:
    [(code, _)] = _codes(flujo, project, "")
    assert _codes(flujo, project, f"  # flujo: ignore[{code}]") == [("FLJ190", 4)], "no reason"
    assert _codes(flujo, project, "  # flujo: ignore because") == [(code, 4), ("FLJ190", 4)], "no code"
    assert _codes(flujo, project, "  # flujo: ignore[FLJ2999] x") == [(code, 4), ("FLJ190", 4)], "no rule"
    assert _codes(flujo, project, "\nname: x  # flujo: ignore[FLJ121] x")[-1][0] != code


def test_an_error_is_never_ignored(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG.replace("# and this one", "# flujo: ignore[FLJ120] it is fine"))
    found = json.loads(flujo("validate", "wrong", "--json").stdout)[0]["diagnostics"]
    assert {"FLJ120", "FLJ190"} <= {each["code"] for each in found}
