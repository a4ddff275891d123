"""Blueprints with valid syntax and wrong meaning, each with its finding, line and words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY = "blueprints/case.yaml"
HEAD = """\
version: "1"
name: case
input_schema: {type: object, required: [text], properties: {text: {type: string}, note: {type: string}}}
context_schema: {properties: {label: {type: string}, count: {type: integer}, notes: {type: array, items: {type: string}}}}
agents:
  sorter: {model: a:b, model_settings: {max_tokens: 9}, output_schema: {type: object, required: [label, score], properties: {label: {enum: [bug, refund]}, score: {type: integer}}}}
steps:
  - {name: sort, agent: sorter, input: "{{ input.text }}", save: {label: output.label}}
"""
"""The start of every case: seven lines, and a step on line 8. The case's own lines start on line 9."""

TOOLED = 'version: "1"\nname: x\nagents: {a: {model: b:c, tools: [%s]}}\n'
"""The start of a case about a tool, which stands on line 3."""

CHILD = """\
version: "1"
name: child
input_schema: {type: object, required: [text], properties: {text: {type: string}, tone: {type: string}}}
steps: [{name: echo, call: skills.crm:echo, with: {text: "{{ input.text }}"}}]
"""
CHILD_THAT_WRITES = HEAD.replace("name: case", "name: child").replace('input: "{{ input.text }}", ', "")
SKILLS = "def echo(text): ...\ndef lookup(email, *, limit=5): ...\nasync def plain(data): ...\ndef pair(one, two): ...\ndef only_email(email): ...\nclass Ticket: ...\n"


@dataclass(frozen=True)
class Case:
    """One blueprint, and its expected finding."""

    name: str
    steps: str
    code: str
    words: str
    under: str | None
    """The text under the carets; None if the finding covers more than a part of a line."""
    line: int = 9
    severity: str = "error"
    files: Mapping[str, str] = field(default_factory=dict)
    entry: str | None = None
    """The whole entry, if it is not `HEAD` and `steps`."""
    file: str = ENTRY

    def all_files(self) -> dict[str, str]:
        """Return the project's files."""
        entry = self.entry if self.entry is not None else HEAD + self.steps
        return {"skills/crm.py": SKILLS, ENTRY: entry, **self.files}


def step(keys: str) -> str:
    return f"  - {{name: more, {keys}}}\n"


def logic(expression: str) -> str:
    return f"  - kind: conditional\n    name: way\n    if: {expression}\n    then: [{{name: a, agent: sorter}}]\n"


def text(said: str) -> str:
    return f"  - name: more\n    agent: sorter\n    input: {said}\n"


def loop(keys: str) -> str:
    return f"  - kind: loop\n    name: again\n    steps: [{{name: try, agent: sorter}}]\n{keys}"


def importing(path: str, keys: str = "") -> str:
    return f"  - kind: import\n    name: sub\n    blueprint: {path}\n{keys}"


def chain(length: int) -> dict[str, str]:
    """Return a chain of blueprints that import each other, `c1` first."""
    head = 'version: "1"\nname: c\nsteps:\n'
    links = {f"blueprints/c{n}.yaml": head + importing(f"./c{n + 1}.yaml") for n in range(1, length)}
    return {**links, f"blueprints/c{length}.yaml": CHILD}


NAMES = [
    Case("unknown-agent", step("agent: sortr"), "FLJ201", "did you mean `sorter`", "sortr"),
    Case("unknown-masking", step("agent: sorter, pii: mask"), "FLJ125", "scrub", "mask"),
    Case("misspelt-masking", step("agent: sorter, pii: tokenize"), "FLJ125", "tokenise", "tokenize"),
    Case("stray-with", step("agent: sorter, with: {a: 1}"), "FLJ203", "`input:`", "with"),
    Case(
        "with-and-input",
        step("call: 'skills.crm:echo', with: {text: a}, input: b"),
        "FLJ203",
        "both",
        "input",
    ),
    Case("duplicate-name", "  - {name: sort, agent: sorter}\n", "FLJ210", "of one list", "sort"),
    Case(
        "shadowed-name",
        "  - {kind: conditional, name: way, if: 'true', then: [{name: sort, agent: sorter}]}\n",
        "FLJ211",
        "hides step",
        "sort",
    ),
    Case(
        "shadowed-composite",
        "  - {kind: conditional, name: way, if: 'true', then: [{name: way, agent: sorter}]}\n",
        "FLJ211",
        "hides step",
        "way",
    ),
    Case("reserved-step", "  - {name: in, agent: sorter}\n", "FLJ212", "reserved word", "in"),
    Case(
        "reserved-carry",
        loop("    until: 'true'\n    carry: {index: {initial: 0, next: '1'}}\n"),
        "FLJ212",
        "loop.index",
        "index",
        line=13,
    ),
    Case(
        "reserved-carry-word",
        loop("    until: 'true'\n    carry: {for: {initial: 0, next: '1'}}\n"),
        "FLJ212",
        "reserved word",
        "for",
        line=13,
    ),
    Case(
        "reserved-context-field",
        "",
        "FLJ212",
        "underscores",
        "__class__",
        line=3,
        entry='version: "1"\nname: x\ncontext_schema: {properties: {__class__: {type: string}}}\n'
        "steps: [{name: a, call: 'skills.crm:plain'}]\n",
    ),
    Case("endless-loop", loop(""), "FLJ216", "has no `until`", "again", line=10),
    Case(
        "unknown-context-field",
        step("agent: sorter, save: {lable: output.label}"),
        "FLJ214",
        "did you mean `label`",
        "lable",
    ),
    Case(
        "context-type",
        step("agent: sorter, save: {count: output.label}"),
        "FLJ215",
        "`integer`",
        "output.label",
    ),
    Case(
        "append-to-text",
        step("agent: sorter, save: {label: {append: output.label}}"),
        "FLJ215",
        "needs a list",
        None,
    ),
    Case(
        "append-type",
        step("agent: sorter, save: {notes: {append: output.score}}"),
        "FLJ215",
        "`string`",
        None,
    ),
    Case(
        "carry-type",
        loop("    until: 'true'\n    carry: {notes: {initial: 7, next: steps.try.output.label}}\n"),
        "FLJ217",
        "starts as `number`",
        "steps.try.output.label",
        line=13,
    ),
    Case(
        "a-counter-that-may-get-a-fraction",
        loop("    until: loop.n % 2 == 1\n    carry: {n: {initial: 0, next: loop.n + 0.5}}\n"),
        "FLJ206",
        "`%` does not take a number with a fraction and a whole number, for some of the possible values",
        "%",
        line=12,
        severity="warning",
    ),
    Case(
        "save-of-a-possible-null",
        step(
            "agent: sorter, save: {label: 'output.score > 1 ? dyn(null) : dyn(1)', count: 'get(input, \"note\", null)'}"
        ),
        "FLJ215",
        "returns `null` or `string`",
        None,
    ),
    Case(
        "save-of-another-type-of-several",
        step("agent: sorter, save: {label: 'get(input, \"note\", null)'}"),
        "FLJ215",
        "may return `null`",
        None,
        severity="warning",
    ),
    Case(
        "impossible-branch",
        "  - kind: conditional\n    name: way\n    switch: steps.sort.output.label\n    branches: {bugs: []}\n    default: []\n",
        "FLJ218",
        "did you mean `bug`",
        "bugs",
        line=12,
    ),
    Case(
        "missing-branch",
        "  - kind: conditional\n    name: way\n    switch: steps.sort.output.label\n    branches: {bug: []}\n",
        "FLJ218",
        "`refund`",
        "steps.sort.output.label",
        line=11,
        severity="warning",
    ),
    Case(
        "unused-agent",
        "",
        "FLJ202",
        "no step uses",
        "idle",
        line=3,
        severity="warning",
        entry='version: "1"\nname: x\nagents: {idle: {model: a:b}}\nsteps: [{name: a, call: "skills.crm:plain"}]\n',
    ),
    Case(
        "client-that-retries",
        "",
        "FLJ277",
        "give the step `config: {max_retries: 2}`",
        "max_retries",
        line=6,
        entry=HEAD.replace("{max_tokens: 9}", "{max_tokens: 9, max_retries: 2}"),
    ),
    Case(
        "client-that-may-retry",
        "",
        "FLJ277",
        "only steps retry",
        "max_retries",
        line=6,
        entry=HEAD.replace("{max_tokens: 9}", "{max_tokens: 9, max_retries: true}"),
    ),
    Case(
        "function-as-an-output-type",
        "",
        "FLJ448",
        "give the agent the function as a tool",
        "'skills.crm:plain'",
        line=6,
        entry=HEAD.partition(", output_schema")[0]
        + ", output_type: 'skills.crm:plain'}\nsteps:\n  - {name: sort, agent: sorter, input: x}\n",
    ),
    Case(
        "tools-of-a-provider",
        "",
        "FLJ446",
        "give the agent a tool",
        "openai_native_tools",
        line=6,
        entry=HEAD.replace("{max_tokens: 9}", "{max_tokens: 9, openai_native_tools: [{type: web_search}]}"),
    ),
    Case(
        "tools-in-the-body-of-a-request",
        "",
        "FLJ446",
        "with `extra_body.web_search_options` the provider calls tools",
        "web_search_options",
        line=6,
        entry=HEAD.replace("{max_tokens: 9}", "{max_tokens: 9, extra_body: {web_search_options: {size: 1}}}"),
    ),
]

AROUND = [
    Case("validator-unknown", step("agent: sorter, validators: ['skills.crm:plian']"), "FLJ251",
         "did you mean `plain`", "'skills.crm:plian'"),
    Case("validator-refused", step("agent: sorter, validators: ['os:system']"), "FLJ250", "os", "'os:system'"),
    Case("validator-of-two-values", step("agent: sorter, validators: ['skills.crm:pair']"), "FLJ252",
         "needs `one` and `two`", "'skills.crm:pair'"),
    Case("processor-unknown", step("agent: sorter, processors: {input: ['skills.crm:plian']}"), "FLJ251",
         "did you mean `plain`", "'skills.crm:plian'"),
    Case("processor-of-two-values", step("agent: sorter, processors: {output: ['skills.crm:pair']}"), "FLJ252",
         "needs `one` and `two`", "'skills.crm:pair'"),
    Case("fallback-unknown-agent", step("agent: sorter, fallback: {agent: sroter}"), "FLJ201",
         "did you mean `sorter`", "sroter"),
    Case("fallback-unknown-name", step("agent: sorter, fallback: {agent: sorter, input: '{{ inptu.text }}'}"), "FLJ204",
         "did you mean `input`", "inptu"),
    Case("fallback-gets-the-arguments", step("call: 'skills.crm:lookup', with: {email: a, limit: 1}, fallback: {call: 'skills.crm:only_email'}"),
         "FLJ252", "no parameter 'limit'", "{call: 'skills.crm:only_email'}"),
    Case("fell-back-of-no-fallback", step("agent: sorter, when: steps.sort.fell_back"), "FLJ204", "`fell_back`", "fell_back"),
]  # fmt: skip

LATER = [
    Case(
        "history-without-room",
        "  - {kind: granular, name: more, agent: sorter, input: Sort it all., history: {max_tokens: 3}}\n",
        "FLJ431",
        "has about 4 tokens",
        "3",
    ),
    Case(
        "cached-conversation",
        "  - {kind: granular, name: more, agent: sorter, cache: {ttl_s: 5}}\n",
        "FLJ261",
        "is a conversation",
        "cache",
    ),
    Case(
        "background-on-a-thread",
        step("agent: sorter, thread: talk, config: {execution_mode: background}"),
        "FLJ280",
        "the thread 'talk' is of its run",
        "thread",
    ),
    Case(
        "await-in-the-background",
        "  - {name: more, agent: sorter, config: {execution_mode: background}}\n"
        "  - {kind: await, name: done, task: more, config: {execution_mode: background}}\n",
        "FLJ280",
        "cannot be one",
        "execution_mode",
        line=10,
    ),
    Case(
        "await-of-a-step-that-is-not-in-the-background",
        "  - {kind: await, name: done, task: sort}\n",
        "FLJ282",
        "awaits 'sort', which does not run in the background",
        "sort",
    ),
    Case(
        "migration-to-a-misspelt-step",
        "migrations: [{from: old, to: srot}]\n",
        "FLJ284",
        "did you mean `sort`?",
        "srot",
    ),
    Case(
        "two-migrations-from-one-path",
        "migrations:\n  - {from: old, to: sort}\n  - {from: old, to: sort}\n",
        "FLJ285",
        "two migrations are from `old`",
        "old",
        line=11,
    ),
    Case(
        "migration-from-a-step-that-exists",
        step("agent: sorter") + "migrations: [{from: sort, to: more}]\n",
        "FLJ286",
        "would have two meanings",
        "sort",
        line=10,
    ),
    Case(
        "migration-that-swaps",
        step("agent: sorter") + "migrations:\n  - {from: sort, to: more}\n  - {from: more, to: sort}\n",
        "FLJ286",
        "there are no chains and no swaps",
        "sort",
        line=11,
    ),
    Case(
        "migration-of-a-chain",
        "migrations:\n  - {from: first, to: second}\n  - {from: second, to: sort}\n",
        "FLJ286",
        "`second` is still a path of the pipeline",
        "second",
        line=11,
    ),
    Case(
        "migration-into-a-loop",
        "  - {kind: loop, name: again, until: 'false', max_iterations: 2, steps: [{name: more, agent: sorter}]}\n"
        "migrations: [{from: more, to: again/more}]\n",
        "FLJ287",
        "has iterations",
        "again/more",
        line=10,
    ),
    Case(
        "migration-into-a-router",
        "  - {kind: router, name: route, router: skills.crm:plain, branches: {one: [{name: more, agent: sorter}]}}\n"
        "migrations: [{from: more, to: 'route:one/more'}]\n",
        "FLJ287",
        "asks for its branches",
        "'route:one/more'",
        line=10,
    ),
    Case(
        "migration-into-a-composite-with-a-cache",
        "  - {kind: parallel, name: both, cache: {ttl_s: 1h}, branches: {one: [{name: more, agent: sorter}]}}\n"
        "migrations: [{from: more, to: 'both:one/more'}]\n",
        "FLJ287",
        "has a cache",
        "'both:one/more'",
        line=10,
    ),
    Case(
        "migration-out-of-a-composite",
        step("agent: sorter") + "migrations: [{from: again/more, to: more}]\n",
        "FLJ286",
        "are in different places",
        "more",
        line=10,
    ),
    Case(
        "migration-to-a-misspelt-branch",
        "  - {kind: parallel, name: both, branches: {one: [{name: more, agent: sorter}]}}\n"
        "migrations: [{from: 'both:left', to: 'both:noe'}]\n",
        "FLJ284",
        "there is no branch or state `both:noe`",
        "'both:noe'",
        line=10,
    ),
    Case(
        "migration-of-a-branch-of-an-if",
        "  - {kind: conditional, name: size, if: 'true', then: [{name: more, agent: sorter}]}\n"
        "migrations: [{from: 'size:yes', to: 'size:then'}]\n",
        "FLJ286",
        "what decides is not its name",
        "'size:then'",
        line=10,
    ),
    Case(
        "migration-of-a-branch-called-merge",
        "  - {kind: parallel, name: both, branches: {one: [{name: more, agent: sorter}]}}\n"
        "migrations: [{from: 'both:merge', to: 'both:one'}]\n",
        "FLJ286",
        "a composite has records of its own at `:merge`",
        "'both:merge'",
        line=10,
    ),
    Case(
        "migration-with-a-count",
        "  - {kind: loop, name: again, until: 'false', max_iterations: 2, steps: [{name: more, agent: sorter}]}\n"
        "migrations: [{from: 'again[0]/old', to: again/more}]\n",
        "FLJ286",
        "write it without counts",
        "'again[0]/old'",
        line=10,
    ),
    Case(
        "await-of-a-misspelt-task",
        "  - {name: more, agent: sorter, config: {execution_mode: background}}\n"
        "  - {kind: await, name: done, tasks: [mroe]}\n",
        "FLJ282",
        "did you mean `more`?",
        "[mroe]",
        line=10,
    ),
    Case(
        "background-under-a-budget",
        step("agent: sorter, config: {execution_mode: background}") + "budget: {total_cost_usd_limit: 1.5}\n",
        "FLJ283",
        "and has no `budget` of its own",
        "execution_mode",
    ),
    Case(
        "background-with-a-larger-budget",
        step(
            "agent: sorter, config: {execution_mode: background, budget: {total_cost_usd_limit: 2}}",
        )
        + "budget: {total_cost_usd_limit: 1.5}\n",
        "FLJ283",
        "its own `budget` allows more of `total_cost_usd_limit`",
        "budget",
    ),
    Case(
        "queue-of-a-step-that-is-not-in-the-background",
        step("agent: sorter, config: {queue: default}"),
        "FLJ288",
        "does not run in the background",
        "queue",
    ),
    Case(
        "executor-of-a-step-without-items",
        step("agent: sorter, config: {executor: queue}"),
        "FLJ331",
        "is of `kind: step`, and has no items that workers could execute",
        "executor",
    ),
    Case(
        "batches-without-an-item",
        "  - kind: map\n    name: more\n    over: '[1]'\n    config: {executor: queue, batch_size: 0}\n"
        "    steps: [{name: one, agent: sorter}]\n",
        "FLJ332",
        "has `batch_size` 0",
        "0",
        line=12,
    ),
    Case(
        "batches-without-workers",
        "  - kind: map\n    name: more\n    over: '[1]'\n    config: {batch_size: 5}\n"
        "    steps: [{name: one, agent: sorter}]\n",
        "FLJ332",
        "has `batch_size`, and no `executor: queue`",
        "batch_size",
        line=12,
    ),
    Case(
        "thread-inside-a-map-over-workers",
        "  - kind: map\n    name: more\n    over: '[1]'\n    config: {executor: queue}\n"
        "    steps: [{name: one, agent: sorter, thread: talk}]\n",
        "FLJ333",
        "and workers execute it",
        "thread",
        line=13,
    ),
    Case(
        "queue-that-there-is-not",
        step("agent: sorter, config: {execution_mode: background, queue: defualt}"),
        "FLJ289",
        "there is no [queues.defualt] in flujo.toml",
        "defualt",
    ),
    Case(
        "background-read-as-its-result",
        "  - {name: more, agent: sorter, config: {execution_mode: background}}\n"
        "  - {name: last, agent: sorter, input: '{{ steps.more.output.label }}'}\n",
        "FLJ204",
        "label",
        "label",
        line=10,
    ),
    Case(
        "executor-of-a-step-that-asks-an-agent",
        step("agent: sorter, config: {executor: threads}"),
        "FLJ321",
        "asks an agent",
        "executor",
    ),
    Case(
        "resources-without-an-executor",
        step("call: 'skills.crm:plain', config: {resources: {cpu: 2, memory: 8GiB}}"),
        "FLJ322",
        "names no executor",
        "resources",
    ),
    Case(
        "executor-that-there-is-not",
        step("call: 'skills.crm:plain', config: {executor: thread}"),
        "FLJ323",
        "there is no [executors.thread] in flujo.toml",
        "thread",
    ),
    Case(
        "context-in-another-process",
        step("call: 'skills.here:note', config: {executor: cores}"),
        "FLJ324",
        "`skills.here:note` takes `context`",
        "'skills.here:note'",
        files={"skills/here.py": "def note(data, context): ...\n"},
    ),
    Case(
        "context-in-a-map-in-another-process",
        "  - kind: map\n    name: each\n    over: '[1, 2]'\n    config: {executor: cores}\n"
        "    steps: [{name: near, call: 'skills.here:note', config: {executor: wide}}, "
        "{name: far, call: 'skills.here:note', fallback: {call: 'skills.crm:plain'}}]\n",
        "FLJ324",
        "step 'far' runs on executor 'cores'",
        "'skills.here:note'",
        line=13,
        files={"skills/here.py": "def note(data, context): ...\n"},
    ),
    Case(
        "tool-with-context-in-another-process",
        "",
        "FLJ324",
        "tool `skills.here:note` runs on executor 'cores'",
        "'skills.here:note'",
        line=3,
        entry=TOOLED % "{call: 'skills.here:note', executor: cores}"
        + "steps: [{kind: granular, name: s, agent: a}]\n",
        files={"skills/here.py": "def note(data, context): ...\n"},
    ),
    Case(
        "transactional-tool-elsewhere",
        "",
        "FLJ325",
        "which only this process has",
        "a",
        line=4,
        entry=TOOLED % "{call: 'skills.here:book', executor: cores}"
        + "steps: [{kind: granular, name: s, agent: a}]\n",
        files={
            "skills/here.py": "import flujo\n@flujo.tool(effect='transactional')\n"
            "def book(seat, connection): ...\n"
        },
    ),
    Case(
        "secret-in-another-process",
        "",
        "FLJ326",
        "has a secret, which would leave the process of the run",
        "{email: {secret: SOME_KEY}}",
        line=3,
        entry=TOOLED % "{call: 'skills.crm:lookup', executor: cores, with: {email: {secret: SOME_KEY}}}"
        + "steps: [{kind: granular, name: s, agent: a}]\n",
    ),
    Case(
        "executor-of-a-tool-that-there-is-not",
        "",
        "FLJ323",
        "tool `skills.crm:plain`: there is no [executors.core] in flujo.toml",
        "core",
        line=3,
        entry=TOOLED % "{call: 'skills.crm:plain', executor: core}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "executor-of-an-mcp-server",
        "",
        "FLJ120",
        "a tool with `mcp` has no `executor`",
        "executor",
        line=3,
        entry=TOOLED % "{mcp: kb, executor: cores}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "executor-of-an-agent-as-a-tool",
        "",
        "FLJ120",
        "a tool with `agent` has no `executor`",
        "executor",
        line=3,
        entry=TOOLED % "{agent: b, description: d, executor: cores}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "budget-and-answers-of-any-length",
        "budget: {total_cost_usd_limit: 1.5}\n",
        "FLJ271",
        "'sorter' is under a budget",
        "sorter",
        line=6,
        entry=HEAD.replace("model_settings: {max_tokens: 9}, ", "") + "budget: {total_cost_usd_limit: 1.5}\n",
    ),
    Case(
        "budget-over-an-import-with-answers-of-any-length",
        "",
        "FLJ271",
        "'sorter' of blueprints/child.yaml",
        "budget",
        line=3,
        entry='version: "1"\nname: case\nbudget: {total_tokens_limit: 9}\nsteps:\n'
        "  - {kind: import, name: i, blueprint: ./child.yaml, with: {text: a}}\n",
        files={
            "blueprints/child.yaml": HEAD.replace("name: case", "name: child").replace(
                "model_settings: {max_tokens: 9}, ", ""
            )
        },
    ),
    Case(
        "end-of-the-run-in-a-map",
        "  - {kind: map, name: each, over: '[1]', steps: [{kind: continue_as_new, name: next}]}\n",
        "FLJ311",
        "which is of `kind: map`",
        "continue_as_new",
    ),
    Case(
        "end-of-the-run-in-the-background",
        "  - {kind: loop, name: again, until: 'true', max_iterations: 1, config: {execution_mode: background}, "
        "steps: [{kind: continue_as_new, name: next}]}\n",
        "FLJ311",
        "which runs in the background",
        "continue_as_new",
    ),
    Case(
        "end-of-the-run-that-is-cached",
        "  - {kind: continue_as_new, name: next, cache: {}}\n",
        "FLJ261",
        "has no answer to cache",
        "cache",
    ),
    Case(
        "step-after-the-end-of-the-run",
        "  - {kind: continue_as_new, name: next}\n  - {name: late, agent: sorter}\n",
        "FLJ312",
        "'late' is never executed",
        "late",
        line=10,
        severity="warning",
    ),
    Case(
        "denied-tool",
        "",
        "FLJ469",
        "does not allow the tool `echo`",
        "'skills.forbidden:echo'",
        line=3,
        severity="warning",
        entry="version: '1'\nname: b\nagents: {a: {model: a:b, tools: ['skills.forbidden:echo']}}\n"
        "steps: [{kind: granular, name: s, agent: a}]\n",
        files={"skills/forbidden.py": SKILLS},
    ),
    Case(
        "unknown-target",
        "",
        "FLJ310",
        "there is no [notify.op] in flujo.toml",
        "op",
        line=3,
        entry="version: '1'\nname: b\nnotify: {failed: [op]}\nsteps: [{kind: sleep, name: s, for: 1s}]\n",
    ),
    Case(
        "unknown-evaluator",
        "",
        "FLJ471",
        "there is no [evaluation.evaluators.polit] in flujo.toml",
        "polit",
        line=3,
        entry="version: '1'\nname: b\nevaluate: [polit]\nsteps: [{kind: sleep, name: s, for: 1s}]\n",
    ),
    Case(
        "unknown-evaluator-of-a-step",
        "  - {name: more, agent: sorter, evaluate: [polit]}\n",
        "FLJ471",
        "did you mean `polite`",
        "polit",
    ),
    Case(
        "schedule-that-never-fires",
        'schedule: {cron: "0 0 31 2 *", input: {text: a}}\n',
        "FLJ296",
        "never fires",
        '"0 0 31 2 *"',
    ),
    Case(
        "schedule-in-no-zone",
        'schedule: {cron: "0 2 * * *", timezone: Berlin, input: {text: a}}\n',
        "FLJ297",
        "there is no time zone 'Berlin'",
        "Berlin",
    ),
    Case("schedule-without-input", 'schedule: {cron: "0 2 * * *"}\n', "FLJ298", "has no `input`", "schedule"),
    Case(
        "schedule-with-another-input",
        'schedule: {cron: "0 2 * * *", input: {text: 3}}\n',
        "FLJ298",
        "does not fit `input_schema`",
        "{text: 3}",
    ),
    Case(
        "schedule-with-another-context",
        'schedule: {cron: "0 2 * * *", input: {text: a}, context: {count: many}}\n',
        "FLJ298",
        "does not fit `context_schema`",
        "{count: many}",
    ),
    Case(
        "two-schedules-of-one-name",
        'schedule: [{cron: "0 2 * * *", input: {text: a}},\n'
        '  {cron: "0 3 * * *", input: {text: b}, name: case}]\n',
        "FLJ299",
        "two schedules are named 'case'",
        "case",
        line=10,
    ),
    Case(
        "schedule-that-queues-nothing",
        'schedule: {cron: "0 2 * * *", input: {text: a}, overlap: queue, catch_up: none}\n',
        "FLJ299",
        "skips late runs",
        "queue",
    ),
    Case(
        "schedule-with-a-priority-out-of-range",
        'schedule: {cron: "0 2 * * *", input: {text: a}, queue: default, priority: 2000000}\n',
        "FLJ299",
        "the schedule has the priority 2000000",
        "2000000",
    ),
    Case(
        "unknown-mcp-server",
        "",
        "FLJ452",
        "there is no [mcp.kbs] in flujo.toml",
        "kbs",
        line=3,
        entry=TOOLED % "{mcp: kbs}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "unknown-mcp-tool",
        "",
        "FLJ453",
        "MCP server 'kb' has no tool `search` in flujo.lock",
        "search",
        line=3,
        entry=TOOLED % "{mcp: kb, allow: [search]}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "mcp-transaction",
        "",
        "FLJ454",
        "cannot be transactional",
        "transactional",
        line=3,
        entry=TOOLED % "{mcp: kb, effect: transactional}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "mcp-tool-twice",
        "",
        "FLJ255",
        "agent 'a' has two tools named `kb_search`",
        "kb_search",
        line=3,
        entry=TOOLED % "{mcp: kb, allow: [kb_search, kb_search]}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "mcp-tool-of-two-entries",
        "",
        "FLJ255",
        "agent 'a' has two tools named `kb_search`",
        "kb",
        line=3,
        entry=TOOLED % "{mcp: kb, allow: [kb_search]}, {mcp: kb}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "mcp-tools-none",
        "",
        "FLJ125",
        "allow",
        "[]",
        line=3,
        entry=TOOLED % "{mcp: kb, allow: []}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "mcp-approval-without-turns",
        "",
        "FLJ444",
        "tool `mcp:kb/kb_search` of agent 'a' has `approve`",
        "a",
        line=4,
        entry=TOOLED % "{mcp: kb, allow: [kb_search], approve: true}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "mcp-approval-of-an-unknown-name",
        "",
        "FLJ204",
        "arg",
        "arg",
        line=3,
        entry=TOOLED % "{mcp: kb, approve: {when: arg.x == 1}}"
        + "steps: [{kind: granular, name: s, agent: a}]\n",
    ),
    Case(
        "tool-of-two-things",
        "",
        "FLJ127",
        "`call` and `mcp` exclude each other",
        "mcp",
        line=3,
        entry=TOOLED % '{call: "skills.crm:echo", mcp: kb}' + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "tool-of-nothing",
        "",
        "FLJ121",
        "a tool has no `call` or `blueprint` or `agent` or `mcp`",
        "{effect: read}",
        line=3,
        entry=TOOLED % "{effect: read}" + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "tool-with-an-unknown-effect",
        "",
        "FLJ125",
        "`effect` must be `read`",
        "safe",
        line=3,
        entry=TOOLED % '{call: "skills.crm:echo", effect: safe}' + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "tool-in-its-long-form-that-is-not-defined",
        "",
        "FLJ251",
        "does not define `ecko`",
        '"skills.crm:ecko"',
        line=3,
        entry=TOOLED % '{call: "skills.crm:ecko", effect: read}' + "steps: [{name: s, agent: a}]\n",
    ),
    Case(
        "tool-twice-in-both-forms",
        "",
        "FLJ255",
        "two tools named `echo`",
        '"skills.crm:echo"',
        line=3,
        entry=TOOLED % 'skills.erp:echo, {call: "skills.crm:echo", effect: read}'
        + "steps: [{name: s, agent: a, input: hello}]\n",
        files={"skills/erp.py": "def echo(text): ...\n"},
    ),
]

PATHS = [
    Case("import-parent", importing("../../x.yaml"), "FLJ220", "out of the project", "../../x.yaml", line=11),
    Case("import-absolute", importing("/etc/x.yaml"), "FLJ220", "absolute", "/etc/x.yaml", line=11),
    Case("import-backslash", importing(r"a\b.yaml"), "FLJ220", "backslash", r"a\b.yaml", line=11),
    Case("import-percent", importing("'%2e%2e/x.yaml'"), "FLJ220", "%", "'%2e%2e/x.yaml'", line=11),
    Case("import-tilde", importing("'~/x.yaml'"), "FLJ220", "home", "'~/x.yaml'", line=11),
    Case("import-file-url", importing("file:///x.yaml"), "FLJ220", "it is a URL", "file:///x.yaml", line=11),
    Case(
        "import-http",
        importing("https://example.org/x.yaml"),
        "FLJ220",
        "it is a URL",
        "https://example.org/x.yaml",
        line=11,
    ),
    Case("import-unc", importing(r"'\\host\x.yaml'"), "FLJ220", "backslash", r"'\\host\x.yaml'", line=11),
    Case("import-no-yaml", importing("./skills.py"), "FLJ220", "not a plain path", "./skills.py", line=11),
    Case("import-missing", importing("./nope.yaml"), "FLJ221", "does not exist", "./nope.yaml", line=11),
    Case(
        "import-of-a-package",
        importing("'pkg:acme_flows/greet.yaml'"),
        "FLJ330",
        "does not allow package `acme_flows`",
        "'pkg:acme_flows/greet.yaml'",
        line=11,
    ),
    Case(
        "import-wrong-case",
        importing("./child.yaml"),
        "FLJ221",
        "'Child.yaml'",
        "./child.yaml",
        line=11,
        files={"blueprints/Child.yaml": CHILD},
    ),
    Case(
        "import-self",
        importing("./case.yaml"),
        "FLJ222",
        "case.yaml → blueprints/case.yaml",
        "./case.yaml",
        line=11,
    ),
    Case(
        "import-cycle-3",
        importing("./b.yaml"),
        "FLJ222",
        "case.yaml → blueprints/b.yaml → blueprints/c.yaml → blueprints/case.yaml",
        "./case.yaml",
        line=6,
        file="blueprints/c.yaml",
        files={
            "blueprints/b.yaml": 'version: "1"\nname: b\nsteps:\n' + importing("./c.yaml"),
            "blueprints/c.yaml": 'version: "1"\nname: c\nsteps:\n' + importing("./case.yaml"),
        },
    ),
    Case(
        "import-depth-17",
        importing("./c1.yaml"),
        "FLJ223",
        "more than 16 deep",
        "./c16.yaml",
        line=6,
        file="blueprints/c15.yaml",
        files=chain(16),
    ),
    Case(
        "import-unknown-input",
        importing("./child.yaml", "    with: {text: a, ton: b}\n"),
        "FLJ224",
        "did you mean `tone`",
        "ton",
        line=12,
        files={"blueprints/child.yaml": CHILD},
    ),
    Case(
        "import-missing-input",
        importing("./child.yaml", "    with: {tone: b}\n"),
        "FLJ224",
        "needs 'text'",
        "with",
        line=12,
        files={"blueprints/child.yaml": CHILD},
    ),
    Case(
        "import-inherits-another-context",
        importing("./child.yaml", "    context: inherit\n"),
        "FLJ248",
        "declares a different context",
        "inherit",
        line=12,
        files={"blueprints/child.yaml": CHILD + "context_schema: {properties: {other: {type: string}}}\n"},
    ),
    Case(
        "import-inherits-and-both-branches-write",
        "  - kind: parallel\n    name: both\n    branches:\n"
        "      one: [{kind: import, name: a, blueprint: ./child.yaml, context: inherit}]\n"
        "      two: [{kind: import, name: b, blueprint: ./child.yaml, context: inherit}]\n",
        "FLJ235",
        "branches 'one' and 'two' both write `context.label`",
        "context",
        line=13,
        files={"blueprints/child.yaml": CHILD_THAT_WRITES},
    ),
    Case(
        "import-widens-allow-list",
        importing("./child.yaml"),
        "FLJ250",
        "other.place",
        "other.place:run",
        line=4,
        file="blueprints/child.yaml",
        files={"blueprints/child.yaml": CHILD.replace("skills.crm:echo", "other.place:run")},
    ),
    Case(
        "import-broken-child",
        importing("./child.yaml"),
        "FLJ120",
        "`inputs` is not a key",
        None,
        line=4,
        file="blueprints/child.yaml",
        files={"blueprints/child.yaml": CHILD.replace("name: echo,", "name: echo, inputs: 1,")},
    ),
    Case(
        "prompt-missing",
        "",
        "FLJ221",
        "does not exist",
        "./p.md",
        line=3,
        entry='version: "1"\nname: x\nagents: {a: {model: b:c, instructions_file: ./p.md}}\nsteps: [{name: s, agent: a}]\n',
    ),
    Case(
        "prompt-names-nothing",
        "",
        "FLJ204",
        "`inptu` is not in scope",
        "inptu",
        line=2,
        file="blueprints/p.md",
        entry='version: "1"\nname: x\nagents: {a: {model: b:c, instructions_file: ./p.md}}\nsteps: [{name: s, agent: a}]\n',
        files={"blueprints/p.md": "Be kind.\nAnswer {{ inptu.text }}!\n"},
    ),
]

CALLABLES = [
    Case("callable-os-system", step("call: 'os:system'"), "FLJ250", "may not call", "'os:system'"),
    Case(
        "callable-dunder",
        step("call: 'skills.crm:__init__'"),
        "FLJ250",
        "underscores",
        "'skills.crm:__init__'",
    ),
    Case(
        "callable-nested",
        step("call: 'skills.crm:echo.__globals__'"),
        "FLJ250",
        "module:callable",
        "'skills.crm:echo.__globals__'",
    ),
    Case("callable-not-listed", step("call: 'my_app.x:f'"), "FLJ250", "allow_callables", "'my_app.x:f'"),
    Case(
        "callable-unknown",
        step("call: 'skills.crm:eco'"),
        "FLJ251",
        "did you mean `echo`",
        "'skills.crm:eco'",
    ),
    Case(
        "callable-unknown-argument",
        step("call: 'skills.crm:lookup', with: {email: a, limt: 1}"),
        "FLJ252",
        "did you mean `limit`",
        "limt",
    ),
    Case(
        "callable-misspelt-argument",
        step("call: 'skills.crm:lookup', with: {mail: a}"),
        "FLJ252",
        "did you mean `email`",
        "mail",
    ),
    Case(
        "callable-missing-argument",
        step("call: 'skills.crm:lookup', with: {limit: 1}"),
        "FLJ252",
        "needs `email`",
        "with",
    ),
    Case(
        "callable-without-with",
        step("call: 'skills.crm:pair'"),
        "FLJ252",
        "needs `one` and `two`",
        "'skills.crm:pair'",
    ),
    Case(
        "callable-not-here",
        step("call: 'far.away:f'"),
        "FLJ253",
        "far/away.py",
        "'far.away:f'",
        severity="info",
    ),
    Case(
        "callable-of-a-misspelt-module",
        step("call: 'skills.cmr:plain'"),
        "FLJ251",
        "did you mean `skills.crm:plain`?",
        "'skills.cmr:plain'",
    ),
    Case(
        "callable-of-a-missing-module",
        step("call: 'skills.elsewhere:f'"),
        "FLJ251",
        "modules there: `skills.crm`",
        "'skills.elsewhere:f'",
    ),
    Case(
        "callable-of-a-misspelt-package",
        step("call: 'skils.crm:plain'"),
        "FLJ250",
        "did you mean `skills.crm:plain`?",
        "'skils.crm:plain'",
    ),
    Case(
        "callable-with-a-dot-for-its-colon",
        step("call: skills.crm.plain"),
        "FLJ128",
        "did you mean `skills.crm:plain`?",
        "skills.crm.plain",
    ),
    Case("callable-as-condition", logic("os:system"), "FLJ250", "may not call", "os:system", line=11),
    Case(
        "callable-in-save",
        step("agent: sorter, save: {label: 'os:getcwd'}"),
        "FLJ250",
        "may not call",
        "'os:getcwd'",
    ),
    Case(
        "tool-not-listed",
        "",
        "FLJ250",
        "allow_callables",
        "'x.y:z'",
        line=3,
        entry="version: \"1\"\nname: x\nagents: {a: {model: b:c, tools: ['x.y:z']}}\nsteps: [{name: s, agent: a}]\n",
    ),
    Case(
        "context-class-not-listed",
        "",
        "FLJ250",
        "allow_callables",
        "contexts:Triage",
        line=3,
        entry='version: "1"\nname: x\ncontext: contexts:Triage\nsteps: [{name: s, call: "skills.crm:plain"}]\n',
    ),
]

EXPRESSIONS = [
    Case("cel-syntax", logic("steps.sort.output.label = 1"), "FLJ205", "==", "=", line=11),
    Case(
        "cel-unknown-name", logic("inputs.text == 'a'"), "FLJ204", "did you mean `input`", "inputs", line=11
    ),
    Case(
        "cel-unknown-field",
        logic("steps.sort.output.lable == 'bug'"),
        "FLJ204",
        "did you mean `label`",
        "lable",
        line=11,
    ),
    Case(
        "cel-later-step",
        logic("steps.way.output == 1"),
        "FLJ204",
        "step `way` is not in scope",
        "way",
        line=11,
    ),
    Case(
        "cel-not-a-condition",
        logic("steps.sort.output.label"),
        "FLJ206",
        "boolean",
        "steps.sort.output.label",
        line=11,
    ),
    Case("cel-text-with-number", logic("steps.sort.output.label > 3"), "FLJ206", ">", ">", line=11),
    Case("cel-unknown-function", logic("len(input.text) > 3"), "FLJ204", "size", "len", line=11),
    Case(
        "cel-maybe-missing",
        logic("input.note == 'a'"),
        "FLJ207",
        "may be missing",
        "input.note",
        line=11,
        severity="warning",
    ),
    Case("cel-200-parentheses", logic("(" * 200 + "true" + ")" * 200), "FLJ209", "deep", None, line=11),
    Case("cel-3-kb", logic(" || ".join(["true"] * 400)), "FLJ209", "2048", None, line=11),
    Case("text-dunder", text('"{{ input.__class__ }}"'), "FLJ204", "__class__", "__class__", line=11),
    Case("text-call", text('"a {{ input.text() }}"'), "FLJ204", "text", "text", line=11),
    Case(
        "text-jinja", text('"a {% for x in y %} b"'), "FLJ205", "not supported", "{% for x in y %}", line=11
    ),
    Case("text-unclosed", text('"a {{ input.text"'), "FLJ205", "{{", "{{ input.text", line=11),
    Case("text-filter", text('"a {{ input.text | upper }}"'), "FLJ205", "upperAscii", "|", line=11),
    Case("text-environment", text('"{{ env.API_KEY }}"'), "FLJ219", "environment", "env", line=11),
    Case("text-clock", text('"{{ now() }}"'), "FLJ219", "clock", "now", line=11),
    Case("text-missing-path", text('"{{ steps.sort.output.a.b }}"'), "FLJ204", "has no `a`", "a", line=11),
    Case("loop-outside-a-loop", text('"{{ loop.index }}"'), "FLJ204", "loop", "loop", line=11),
    Case(
        "inner-step-outside",
        logic("'true'") + text('"{{ steps.a.output }}"'),
        "FLJ204",
        "step `a` is not in scope",
        "a",
        line=15,
    ),
    Case(
        "block-scalar",
        "  - name: more\n    agent: sorter\n    input: |\n      First line.\n      Then {{ inputt.text }} here.\n",
        "FLJ204",
        "inputt",
        "inputt",
        line=13,
    ),
    Case("output-unknown", 'output: {a: "{{ steps.srt.output }}"}\n', "FLJ204", "did you mean `sort`", "srt"),
    Case(
        "an-effect-of-an-agent",
        step("agent: sorter, enforce_idempotency: true"),
        "FLJ265",
        "about calls",
        "enforce_idempotency",
    ),
    Case(
        "files-for-a-local-model",
        "",
        "FLJ434",
        "takes text only",
        "files",
        entry=HEAD.replace("a:b", "local:smollm2") + step("agent: sorter, files: [scans/march.png]"),
    ),
    Case(
        "files-for-a-callable",
        step("call: 'skills.crm:plain', files: [scans/march.png]"),
        "FLJ434",
        "sent to a model",
        "files",
    ),
    Case(
        "in-doubt-and-not-enforced",
        step("call: 'skills.crm:plain', in_doubt: fail"),
        "FLJ266",
        "never in doubt",
        "in_doubt",
    ),
    Case(
        "reconcile-without-a-callable",
        step("call: 'skills.crm:plain', enforce_idempotency: true, in_doubt: reconcile"),
        "FLJ266",
        "without `reconcile`",
        "in_doubt",
    ),
    Case(
        "reconcile-that-is-never-called",
        step("call: 'skills.crm:plain', enforce_idempotency: true, reconcile: 'skills.crm:plain'"),
        "FLJ266",
        "in_doubt: reconcile",
        "reconcile",
    ),
    Case(
        "unsafe-call-that-is-repeated",
        step("call: 'skills.crm:plain', effect: unsafe, enforce_idempotency: true, in_doubt: retry_same_key"),
        "FLJ433",
        "would be made again",
        "retry_same_key",
    ),
    Case(
        "a-reconcile-that-is-not-there",
        step(
            "call: 'skills.crm:plain', enforce_idempotency: true, in_doubt: reconcile, reconcile: 'skills.crm:plan'"
        ),
        "FLJ251",
        "does not define `plan`",
        "'skills.crm:plan'",
    ),
    Case(
        "a-retry-of-an-unsafe-call",
        step("call: 'skills.crm:plain', enforce_idempotency: true, config: {max_retries: 2}"),
        "FLJ267",
        "follows harmless failures only",
        "max_retries",
        severity="warning",
    ),
    Case(
        "on-deadline-without-deadline",
        "  - {kind: hitl, name: ask, message: ok?, on_deadline: {answer: 1}}\n",
        "FLJ245",
        "no `deadline_s`",
        "on_deadline",
    ),
    Case(
        "an-answer-at-the-deadline-that-does-not-fit",
        "  - {kind: hitl, name: ask, message: ok?, answer_schema: {type: boolean}, deadline_s: 2h,\n"
        "     on_deadline: {answer: maybe}}\n",
        "FLJ246",
        "boolean",
        "maybe",
        line=10,
    ),
    Case(
        "on-deadline-of-an-event-without-deadline",
        "  - {kind: event, name: paid, on_deadline: {answer: 1}}\n",
        "FLJ245",
        "event 'paid' has `on_deadline` but no `deadline_s`",
        "on_deadline",
    ),
    Case(
        "a-payload-at-the-deadline-that-does-not-fit",
        "  - {kind: event, name: paid, event_schema: {type: integer}, deadline_s: 2h,\n"
        "     on_deadline: {answer: none}}\n",
        "FLJ246",
        "event_schema",
        "none",
        line=10,
    ),
    Case(
        "an-unknown-name-in-a-key-of-an-event",
        "  - {kind: event, name: paid, key: inptu.text}\n",
        "FLJ204",
        "inptu",
        "inptu",
    ),
    Case(
        "an-unknown-name-in-an-answer-at-the-deadline",
        "  - {kind: hitl, name: ask, message: ok?, deadline_s: 2h, on_deadline: {answer: '{{ prev }}'}}\n",
        "FLJ204",
        "prev",
        "prev",
    ),
    Case(
        "hitl-message",
        '  - {kind: hitl, name: ask, message: "Send {{ prev }}?"}\n',
        "FLJ204",
        "did you mean `previous`",
        "prev",
    ),
    Case(
        "unchecked-field",
        '  - {name: look, call: "skills.crm:plain"}\n' + text('"{{ steps.look.output.name }}"'),
        "FLJ208",
        "has no schema",
        "steps.look.output.name",
        line=12,
        severity="info",
    ),
]

SECRETS = {
    "openai-key": "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv",
    "github-token": "ghp_Ab3dEf6hIj9kLm2nOp5qRs8tUvWx",
    "aws-key": "AKIAABCDEFGHIJKLMNOP",
    "slack-token": "xoxb-123456789012-abcdefghij",
    "address-with-password": "postgresql://anna:pa55w0rd@",
    "private-key": "-----BEGIN RSA PRIVATE KEY-----",
    "web-token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
}
SECRET_CASES = [
    Case(name, text(f"'Use {secret} for this'"), "FLJ230", "secret", secret, line=11)
    for name, secret in SECRETS.items()
] + [
    Case(
        "random-text-by-its-name",
        "",
        "FLJ230",
        "`api_key`",
        "q8Zr2LxW0vTn5KjHs7BdYc3MfG9pA4e",
        line=3,
        entry='version: "1"\nname: x\nagents: {a: {model: b:c, model_settings: {extra_body: {api_key: q8Zr2LxW0vTn5KjHs7BdYc3MfG9pA4e}}}}\n'
        "steps: [{name: s, agent: a}]\n",
    )
]

CASES = [*NAMES, *AROUND, *LATER, *PATHS, *CALLABLES, *EXPRESSIONS, *SECRET_CASES]
