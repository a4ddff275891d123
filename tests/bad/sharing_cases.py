"""Errors in sharing agents: includes, extends and defaults."""

from __future__ import annotations

from bad.meaning_cases import Case

COMMON = "blueprints/agents/common.yaml"
REVIEWER = """\
version: "1"
agents:
  reviewer: {model: a:b, instructions: Review the text.}
"""
"""A file of agents; its agents start on line 3."""
INCLUDE = "./agents/common.yaml"


def entry(agents: str = "", *, include: str = INCLUDE, ask: str = "reviewer", more: str = "") -> str:
    """Return a blueprint: `include` on line 3, a step on line 4, more keys from line 5, agents last."""
    return f'version: "1"\nname: case\ninclude: [{include}]\nsteps: [{{name: a, agent: {ask}}}]\n{more}' + (
        f"agents:\n{agents}" if agents else ""
    )


def case(
    name: str, code: str, words: str, under: str | None, line: int, whole: str = "", **more: object
) -> Case:
    """Return a case whose blueprint is `whole`, beside the file of one reviewer."""
    files = {COMMON: REVIEWER, **more.pop("files", {})}  # type: ignore[dict-item]  # texts by path
    return Case(name, "", code, words, under, line, entry=whole or entry(), files=files, **more)  # type: ignore[arg-type]


def common(agents: str, *, top: str = "") -> dict[str, str]:
    """Return the file of agents with other agents, from line 3 when there is no `top`."""
    return {COMMON: f'version: "1"\n{top}agents:\n{agents}'}


def line_of(count: int) -> str:
    """Return agents that extend each other: `a1` has all keys, and `a{count}` extends all others."""
    rest = "".join(f"  a{n}: {{extends: a{n - 1}}}\n" for n in range(2, count + 1))
    return "  a1: {model: a:b, instructions: Review.}\n" + rest


INCLUDING = [
    case("include-missing", "FLJ221", "'./agents/comon.yaml' is not read", "./agents/comon.yaml", 3,
         entry(include="./agents/comon.yaml")),
    case("include-out-of-the-project", "FLJ220", "leads out of the project", "../../common.yaml", 3,
         entry(include="../../common.yaml")),
    case("include-absolute", "FLJ220", "absolute path", "/etc/agents.yaml", 3, entry(include="/etc/agents.yaml")),
    case("include-address", "FLJ220", "it is a URL", "'https://example.org/a.yaml'", 3,
         entry(include="'https://example.org/a.yaml'")),
    case("include-home", "FLJ220", "a home directory", "'~/agents.yaml'", 3, entry(include="'~/agents.yaml'")),
    case("include-no-yaml-name", "FLJ220", "not a plain path", "./agents/common", 3, entry(include="./agents/common")),
    case("include-a-blueprint", "FLJ275", "is a blueprint, but this key needs a file of agents", "./other.yaml", 3,
         entry(include=f"{INCLUDE}, ./other.yaml"), files={"blueprints/other.yaml": entry()}),
    case("include-itself", "FLJ275", "is a blueprint", "./case.yaml", 3, entry(include=f"{INCLUDE}, ./case.yaml")),
    case("import-a-file-of-agents", "FLJ275", "is a file of agents, but this key needs a blueprint", "./agents/common.yaml", 3,
         'version: "1"\nname: case\nsteps: [{kind: import, name: a, blueprint: ./agents/common.yaml}]\n'),
    case("include-circle", "FLJ274", "include each other in a cycle", "./common.yaml", 2, file=COMMON,
         files=common("  reviewer: {model: a:b}\n", top="include: [./common.yaml]\n")),
    case("include-circle-of-two", "FLJ274", "common.yaml → blueprints/agents/more.yaml → blueprints/agents/common.yaml",
         "./common.yaml", 2, file="blueprints/agents/more.yaml",
         files=common("  reviewer: {model: a:b}\n", top="include: [./more.yaml]\n")
         | {"blueprints/agents/more.yaml": 'version: "1"\ninclude: [./common.yaml]\nagents: {other: {model: a:b}}\n'}),
    case("included-misspelt-key", "FLJ120", "`modl` is not a key of an agent", "modl", 3, file=COMMON,
         files=common("  reviewer: {modl: a:b}\n")),
    case("included-key-of-a-blueprint", "FLJ120", "`budget` is not a key of a file of agents", "budget", 2, file=COMMON,
         files=common("  reviewer: {model: a:b}\n", top="budget: {requests_limit: 3}\n")),
    case("included-without-version", "FLJ121", "a file of agents needs `version`", None, 1, file=COMMON,
         files={COMMON: "agents: {reviewer: {model: a:b}}\n"}),
    case("included-without-agents", "FLJ121", "a file of agents needs `agents`", None, 1, file=COMMON,
         files={COMMON: 'version: "1"\n'}),
    case("included-prompt-missing", "FLJ221", "'./review.md' is not read", "./review.md", 3, file=COMMON,
         files=common("  reviewer: {model: a:b, instructions_file: ./review.md}\n")),
    case("included-instructions-read-a-step-that-is-not-there", "FLJ204", "step `nope` is not in scope", "nope", 3, file=COMMON,
         files=common('  reviewer: {model: a:b, instructions: "See {{ steps.nope.output }}."}\n')),
    case("included-tool-not-admitted", "FLJ250", "other.tools:act", "other.tools:act", 3, file=COMMON,
         files=common("  reviewer: {model: a:b, tools: [other.tools:act]}\n")),
    case("included-agent-misspelt", "FLJ201", "did you mean `reviewer`?", "reviewr", 4, entry(ask="reviewr")),
    case("name-of-an-included-agent", "FLJ273", "the name 'reviewer' is already used", "reviewer", 6,
         entry("  reviewer: {model: c:d}\n")),
    case("include-that-nobody-needs", "FLJ276", "no step uses an agent of", "./more.yaml", 3,
         entry(include=f"{INCLUDE}, ./more.yaml"), severity="warning",
         files={"blueprints/more.yaml": REVIEWER.replace("reviewer", "other")}),
    case("two-files-with-one-name", "FLJ273", "the name 'reviewer' is already used", "reviewer", 3,
         entry(include=f"{INCLUDE}, ./more.yaml"), file="blueprints/more.yaml", files={"blueprints/more.yaml": REVIEWER}),
]  # fmt: skip
GUARDED = [
    case(f"included-{name}", code, words, None, line, file=COMMON, files={COMMON: text})
    for name, code, words, line, text in (
        ("empty", "FLJ101", "", 1, ""),
        ("bidi", "FLJ103", "", 3, REVIEWER.replace("Review", "Re\u202eview")),
        ("too-large", "FLJ104", "", 1, REVIEWER + "# " + "x" * 300_000 + "\n"),
        ("not-closed", "FLJ105", "", 5, REVIEWER + "  legal: {model: a:b\n"),
        ("too-deep", "FLJ106", "", 3, REVIEWER.replace("{model: a:b", "{model_settings: " + "[" * 40 + "]" * 40 + ", model: a:b")),
        ("anchor", "FLJ108", "", 3, REVIEWER.replace("{model", "&r {model")),
        ("tag", "FLJ109", "", 3, REVIEWER.replace("{model", "!agent {model")),
        ("duplicate-key", "FLJ111", "", 4, REVIEWER + "  reviewer: {model: c:d}\n"),
        ("list", "FLJ116", "", 1, "- reviewer\n"),
        ("reserved-looking-name", "FLJ124", "", 4, REVIEWER + "  legal-eagle: {model: a:b}\n"),
        ("other-version", "FLJ129", "", 1, REVIEWER.replace('"1"', '"7"')),
        ("remote-schema", "FLJ142", "", 3, REVIEWER.replace("{model", "{output_schema: {$ref: 'https://example.org/a.json'}, model")),
        ("both-shapes", "FLJ127", "", 4, REVIEWER + "  legal: {model: a:b, output_schema: {type: string}, output_type: m:A}\n"),
    )
]  # fmt: skip
EXTENDING = [
    case("extends-misspelt", "FLJ270", "did you mean `reviewer`?", "reviewr", 6,
         entry("  legal: {extends: reviewr}\n", ask="legal")),
    case("extends-who-includes-it", "FLJ270", "neither defines nor includes", "mine", 4, entry("  mine: {model: a:b}\n"
         "  other: {extends: mine}\n", ask="other"), file=COMMON,
         files=common("  reviewer: {model: a:b}\n  legal: {extends: mine}\n")),
    case("extends-itself", "FLJ272", "in a cycle: legal → legal", "legal", 6, entry("  legal: {extends: legal}\n", ask="legal")),
    case("extends-in-a-circle", "FLJ272", "in a cycle: one → two → three → one", "two", 6,
         entry("  one: {extends: two}\n  two: {extends: three}\n  three: {extends: one}\n", ask="one")),
    case("extends-in-a-long-circle", "FLJ272", "a1 → a2 → a3 → a4 → … → a30 → a1", "a2", 6,
         entry("".join(f"  a{n}: {{extends: a{n % 30 + 1}}}\n" for n in range(1, 31)), ask="a1")),
    case("extends-into-a-circle", "FLJ272", "in a cycle: one → two → one", "two", 7,
         entry("  legal: {extends: two}\n  one: {extends: two}\n  two: {extends: one}\n", ask="legal")),
    case("two-files-with-many-names", "FLJ273", "and so are 2 more of this file", "a1", 3,
         entry(include=f"{INCLUDE}, ./more.yaml", ask="a1"), file="blueprints/more.yaml",
         files=common(line_of(3)) | {"blueprints/more.yaml": common(line_of(3))[COMMON]}),
    case("extends-too-deep", "FLJ272", "a chain of 16 others; at most 15", "a16", 22,
         entry(line_of(19), ask="a19")),
    case("extends-too-deep-through-a-file", "FLJ272", "a chain of 16 others", "a16", 6,
         entry("  last: {extends: a16}\n", ask="last"), files=common(line_of(16))),
    case("nothing-gives-a-model", "FLJ121", "agent 'legal' has no `model`", "legal", 6,
         entry("  legal: {extends: base}\n  base: {instructions: Review.}\n", ask="legal", include="")),
    case("own-agent-without-model", "FLJ121", "`model: local:", "legal", 6, entry("  legal: {instructions: Review.}\n", ask="legal", include="")),
    case("included-agent-without-model", "FLJ121", "agent 'reviewer' has no `model`", "reviewer", 3, file=COMMON,
         files=common("  reviewer: {instructions: Review.}\n")),
    case("unused-although-it-extends", "FLJ202", "no step uses agent 'legal'", "legal", 6,
         entry("  legal: {extends: reviewer}\n"), severity="warning"),
    case("both-texts-in-one-agent", "FLJ127", "exclude each other", "instructions_file", 6,
         entry("  legal: {extends: reviewer, instructions: x, instructions_file: y.md}\n", ask="legal")),
]  # fmt: skip
DEFAULTS = [
    case("default-that-is-none", "FLJ120", "`instructions` is not a key of `agent`", "instructions", 5,
         entry(more="defaults: {agent: {instructions: x}}\n")),
    case("default-in-a-file-of-agents", "FLJ120", "`defaults` is not a key of a file of agents", "defaults", 2, file=COMMON,
         files=common("  reviewer: {model: a:b}\n", top="defaults: {agent: {model: c:d}}\n")),
    case("default-background", "FLJ283", "and has no `budget`", "execution_mode", 6,
         entry(more="budget: {requests_limit: 3}\ndefaults: {config: {execution_mode: background}}\n")),
    case("default-retries-of-an-effect", "FLJ267", "", "max_retries", 5,
         entry(more="defaults: {config: {max_retries: 2}}\n").replace(
             "{name: a, agent: reviewer}", "{name: a, agent: reviewer}, {name: b, call: skills.crm:plain, effect: unsafe}"),
         severity="warning"),
    case("default-misspelt", "FLJ120", "`confg`", "confg", 5, entry(more="defaults: {confg: {}}\n")),
]  # fmt: skip
SHARING_CASES = [*INCLUDING, *GUARDED, *EXTENDING, *DEFAULTS]
