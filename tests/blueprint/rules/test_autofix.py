"""Fixes that the hints of findings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.rules.autofix import apply_fixes
from flujo.blueprint.sources.source_files import PinnedSource

if TYPE_CHECKING:
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.sources.source_files import Source


def test_a_misspelt_name_is_corrected_wherever_its_hint_says_what_is_meant() -> None:
    text = (
        'version: "1"\nname: x\nagents: {writer: {model: local:smollm2}}\nsteps:\n'
        "  - {name: first, agent: wrtier}\n"
        "  - {name: second, call: skills.greet.greet}\n"
        "  - {name: third, call: 'skils.greet:greet', with: {data: '{{ steps.frist.output }} {{ inptu }}'}}\n"
    )

    def findings(source: Source) -> tuple[Diagnostic, ...]:
        return compile_blueprint("x.yaml", source, allow_callables=["skills.*"]).diagnostics

    fixed = apply_fixes(PinnedSource({"x.yaml": text.encode()}), findings)["x.yaml"]
    assert fixed == (
        text.replace("wrtier", "writer")
        .replace("skills.greet.greet", "skills.greet:greet")
        .replace("'skils.greet:greet'", "skills.greet:greet")
        .replace("frist", "first")
        .replace("inptu", "input")
    )
