"""Mistakes in rules for personal data, budgets and evaluations end a command before it does anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

TALK = """\
version: "1"
name: talk
input_schema: {type: string}
agents: {helper: {model: "openai-chat:gpt-4o-mini", model_settings: {max_tokens: 100}}}
steps: [{name: help, agent: helper}]
"""
RULE = '[[budgets.rule]]\nname = "support"\nrequests_limit = 1\n'
JUDGE = '[evaluation.evaluators.kind]\njudge = "Is it kind?"\n'
EXPRESSION = '[evaluation.evaluators.kind]\nexpr = "true"\n'
CASES = "blueprint: talk\nevaluators: [kind]\ncases:\n- {name: a, input: x}\n"
RUN, EVALS = "run talk --input x", "evals run talk"

MISTAKES: dict[str, tuple[str, str, str, str]] = {
    "an unknown entity": (
        '[governance]\npii_scrub = true\nentities = ["emial"]\n',
        CASES,
        RUN,
        "did you mean `email`?",
    ),
    "an unknown language": ('[governance]\nlocales = ["xx"]\n', CASES, RUN, "`locales` has 'xx'"),
    "an unknown key": ("[governance]\npii_scrubb = true\n", CASES, RUN, "did you mean `pii_scrub`?"),
    "a rule that can never match": (
        f'{RULE}match = {{blueprint = "talk", pipeline = "talk"}}\n',
        CASES,
        RUN,
        "so the rule can never match",
    ),
    "a rule that limits nothing": (
        '[[budgets.rule]]\nname = "support"\n',
        CASES,
        RUN,
        "rule 'support' limits nothing",
    ),
    "a budget of a blueprint that does not exist": (
        f'{RULE}match = {{blueprint = "talks"}}\n',
        CASES,
        "validate",
        "this project has no blueprint with the name 'talks'",
    ),
    "an unknown field of a case": (
        EXPRESSION,
        CASES.replace("input", "inptu"),
        EVALS,
        "evals/talk.yaml:4:13",
    ),
    "an unknown field of the file": (
        EXPRESSION,
        CASES.replace("cases:", "thresold: {}\ncases:"),
        EVALS,
        "did you mean `thresholds`?",
    ),
    "an unknown evaluator": (EXPRESSION, CASES.replace("kind", "knd"), EVALS, "did you mean `kind`?"),
    "a judge without a model": (JUDGE, CASES, EVALS, "evaluator 'kind' has no model that judges"),
    "two kinds of evaluator": (f'{JUDGE}expr = "true"\n', CASES, EVALS, "one of `judge`, `call` and `expr`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_nothing_runs(
    project: Project, flujo: Flujo, mistake: str
) -> None:
    toml, cases, words, message = MISTAKES[mistake]
    project.blueprint("talk", TALK)
    settings = project.root / "flujo.toml"
    before = settings.read_text("utf-8")
    settings.write_text(f"{before}\n{toml}", "utf-8")
    (project.root / "evals").mkdir()
    (project.root / "evals/talk.yaml").write_text(cases, "utf-8")
    refused = flujo(*words.split())
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr
    assert "hint: " in refused.stderr
    assert any(f"{file}:" in refused.stderr for file in ("flujo.toml", "evals/talk.yaml"))
    assert "Traceback" not in refused.output
    assert not (project.root / ".flujo/state.db").exists()
