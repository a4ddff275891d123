"""What looks like a secret comes back in no format of no finding, wherever in a blueprint it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

TOKEN = "ghp_Ab3dEf6hIj9kLm2nOp5qRs8tUvWx"  # invented
RANDOM = "q8Zr2LxW0vTn5KjHs7BdYc3MfG9pA4e"
HEAD = 'version: "1"\nname: leaky\n'
STEPS = "steps:\n  - {name: one, call: skills.greet:greet, with: {name: Ada}}\n"
LEAKS = {
    "a value of the wrong type": f"{HEAD}persist_state: {TOKEN}\n{STEPS}",
    "a key that nobody knows": f"{HEAD}{TOKEN}: 1\n{STEPS}",
    "the name of a step": f"{HEAD}steps:\n  - {{name: {TOKEN}-, call: skills.greet:greet}}\n",
    "an expression": f"{HEAD}steps:\n  - {{name: one, call: skills.greet:greet, when: !expr {TOKEN}}}\n"
    f"  - {{name: two, call: skills.greet:greet, with: {{name: '{{{{ {TOKEN} }}}}'}}}}\n",
    "a path": f"{HEAD}steps:\n  - {{kind: import, name: one, blueprint: ./{TOKEN}.yaml}}\n",
    "an agent nobody declared": f"{HEAD}steps:\n  - {{name: one, agent: {TOKEN}}}\n",
    "a callable": f"{HEAD}steps:\n  - {{name: one, call: {TOKEN}}}\n",
    "broken YAML": f"{HEAD}config: [api_key: {RANDOM}\n{STEPS}",
    "random text by its name": f"{HEAD}agents: {{a: {{model: x:y, api_key: {RANDOM}}}}}\n{STEPS}",
    "beside what is mended": f"version: 1\nname: leaky # {TOKEN}\n{STEPS.replace('with', 'wth')}",
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("form", ["text", "json", "github", "sarif", "junit", "--diff"])
def test_no_finding_repeats_a_secret(flujo: Flujo, project: Project, leak: str, form: str) -> None:
    project.blueprint("leaky", LEAKS[leak])
    result = flujo("validate", "leaky", *(["--diff"] if form == "--diff" else ["-v", "--format", form]))
    assert result.exit_code == 4
    for secret in (TOKEN, RANDOM):
        assert secret[4:14] not in result.stdout + result.stderr


@pytest.mark.parametrize("leak", LEAKS)
def test_a_refused_run_repeats_none_either(flujo: Flujo, project: Project, leak: str) -> None:
    project.blueprint("leaky", LEAKS[leak])
    for extra in ([], ["--json"]):
        result = flujo("run", "leaky", *extra)
        assert result.exit_code == 4
        assert not any(secret[4:14] in result.stdout + result.stderr for secret in (TOKEN, RANDOM))
