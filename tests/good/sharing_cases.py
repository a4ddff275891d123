"""Valid ways to share agents that resemble errors: no findings are allowed."""

from __future__ import annotations

from bad.sharing_cases import COMMON, REVIEWER, common, entry, line_of

MORE = "blueprints/agents/more.yaml"
OTHER = 'version: "1"\nagents:\n  other: {model: a:b, instructions: Something else.}\n'

SHARED: dict[str, dict[str, str]] = {
    "a file that is included twice": {"": entry(include="./agents/common.yaml, agents/common.yaml"), COMMON: REVIEWER},
    "a path up and down again": {"": entry(include="../blueprints/agents/common.yaml"), COMMON: REVIEWER},
    "a library of which one agent is asked": {"": entry(), **common("  reviewer: {model: a:b}\n  idle: {model: a:b}\n")},
    "an idle agent whose prompt is missing": {
        "": entry(), **common("  reviewer: {model: a:b}\n  idle: {model: a:b, instructions_file: ./nowhere.md}\n"),
    },
    "a base without a model": {"": entry("  legal: {extends: base, model: a:b}\n", ask="legal"),
                               **common("  base: {instructions: Review.}\n")},
    "a model for whoever names none": {"": entry(more="defaults: {agent: {model: a:b}}\n"),
                                       **common("  reviewer: {instructions: Review.}\n")},
    "the last place in a line of extends": {"": entry("  last: {extends: a15}\n", ask="last"), **common(line_of(15))},
    "extends written before its base": {"": entry("  legal: {extends: later}\n  later: {model: a:b}\n", ask="legal", include=""),
                                        COMMON: REVIEWER},
    "a text instead of the base's file": {
        "": entry("  legal: {extends: reviewer, instructions: Short.}\n", ask="legal"),
        **common("  reviewer: {model: a:b, instructions_file: ./review.md}\n"), "blueprints/agents/review.md": "Long.",
    },
    "a class instead of the base's schema": {
        "": entry("  legal: {extends: reviewer, output_type: skills.crm:Ticket}\n", ask="legal"),
        **common("  reviewer: {model: a:b, output_schema: {type: string}}\n"),
    },
    "two files that include a third": {
        "": entry("  mine: {extends: other}\n", ask="mine", include="./agents/common.yaml, ./agents/more.yaml").replace("agent: mine}", "agent: mine}, {name: b, agent: reviewer}"), COMMON: REVIEWER.replace("agents:", "include: [./base.yaml]\nagents:"),
        MORE: OTHER.replace("agents:", "include: [./base.yaml]\nagents:"),
        "blueprints/agents/base.yaml": 'version: "1"\nagents: {base: {instructions: Be kind.}}\n',
    },
    "an agent called as a step": {"": entry("  a: {extends: reviewer}\n", ask="a"), COMMON: REVIEWER},
    "defaults that say nothing": {"": entry(more="defaults: {}\n"), COMMON: REVIEWER},
    "a default that one step says otherwise": {
        "": entry(more="defaults: {config: {max_retries: 2}}\n").replace(
            "agent: reviewer}", "agent: reviewer}, {name: b, call: skills.crm:plain, effect: unsafe, config: {max_retries: 0}}"),
        COMMON: REVIEWER,
    },
    "a bound from the defaults under a budget": {
        "": entry(more="budget: {total_tokens_limit: 900}\ndefaults: {agent: {model_settings: {max_tokens: 100}}}\n"), COMMON: REVIEWER,
    },
    "an import beside an include": {
        "": entry().replace("agent: reviewer}", "agent: reviewer}, {kind: import, name: c, blueprint: ./child.yaml}"),
        COMMON: REVIEWER,
        "blueprints/child.yaml": entry().replace("name: case", "name: child"),
    },
}  # fmt: skip
"""Files by their paths; the blueprint itself has an empty path."""
