"""Shared agents and defaults: the resolved agents, and the places of findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad.meaning_cases import ENTRY, SKILLS
from bad.sharing_cases import COMMON, REVIEWER, SHARING_CASES, common, entry, line_of
from flujo.blueprint.compiler import Compiled, check_agents, compile_blueprint
from flujo.blueprint.diagnostics import Severity, render
from flujo.blueprint.language import models
from flujo.blueprint.serializer import write_blueprint
from flujo.blueprint.sources import agent_includes
from flujo.blueprint.sources.secret_detection import SECRET_LITERAL
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import Step, StepConfig
from flujo.domain.values import Text
from flujo.exceptions import SettingsError
from good.sharing_cases import SHARED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bad.meaning_cases import Case


def compiled(files: Mapping[str, str]) -> Compiled:
    source = PinnedSource({path: text.encode() for path, text in files.items()})
    return compile_blueprint(ENTRY, source, allow_callables=["skills.*"])


@pytest.mark.parametrize("case", SHARING_CASES, ids=lambda case: case.name)
def test_an_error_in_sharing_has_one_finding_in_its_file(case: Case) -> None:
    files = case.all_files()
    found = compiled(files)
    said = [one for one in found.diagnostics if one.severity is not Severity.INFO]
    assert [one.code for one in said] == [case.code], [render(one, found.sources) for one in said]
    one = said[0]
    assert (one.span.file, one.span.line) == (case.file, case.line)
    assert case.words in f"{one.message} {one.hint}"
    assert one.severity == case.severity
    line = files[one.span.file].split("\n")[one.span.line - 1]
    assert case.under is None or line[one.span.column - 1 : one.span.end_column - 1] == case.under
    assert (found.pipeline is None) is (case.severity == "error")
    if case.file != ENTRY:
        assert (ENTRY, "included here") in [(span.file, label) for span, label in one.related]


@pytest.mark.parametrize("name", SHARED)
def test_a_look_alike_of_sharing_has_no_findings(name: str) -> None:
    files = {"skills/crm.py": SKILLS} | {path or ENTRY: text for path, text in SHARED[name].items()}
    found = compiled(files)
    assert [render(one, found.sources) for one in found.diagnostics] == []
    assert found.pipeline is not None


def agents(files: Mapping[str, str]) -> dict[str, AgentSpec]:
    """Return the agents of a blueprint's steps, by the steps' names."""
    found = compiled(files)
    assert found.pipeline is not None, [render(one, found.sources) for one in found.diagnostics]
    asked = {step.name: step.agent for step in found.pipeline.steps if isinstance(step, Step)}
    return {name: agent for name, agent in asked.items() if isinstance(agent, AgentSpec)}


def text(agent: AgentSpec) -> str | None:
    return agent.instructions.source if agent.instructions else None


def test_an_included_agent_runs_like_an_agent_of_the_blueprint() -> None:
    [agent] = agents({ENTRY: entry(), COMMON: REVIEWER}).values()
    assert agent == AgentSpec("reviewer", "a:b", instructions="Review the text.")


def test_an_agent_inherits_the_keys_that_it_does_not_set() -> None:
    base = (
        "  base: {model: a:b, instructions: 'Be kind.', template: false, retries: 3, tools: [skills.crm:echo],\n"
        "    output_schema: {type: string}, model_settings: {temperature: 0, max_tokens: 50}}\n"
    )
    own = (
        "  same: {extends: base}\n"
        "  other_text: {extends: base, instructions: 'Be {{ run.id }}.'}\n"
        "  other_shape: {extends: base, output_type: skills.crm:Ticket, tools: []}\n"
        "  hotter: {extends: same, model: c:d, model_settings: {temperature: 1}}\n"
    )
    names = ("same", "other_text", "other_shape", "hotter")
    steps = ", ".join(f"{{name: {name}, agent: {name}}}" for name in names)
    blueprint = entry(own).replace("{name: a, agent: reviewer}", steps)
    of = agents(
        {ENTRY: blueprint, COMMON: common(base)["blueprints/agents/common.yaml"], "skills/crm.py": SKILLS}
    )
    assert text(of["same"]) == "Be kind."
    assert of["same"].instructions == Text("Be kind.", literal=True)
    assert (of["same"].retries, of["same"].output_schema) == (3, {"type": "string"})
    assert of["other_text"].instructions == Text("Be {{ run.id }}.")
    assert of["other_text"].model_settings == {"temperature": 0, "max_tokens": 50}
    assert (of["other_shape"].output_schema, of["other_shape"].tools) == (None, ())
    assert of["other_shape"].output_type is not None
    assert (of["hotter"].model, of["hotter"].retries) == ("c:d", 3)
    assert of["hotter"].model_settings == {"temperature": 1, "max_tokens": 50}


def test_defaults_have_the_lowest_precedence() -> None:
    defaults = (
        "defaults: {agent: {model: d:e, retries: 7, model_settings: {temperature: 1, max_tokens: 9}}}\n"
    )
    shared = common("  reviewer: {instructions: x, model_settings: {temperature: 0}}\n")
    [agent] = agents({ENTRY: entry(more=defaults), **shared}).values()
    assert (agent.model, agent.retries) == ("d:e", 7)
    assert agent.model_settings == {"temperature": 0, "max_tokens": 9}


def test_paths_are_relative_to_the_file_that_names_them() -> None:
    files = {
        ENTRY: entry(
            "  legal: {extends: reviewer, instructions_file: prompts/legal.md}\n",
            include="../shared/all.yaml",
        ).replace("{name: a, agent: reviewer}", "{name: a, agent: reviewer}, {name: b, agent: legal}"),
        "shared/all.yaml": 'version: "1"\ninclude: [./deep/one.yaml]\nagents: {other: {model: a:b}}\n',
        "shared/deep/one.yaml": 'version: "1"\nagents: {reviewer: {model: a:b, instructions_file: ../review.md}}\n',
        "shared/review.md": "Review.",
        "blueprints/prompts/legal.md": "Review as a lawyer.",
    }
    of = agents(files)
    assert (text(of["a"]), of["a"].instructions_file) == ("Review.", "shared/review.md")
    assert (text(of["b"]), of["b"].instructions_file) == (
        "Review as a lawyer.",
        "blueprints/prompts/legal.md",
    )


def test_included_files_belong_to_the_closure_and_unused_prompts_do_not() -> None:
    files = {
        ENTRY: entry(),
        COMMON: REVIEWER + "  other: {model: a:b, instructions_file: ./other.md}\n",
        "blueprints/agents/other.md": "Nobody is asked this.",
    }
    before = compiled(files).closure
    assert set(before.files) == {ENTRY, COMMON}
    after = compiled(files | {COMMON: files[COMMON] + "# a word\n"}).closure
    assert after.digest != before.digest


def test_a_run_is_compiled_again_from_its_pinned_files() -> None:
    files = {
        ENTRY: entry("  legal: {extends: reviewer, instructions_file: ./legal.md}\n", ask="legal"),
        COMMON: REVIEWER,
        "blueprints/legal.md": "Review as a lawyer.",
    }
    found = compiled(files)
    again = compile_blueprint(ENTRY, PinnedSource(found.closure.files))
    assert again.pipeline == found.pipeline
    assert again.closure.digest == found.closure.digest


def test_files_of_agents_may_share_a_third() -> None:
    files = {
        ENTRY: entry(include="./one.yaml, ./two.yaml", ask="first").replace(
            "agent: first}", "agent: first}, {name: b, agent: second}"
        ),
        "blueprints/one.yaml": 'version: "1"\ninclude: [./base.yaml]\nagents: {first: {extends: base, retries: 1}}\n',
        "blueprints/two.yaml": 'version: "1"\ninclude: [./base.yaml]\nagents: {second: {extends: base, retries: 2}}\n',
        "blueprints/base.yaml": 'version: "1"\nagents: {base: {model: a:b}}\n',
    }
    of = agents(files)
    assert [(agent.model, agent.retries) for agent in of.values()] == [("a:b", 1), ("a:b", 2)]


def test_a_base_needs_no_model_and_no_step() -> None:
    own = "  base: {instructions: Review.}\n  legal: {extends: base, model: a:b}\n"
    assert compiled({ENTRY: entry(own, ask="legal", include="")}).diagnostics == ()


def test_a_chain_of_fifteen_extends_is_allowed() -> None:
    of = agents({ENTRY: entry(line_of(16), ask="a16"), COMMON: REVIEWER})
    assert text(of["a"]) == "Review."


def test_an_unreadable_file_is_the_only_finding() -> None:
    blueprint = entry("  legal: {extends: strict}\n", include="./nowhere.yaml").replace("reviewer", "legal")
    assert [one.code for one in compiled({ENTRY: blueprint}).diagnostics] == ["FLJ221"]


def test_an_override_reaches_included_agents() -> None:
    source = PinnedSource({ENTRY: entry().encode(), COMMON: REVIEWER.encode()})
    found = compile_blueprint(ENTRY, source, overrides={"agents.reviewer.model": "x:y"})
    assert found.pipeline is not None
    [step] = found.pipeline.steps
    assert isinstance(step, Step)
    assert isinstance(step.agent, AgentSpec)
    assert step.agent.model == "x:y"


def test_models_of_unused_included_agents_change_nothing() -> None:
    library = REVIEWER + "  idle: {model: a:b}\n"
    source = PinnedSource({ENTRY: entry().encode(), COMMON: library.encode()})
    models = {"idle": "x:y", "reviewer": "c:d"}
    assert compile_blueprint(ENTRY, source, models=models).closure.overrides == {
        "agents.reviewer.model": "c:d"
    }
    with pytest.raises(SettingsError, match="there is no agent 'idle'"):
        compile_blueprint(ENTRY, source, overrides={"agents.idle.model": "x:y"})


def test_expressions_know_the_output_schema_of_an_included_agent() -> None:
    shaped = common(
        "  reviewer: {model: a:b, output_schema: {type: object, required: [ok], properties: {ok: {type: boolean}}}}\n"
    )
    blueprint = entry(
        "  legal: {extends: reviewer}\n", ask="legal", more='output: "{{ steps.a.output.okay }}"\n'
    )
    [found] = compiled({ENTRY: blueprint, **shaped}).diagnostics
    assert (found.code, found.span.file) == ("FLJ204", ENTRY)
    assert "did you mean `ok`?" in str(found.hint)


def test_a_blueprint_with_shared_agents_equals_the_full_tree_in_python() -> None:
    files = {
        ENTRY: entry(
            "  legal: {extends: reviewer, retries: 2}\n",
            ask="legal",
            more="defaults: {agent: {model_settings: {max_tokens: 9}}, config: {timeout_s: 5}}\n",
        ),
        COMMON: REVIEWER,
    }
    legal = AgentSpec(
        "legal", "a:b", instructions="Review the text.", retries=2, model_settings={"max_tokens": 9}
    )
    tree = Pipeline((Step(name="a", agent=legal, config=StepConfig(timeout_s=5.0)),), name="case")
    assert compiled(files).pipeline == tree
    assert compiled(write_blueprint(tree, ENTRY)).pipeline == tree


KEYS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["a:b", "c:d"]),
    "instructions": st.sampled_from(["one", "two"]),
    "instructions_file": st.sampled_from(["one.md", "two.md"]),
    "template": st.booleans(),
    "output_schema": st.sampled_from([{"type": "string"}, {"type": "integer"}]),
    "output_type": st.sampled_from(["m:A", "m:B"]),
    "model_settings": st.dictionaries(
        st.sampled_from(["temperature", "seed"]), st.integers(0, 2), max_size=2
    ),
    "retries": st.integers(0, 3),
    "tools": st.lists(st.sampled_from(["m:f", "m:g"]), max_size=2),
}
PAIRS = ({"instructions", "instructions_file"}, {"output_schema", "output_type"})
AGENTS = (
    st.fixed_dictionaries({}, optional=KEYS)
    .filter(lambda said: not any(pair <= said.keys() for pair in PAIRS))
    .map(models.Agent.model_validate)
)


@given(AGENTS, AGENTS, AGENTS)
def test_a_chain_of_agents_gives_the_same_result_in_every_arrangement(
    low: models.Agent, middle: models.Agent, high: models.Agent
) -> None:
    one = agent_includes.over(agent_includes.over(low, middle), high)
    other = agent_includes.over(low, agent_includes.over(middle, high))
    assert one.model_dump() == other.model_dump()
    said = high.model_dump(exclude_unset=True, exclude={"model_settings"})
    assert said.items() <= one.model_dump().items()
    models.Agent.model_validate(one.model_dump(exclude_unset=True))  # never both of a pair
    assert agent_includes.over(high, high).model_dump() == high.model_dump()


# Defaults of steps ---------------------------------------------------------------------------------------


def test_steps_with_an_agent_or_a_call_get_the_default_config_and_others_do_not() -> None:
    blueprint = """\
version: "1"
name: case
defaults: {config: {timeout_s: 30, max_retries: 2}}
agents: {reviewer: {model: a:b}}
steps:
  - name: plain
    agent: reviewer
    fallback: {call: "skills.crm:plain"}
  - kind: loop
    name: again
    until: steps.own.output == "x"
    steps:
      - {name: own, agent: reviewer, config: {timeout_s: 5}}
      - {kind: conditional, name: way, if: "true", then: [{name: inner, agent: reviewer, config: {max_retries: 0}}]}
  - kind: cache
    name: kept
    step: {name: once, agent: reviewer}
  - {kind: hitl, name: ask, message: "Well?"}
"""
    found = compiled({ENTRY: blueprint, "skills/crm.py": SKILLS})
    assert found.pipeline is not None, [render(one, found.sources) for one in found.diagnostics]
    config = {
        step.name: (step.config.timeout_s, step.config.max_retries) for _, step in found.pipeline.walk()
    }
    assert config == {
        "plain": (30.0, 2), "fallback": (30.0, 2), "again": (None, 0), "own": (5.0, 2), "way": (None, 0),
        "inner": (30.0, 0), "kept": (None, 0), "once": (30.0, 2), "ask": (None, 0),
    }  # fmt: skip


# A file of agents by itself ------------------------------------------------------------------------------


def test_a_file_of_agents_is_checked_on_its_own() -> None:
    def found(text: str) -> list[str]:
        source = PinnedSource({COMMON: text.encode(), "skills/crm.py": SKILLS.encode()})
        return [one.code for one in check_agents(COMMON, source, allow_callables=["skills.*"]).diagnostics]

    assert found(REVIEWER) == []
    assert found(common("  reviewer: {instructions: x}\n")[COMMON]) == []
    assert found(common("  reviewer: {model: a:b, tools: [skills.crm:eco]}\n")[COMMON]) == ["FLJ251"]
    assert found(common("  reviewer: {extends: nobody}\n")[COMMON]) == ["FLJ270"]
    assert found(common("  reviewer: {model: a:b, instructions_file: ./x.md}\n")[COMMON]) == ["FLJ221"]


def test_a_comment_in_a_file_of_agents_may_be_meant_for_any_blueprint() -> None:
    ignoring = common("  reviewer: {model: a:b}  # flujo: ignore[FLJ271] the provider bounds it\n")
    assert compiled({ENTRY: entry(), **ignoring}).diagnostics == ()


def test_a_secret_in_a_file_of_agents_is_found_and_never_shown() -> None:
    secret = "sk-" + "a1B2" * 8
    found = compiled({ENTRY: entry(), **common(f"  reviewer: {{model: a:b, instructions: {secret}}}\n")})
    assert [one.code for one in found.diagnostics] == [SECRET_LITERAL.code]
    assert secret not in "".join(render(one, found.sources) for one in found.diagnostics)
