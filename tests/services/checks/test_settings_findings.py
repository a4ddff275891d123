"""`flujo validate` checks the models of `[agents.NAME]` that a blueprint uses, with the line of flujo.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.services.checks.validation import check, rendered
from flujo.services.project.project import find_project

if TYPE_CHECKING:
    from pathlib import Path

BLUEPRINT = """\
version: "1"
name: NAME
agents: {writer: {model: openai:gpt-5-mini}}
steps: [{name: write, agent: writer}]
"""
SETTINGS = """\
[agents.writer]
model = "opnai:gpt-5-mini"

[agents.other]
model = "nope"
"""


def test_a_model_of_the_settings_that_no_provider_has_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "blueprints").mkdir()
    for name in ("one", "two"):
        (tmp_path / "blueprints" / f"{name}.yaml").write_text(BLUEPRINT.replace("NAME", name))
    settings = tmp_path / "flujo.toml"
    settings.write_text(SETTINGS)
    paths = ["blueprints/one.yaml", "blueprints/two.yaml"]
    first, second = check(find_project(tmp_path), paths)
    [found] = [each for each in first.diagnostics if each.code == "FLJ151"]
    assert (found.span.file, found.span.line, found.severity) == ("flujo.toml", 2, "error")
    assert (found.hint or "").startswith("did you mean `openai:gpt-5-mini`?")
    assert '2 | model = "opnai:gpt-5-mini"' in rendered(found, first.sources)
    assert not first.is_valid
    assert [each.code for each in second.diagnostics if each.code == "FLJ151"] == []
    settings.write_text(f'{SETTINGS}\n[providers.opnai]\nbase_url = "http://127.0.0.1:1/v1"\n')
    assert all(report.is_valid for report in check(find_project(tmp_path), paths))
