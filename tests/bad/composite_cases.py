"""State machines, maps, parallels and routers with valid syntax and wrong meaning."""

from __future__ import annotations

from bad.meaning_cases import SKILLS, Case

EDIT = "{steps: [{name: fix, agent: sorter}], transitions: [{to: judge}]}"


def machine(judge: str, *, edit: str = EDIT, rest: str = "", keys: str = "") -> str:
    """Return a machine whose states are on lines 13 to 16: draft, judge, edit, done."""
    return (
        "  - kind: state_machine\n    name: review\n    initial: draft\n    states:\n"
        "      draft: {steps: [{name: write, agent: sorter}], transitions: [{to: judge}]}\n"
        f"      judge: {{steps: [{{name: check, agent: sorter{keys}}}], transitions: [{judge}]}}\n"
        f"      edit: {edit}\n      done: {{}}\n    final: [done]\n{rest}"
    )


def each(keys: str, *, over: str = 'input.text.split(",")', step: str = "agent: sorter") -> str:
    """Return a map whose own keys start on line 12, and whose step is on line 11."""
    return f"  - kind: map\n    name: each\n    steps: [{{name: one, {step}}}]\n    over: {over}\n{keys}"


def both(one: str, two: str, keys: str = "", kind: str = "parallel") -> str:
    """Return branches on lines 12 and 13."""
    return (
        f"  - kind: {kind}\n    name: both\n    branches:\n"
        f"      one: [{{name: a, agent: sorter{one}}}]\n      two: [{{name: b, agent: sorter{two}}}]\n{keys}"
    )


LABEL = ", save: {label: output.label}"
NOTE = ", save: {notes: {append: output.label}}"
ONWARDS = "{to: done, when: steps.check.output.score > 1}, {to: edit}"
CHOOSER = """\
version: "1"
name: case
agents:
  chooser: {model: a:b, output_schema: SCHEMA}
  worker: {model: a:b}
steps:
  - kind: router
    name: route
    router: chooser
    branches: {one: [{name: a, agent: worker}], two: [{name: b, agent: worker}]}
"""


def chooser(name: str, schema: str, words: str) -> Case:
    return Case(name, "", "FLJ238", words, "chooser", line=9, entry=CHOOSER.replace("SCHEMA", schema))


SKIPPED = [
    Case("skipped-step-gave-null", "  - {name: more, agent: sorter, when: input.text == ''}\n"
         "  - {name: b, agent: sorter, input: '{{ steps.more.output.label }}'}\n", "FLJ207", "`steps.more.output` may be null",
         "steps.more.output", line=10, severity="warning"),
    Case("skipped-composite-has-no-facts", each("    when: input.text == ''\n")
         + "  - {name: b, agent: sorter, when: steps.each.failed > 0}\n", "FLJ207", "`steps.each.failed` may be missing",
         "steps.each.failed", line=14, severity="warning"),
    Case("skipped-step-of-a-state", machine("{to: done, when: steps.write.output.score > 1}, {to: edit}").replace(
         "{name: write, agent: sorter}", "{name: write, agent: sorter, when: 'false'}"), "FLJ207",
         "`steps.write.output` may be null", "steps.write.output", line=14, severity="warning"),
]  # fmt: skip

ATTEMPTS = [
    Case(f"attempts-of-a-human-{key}", f"  - {{kind: hitl, name: ask, message: m, config: {{{key}: {value}}}}}\n", "FLJ213",
         f"`kind: hitl` does not support `{key}`", key)
    for key, value in {"timeout_s": "5s", "max_retries": "2", "retry": "{backoff: fixed}"}.items()
] + [
    Case("attempts-of-a-sleep", "  - {kind: sleep, name: rest, for: 1h, config: {timeout_s: 5s}}\n", "FLJ213",
         "`kind: sleep` does not support `timeout_s`", "timeout_s"),
    Case("attempts-of-an-event", "  - {kind: event, name: paid, config: {max_retries: 2}}\n", "FLJ213",
         "`kind: event` does not support `max_retries`", "max_retries"),
]  # fmt: skip


def known(inner: str, keys: str = "") -> str:
    """Return a cache whose own step is on line 11."""
    return f"  - kind: cache\n    name: known\n    step: {inner}\n{keys}"


NEEDS_CONTEXT = "def risk(data, context): ...\n"
ASKS = 'version: "1"\nname: child\nsteps:\n  - {kind: hitl, name: ok, message: "ok?"}\n'
CACHES = [
    Case("cache-around-a-question", known("{kind: hitl, name: ok, message: 'ok?'}"), "FLJ261", "asks a human", "hitl",
         line=11),
    Case("cache-on-an-event", "  - {kind: event, name: paid, cache: {}}\n", "FLJ261", "would end that wait", "cache"),
    Case("cache-around-a-sleep", known("{kind: sleep, name: rest, for: 1h}"), "FLJ261", "waits for a time", "sleep", line=11),
    Case("cache-on-a-sleep", "  - {kind: sleep, name: rest, for: 1h, cache: {}}\n", "FLJ261", "would end that wait", "cache"),
    Case("cache-around-a-write", known("{name: a, agent: sorter, save: {label: output.label}}"), "FLJ261",
         "saves 'label'", "label", line=11),
    Case("cache-around-a-write-further-inside", known(
         "{kind: conditional, name: c, if: 'true', then: [{name: a, agent: sorter, save: {label: output.label}}]}"),
         "FLJ261", "write `save` on 'known'", "label", line=11),
    Case("cache-around-a-when", known("{name: a, agent: sorter, when: 'true'}"), "FLJ261", "has `when`", "when", line=11),
    Case("cache-around-a-cache", known("{name: a, agent: sorter, cache: {}}"), "FLJ261", "one cache is enough", "cache",
         line=11),
    Case("cache-on-a-cache", known("{name: a, agent: sorter}", "    cache: {}\n"), "FLJ261", "is already a cache", "cache",
         line=12),
    Case("cache-on-a-question", "  - {kind: hitl, name: ok, message: 'ok?', cache: {}}\n", "FLJ261",
         "would end that wait", "cache"),
    Case("cache-on-a-map-that-writes", each("    cache: {}\n    merge: context_update\n", step="agent: sorter" + NOTE),
         "FLJ261", "saves 'notes'", "notes", line=11),
    Case("cache-around-an-import-that-asks", known("{kind: import, name: sub, blueprint: ./child.yaml}"), "FLJ261",
         "asks a human", "./child.yaml", line=11, files={"blueprints/child.yaml": ASKS}),
    Case("cache-key-unknown-name", known("{name: a, agent: sorter}", "    key: steps.sotr.output.label\n"), "FLJ204",
         "did you mean `sort`", "sotr", line=12),
    Case("cache-on-a-step-key-unknown-name", "  - {name: a, agent: sorter, cache: {key: contxt.label}}\n", "FLJ204",
         "did you mean `context`", "contxt"),
    Case("cached-is-not-said-of-other-steps", "  - {name: b, agent: sorter, when: steps.sort.cached}\n", "FLJ204", "cached",
         "cached"),
    Case("cache-of-a-step-unknown-agent", known("{name: a, agent: sortr}"), "FLJ201", "did you mean `sorter`", "sortr",
         line=11),
    Case("cache-without-a-key-for-the-context", "  - {name: a, call: skills.risk:risk, cache: {ttl_s: 1h}}\n", "FLJ262",
         "step 'a' is not cached: `skills.risk:risk` takes `context`", "skills.risk:risk", severity="warning",
         files={"skills/risk.py": NEEDS_CONTEXT}),
    Case("cache-around-something-that-takes-the-context", known("{name: a, call: skills.risk:risk}"), "FLJ262",
         "`key: context.…`", "skills.risk:risk", line=11, severity="warning", files={"skills/risk.py": NEEDS_CONTEXT}),
]  # fmt: skip


def search(keys: str = "", propose: str = "skills.crm:plain", evaluate: str = "skills.crm:plain") -> str:
    """Return a search whose own keys start on line 13."""
    return (
        f"  - kind: tree_search\n    name: search\n    propose: {propose}\n    evaluate: {evaluate}\n{keys}"
    )


CONVERSATIONS = [
    Case(
        "conversation-unknown-reconcile",
        "  - {kind: granular, name: talk, agent: sorter, enforce_idempotency: true, in_doubt: reconcile, "
        "reconcile: 'skills.crm:plian'}\n",
        "FLJ251",
        "did you mean `plain`",
        "'skills.crm:plian'",
    ),
    Case(
        "conversation-validator-not-admitted",
        "  - {kind: granular, name: talk, agent: sorter, validators: ['os:abort']}\n",
        "FLJ250",
        "may not call",
        "'os:abort'",
    ),
]


SEARCHES = [
    Case("search-unknown-agent", search(propose="sortr"), "FLJ201", "did you mean `sorter`", "sortr", line=11),
    Case("search-proposes-no-list", search(propose="sorter"), "FLJ263", "answers with `object`", "sorter", line=11),
    Case("search-goal-no-flag", search("    goal: score\n"), "FLJ206", "needs a boolean", "score", line=13),
    Case("search-goal-unknown-name", search("    goal: scor > 1\n"), "FLJ204", "did you mean `score`", "scor", line=13),
    Case("search-goal-knows-no-output", search("    goal: output > 1\n"), "FLJ204", "output", "output", line=13),
    Case("search-unknown-callable", search(evaluate="skills.crm:plian"), "FLJ251", "did you mean `plain`", "skills.crm:plian",
         line=12),
    Case("search-callable-takes-two", search(evaluate="skills.crm:pair"), "FLJ252", "give it a parameter `data`", "skills.crm:pair",
         line=12),
    Case("search-output-unknown-field", search() + "  - {name: b, agent: sorter, input: '{{ steps.search.output.best }}'}\n",
         "FLJ204", "candidate", "best", line=13),
]  # fmt: skip

STATES = [
    Case("state-unknown-initial", machine(ONWARDS).replace("initial: draft", "initial: drfat"), "FLJ231",
         "did you mean `draft`", "drfat", line=11),
    Case("state-unknown-target", machine("{to: dnoe}"), "FLJ231", "did you mean `done`", "dnoe", line=14),
    Case("state-unknown-final", machine(ONWARDS).replace("final: [done]", "final: [the_end]"), "FLJ231",
         "its states:", "the_end", line=17),
    Case("state-unknown-after-an-error", machine(ONWARDS, rest="    on_error: edti\n"), "FLJ231", "did you mean `edit`", "edti", line=18),
    Case("state-unknown-after-its-error", machine(ONWARDS).replace("done: {}", "done: {on_error: edti}"), "FLJ231",
         "did you mean `edit`", "edti", line=16),
    Case("error-that-may-be-null", machine(ONWARDS, rest="    on_error: judge\n", keys=", input: '{{ error.message }}'"), "FLJ207",
         "`error` may be null", "error", line=14, severity="warning"),
    Case("step-of-a-state-that-may-have-failed", machine(ONWARDS, edit="{steps: [{name: fix, agent: sorter, input: '{{ steps.check.output.label }}'}], transitions: [{to: judge}]}",
         rest="    on_error: edit\n"), "FLJ207", "may be missing", "steps.check.output", line=15, severity="warning"),
    Case("state-unreached", machine("{to: done}"), "FLJ232", "to state 'edit'", "edit", line=15,
         severity="warning"),
    Case("state-without-a-way-out", machine(ONWARDS, edit="{steps: [{name: fix, agent: sorter}]}"), "FLJ233",
         "has no transitions", "edit", line=15),
    Case("machine-without-an-end", machine("{to: edit}"), "FLJ233", "from 'draft' to `done`", "[done]", line=17),
    Case("transition-after-else", machine("{to: edit}, {to: done, when: 'true'}").replace("transitions: [{to: judge}]}\n      done",
         "transitions: [{to: done}]}\n      done"), "FLJ234", "is always taken", "done", line=14, severity="warning"),
    Case("transition-of-a-final-state", machine(ONWARDS).replace("done: {}", "done: {transitions: [{to: edit}]}"),
         "FLJ234", "a final state ends", "edit", line=16, severity="warning"),
    Case("transition-no-condition", machine("{to: done, when: steps.check.output.label}, {to: edit}"), "FLJ206",
         "boolean", "steps.check.output.label", line=14),
    Case("state-sees-what-may-not-have-run", machine(ONWARDS, keys=", input: '{{ steps.fix.output.label }}'"),
         "FLJ207", "`steps.fix.output` may be missing", "steps.fix.output", line=14, severity="warning"),
    Case("transition-sees-what-may-not-have-run", machine("{to: done, when: steps.fix.output.score > 1}, {to: edit}"),
         "FLJ207", "has(steps.fix.output)", "steps.fix.output", line=14, severity="warning"),
    Case("machine-output-may-be-missing", machine(ONWARDS, rest="    output: '{{ steps.fix.output }}'\n"),
         "FLJ207", "`steps.fix.output` may be missing", "steps.fix.output", line=18, severity="warning"),
    Case("state-knows-what-ran-before", machine(ONWARDS, keys=", input: '{{ steps.write.output.lable }}'"),
         "FLJ204", "did you mean `label`", "lable", line=14),
    Case("state-is-entered-with-the-output-before", machine(ONWARDS, keys=", input: '{{ previous.lable }}'"),
         "FLJ204", "did you mean `label`", "lable", line=14),
    Case("state-step-outside", machine(ONWARDS, rest="  - {name: more, agent: sorter, input: '{{ steps.write.output }}'}\n"),
         "FLJ204", "step `write` is not in scope", "write", line=18),
    Case("state-step-shadowed", machine(ONWARDS, edit="{steps: [{kind: loop, name: again, until: 'true', steps: [{name: write, agent: sorter}]}], transitions: [{to: judge}]}"),
         "FLJ211", "hides step", "write", line=15),
    Case("state-callable-not-admitted", machine("{to: done, when: 'os:abort'}, {to: edit}"), "FLJ250",
         "may not call", "'os:abort'", line=14),
]  # fmt: skip

MAPS = [
    Case("map-over-text", each("", over="input.text"), "FLJ206", "needs a list", "input.text", line=12),
    Case("map-over-number", each("", over="size(input.text)"), "FLJ206", "needs a list", "size(input.text)", line=12),
    Case("map-item-has-no-field", each("", step="agent: sorter, input: '{{ item.title }}'"), "FLJ204",
         "`item` is text", "title", line=11),
    Case("map-named-item-has-no-field", each("    as: word\n", step="agent: sorter, input: '{{ word.title }}'"),
         "FLJ204", "`word` is text", "title", line=11),
    Case("map-previous-is-the-item", each("", step="agent: sorter, input: '{{ previous.title }}'"), "FLJ204",
         "`previous` is text", "title", line=11),
    Case("map-item-outside", each("    output: '{{ item }}'\n"), "FLJ204", "`item` is not in scope", "item", line=13),
    Case("map-step-outside", each("    output: '{{ steps.one.output }}'\n"), "FLJ204", "step `one` is not in scope", "one", line=13),
    Case("map-gives-a-list", each("    output: '{{ previous.label }}'\n"), "FLJ204", "`previous` is a list", "label", line=13),
    Case("map-items-are-known-outside", each("") + "  - {name: b, agent: sorter, input: '{{ steps.each.output[0].lable }}'}\n",
         "FLJ204", "did you mean `label`", "lable", line=13),
    Case("map-collected-may-be-null", each("    on_error: collect\n")
         + "  - {name: b, agent: sorter, input: '{{ steps.each.output.map(r, r.output.label) }}'}\n",
         "FLJ207", "may be null", "r.output", line=14, severity="warning"),
    Case("map-item-called-input", each("    as: input\n"), "FLJ212", "another value", "input", line=13),
    Case("map-item-called-index", each("    as: index\n"), "FLJ212", "another value", "index", line=13),
    Case("map-item-reserved", each("    as: in\n"), "FLJ212", "reserved word", "in", line=13),
    Case("map-in-map-same-item", each("    as: word\n", step="kind: map, over: 'word.split(\" \")', as: word, steps: [{name: two, agent: sorter}]"),
         "FLJ212", "another value", "word", line=11),
    Case("map-write-thrown-away", each("", step=f"agent: sorter{NOTE}"), "FLJ236", "merge: context_update", "notes", line=11),
    Case("map-write-of-every-item", each("    merge: context_update\n", step=f"agent: sorter{LABEL}"), "FLJ235",
         "every item", "label", line=11),
    Case("map-append-is-a-conflict-when-said", each("    merge: error_on_conflict\n", step=f"agent: sorter{NOTE}"),
         "FLJ235", "every item", "notes", line=11),
    Case("map-keeps-no-failure", each("    keep: failed\n"), "FLJ240", "on_error: skip", "failed", line=13, severity="warning"),
    Case("map-keeps-something-else", each("    keep: all\n"), "FLJ125", "outputs", "all", line=13),
    Case("map-that-keeps-nothing-has-no-items", each("    keep: none\n") + "  - {name: b, agent: sorter, input: '{{ steps.each.output[0].label }}'}\n",
         "FLJ206", "does not take null", "[", line=14),
    Case("map-that-keeps-failures-has-their-facts", each("    keep: failed\n    on_error: skip\n") + "  - {name: b, agent: sorter, input: '{{ steps.each.output[0].label }}'}\n",
         "FLJ204", "label", "label", line=15),
    Case("map-over-callable-not-admitted", each("", over="'os:listdir'"), "FLJ250", "may not call", "'os:listdir'", line=12),
]  # fmt: skip


CHOICE = """\
version: "1"
name: case
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
agents:
  writer: {model: a:b}
  critic: {model: a:b}
  planner: {model: a:b, output_schema: {enum: [writer, critc]}}
steps:
  - {name: plan, agent: planner, input: "{{ input.text }}"}
  - {name: ask, agent: {one_of: [writer, critic], by: "'writer'"}, input: "{{ steps.plan.output }}"}
"""


def choice(name: str, agents: str, by: str, code: str, words: str, under: str) -> Case:
    """Return a case whose last step, on line 11, has a choice of agents."""
    last = f"  - {{name: say, agent: {{one_of: {agents}{by}}}}}\n"
    return Case(name, "", code, words, under, line=11, entry=CHOICE + last)


CHOICES = [
    choice("choice-of-an-unknown-agent", "[critic, writr]", ", by: input.text", "FLJ201", "did you mean `writer`", "writr"),
    choice("choice-of-one", "[critic]", ", by: input.text", "FLJ125", "a choice needs 2", "one_of"),
    choice("choice-of-none", "[]", ", by: input.text", "FLJ125", "has 0 agents", "one_of"),
    choice("choice-of-one-twice", "[critic, critic]", ", by: input.text", "FLJ125", "twice", "one_of"),
    choice("choice-by-no-text", "[critic, writer]", ", by: size(input.text)", "FLJ206", "text", "size(input.text)"),
    choice("choice-by-a-literal", "[critic, writer]", ", by: true", "FLJ206", "text", "true"),
    choice("choice-by-an-unknown-name", "[critic, writer]", ", by: input.txt", "FLJ204", "did you mean", "txt"),
    choice("choice-of-an-unlisted-agent", "[critic, writer]", ", by: steps.plan.output", "FLJ443", "did you mean `critic`", "steps.plan.output"),
    choice("choice-without-by", "[critic, writer]", "", "FLJ121", "`by`", "{one_of: [critic, writer]}"),
]  # fmt: skip
BRANCHES = [
    Case("parallel-conflict", both(LABEL, LABEL), "FLJ235", "'one' and 'two'", "label", line=13),
    Case("parallel-append-and-set", both(NOTE, ", save: {notes: '[output.label]'}"), "FLJ235", "context.notes", "notes", line=13),
    Case("parallel-appends-when-conflicts-are-errors", both(NOTE, NOTE, "    merge: error_on_conflict\n"), "FLJ235",
         "overwrite", "notes", line=13),
    Case("parallel-conflict-further-down", both(LABEL, "").replace("{name: b, agent: sorter}",
         "{kind: loop, name: l, until: 'true', steps: [{name: b, agent: sorter, save: {label: output.label}}]}"),
         "FLJ235", "context.label", "label", line=13),
    Case("router-conflict", both(LABEL, LABEL, "    router: skills.crm:plain\n", "router"), "FLJ235",
         "when both are chosen", "label", line=13, severity="warning"),
    Case("thread-of-two-branches", both(", thread: talk", ", thread: talk"), "FLJ428", "`merge: keep_first`", "talk", line=13),
    Case("thread-of-two-branches-in-a-fallback", both(", thread: talk", ", thread: other, fallback: {agent: sorter, thread: talk}"),
         "FLJ428", "'one' and 'two'", "talk", line=13),
    Case("thread-of-two-branches-merged-by-a-callable", both(", thread: talk", ", thread: talk", "    merge: skills.crm:fold\n"),
         "FLJ428", "both add", "talk", line=13, files={"skills/crm.py": SKILLS + "def fold(fork, branches): ...\n"}),
    Case("router-thread", both(", thread: talk", ", thread: talk", "    router: skills.crm:plain\n", "router"), "FLJ428",
         "when both are chosen", "talk", line=13, severity="warning"),
    Case("map-thread-of-every-item", each("    merge: context_update\n", step="agent: sorter, thread: talk"),
         "FLJ428", "every item of map 'each'", "talk", line=11),
    Case("thread-of-a-callable", "  - {name: a, call: skills.crm:plain, thread: talk}\n", "FLJ429", "asks no agent", "thread", line=9),
    Case("mapping-unknown-branch", both("", "", "    field_mapping: {oen: [label]}\n"), "FLJ237", "`one` and `two`", "oen", line=14),
    Case("mapping-unknown-field", both("", "", "    field_mapping: {one: [lable]}\n"), "FLJ237", "did you mean `label`", "lable", line=14),
    Case("parallel-branch-outside", both("", "") + "  - {name: more, agent: sorter, input: '{{ steps.a.output }}'}\n",
         "FLJ204", "step `a` is not in scope", "a", line=14),
    Case("parallel-unknown-branch", both("", "") + "  - {name: more, agent: sorter, input: '{{ steps.both.output.three }}'}\n",
         "FLJ204", "has no `three`", "three", line=14),
    Case("parallel-branch-does-not-see-its-sibling", both("", ", input: '{{ steps.a.output }}'"), "FLJ204", "step `a` is not in scope", "a", line=13),
    Case("parallel-skipped-may-be-missing", both("", "", "    on_branch_failure: skip\n    output: '{{ previous.one.label }}'\n"),
         "FLJ207", "`previous.one` may be missing", "previous.one", line=15, severity="warning"),
    Case("router-branch-may-be-missing", both("", "", "    router: skills.crm:plain\n    output: '{{ previous.one.label }}'\n", "router"),
         "FLJ207", "`previous.one` may be missing", "previous.one", line=15, severity="warning"),
    Case("router-unknown-agent", both("", "", "    router: sortr\n", "router"), "FLJ201", "did you mean `sorter`", "sortr", line=14),
    Case("router-unknown-callable", both("", "", "    router: skills.crm:plan\n", "router"), "FLJ251", "did you mean `plain`", "skills.crm:plan", line=14),
    Case("router-input", both("", "", "    router: skills.crm:plain\n    input: '{{ inptu }}'\n", "router"), "FLJ204",
         "did you mean `input`", "inptu", line=15),
    Case("merge-callable-not-admitted", both("", "", "    merge: os:abort\n"), "FLJ250", "may not call", "os:abort", line=14),
    Case("router-with-two-parameters", both("", "", "    router: skills.crm:pair\n", "router"), "FLJ252",
         "gets one value", "skills.crm:pair", line=14),
    Case("merge-callable-that-takes-one-value", both("", "", "    merge: skills.crm:plain\n"), "FLJ252",
         "no parameter 'fork'", "skills.crm:plain", line=14, files={"skills/crm.py": SKILLS.replace("plain(data)", "plain(branches)")}),
    Case("merge-callable-that-takes-more", both("", "", "    merge: skills.crm:fold\n"), "FLJ252",
         "passes `fork` and `branches`", "skills.crm:fold", line=14, files={"skills/crm.py": SKILLS + "def fold(fork, branches, how): ...\n"}),
    chooser("router-answers-an-object", "{type: object}", "answers with `object`"),
    chooser("router-answers-a-list-of-numbers", "{type: array, items: {type: integer}}", "answers with `integer`"),
    chooser("router-answers-something-else", "{enum: [one, tow]}", "branches: `one` and `two`"),
]  # fmt: skip

COMPOSITE_CASES = [
    *CACHES,
    *SEARCHES,
    *CONVERSATIONS,
    *SKIPPED,
    *ATTEMPTS,
    *STATES,
    *MAPS,
    *BRANCHES,
    *CHOICES,
]
