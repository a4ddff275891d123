"""Valid blueprints that resemble errors in the flow of data: no findings are allowed."""

from __future__ import annotations

from bad.composite_cases import LABEL, NOTE, ONWARDS, both, each, known, machine
from bad.flow_cases import AGENT, ASKS, HELP, HELPERS, LOOKS_UP, OPTIONAL, ORDER, READS, call, tools
from bad.meaning_cases import HEAD, importing, logic, loop, step

CONTEXT = "context_schema: {properties: {label: {type: string}, count: {type: integer}, notes: {type: array, items: {type: string}}}}\n"
CHILDREN = {
    "blueprints/child.yaml": 'version: "1"\nname: child\ninput_schema: {type: object, required: [text], properties: {text: {type: string}, tone: {type: string}}}\n'
    "steps: [{name: kind, call: 'skills.typed:kind', with: {text: '{{ input.text }}'}}]\n",
    "blueprints/writer.yaml": 'version: "1"\nname: writer\n'
    + CONTEXT
    + "steps: [{name: kind, call: 'skills.typed:kind', with: {text: a}, save: {label: output}}]\n",
    "blueprints/order.yaml": ORDER.replace("{name: look,", "{name: look, effect: read,"),
}
"""Blueprints that the cases import, or that their agents have as tools."""

GOOD_FLOW = {
    "ends-with-what-is-there": HEAD
    + "  - {kind: end, name: nothing, when: input.text == '', output: {label: none}}\n"
    "  - kind: loop\n    name: again\n    until: steps.again_try.output != null && steps.again_try.output.score > 1\n    steps:\n"
    "      - {kind: end, name: next, of: body, when: loop.index == 0}\n      - {name: again_try, agent: sorter}\n"
    "      - {kind: end, name: bad, when: steps.again_try.output.score < 0, fail: 'score {{ steps.again_try.output.score }}'}\n"
    "  - kind: conditional\n    name: way\n    if: steps.sort.output.score > 3\n    then: [{kind: end, name: enough}]\n"
    "    else: [{name: more, agent: sorter}]\n"
    + READS % "steps.way.output.label",
    "failures-that-are-replaced": HEAD
    + "  - {kind: loop, name: again, until: 'true', max_iterations: 1, steps: [{name: b, agent: sorter}],\n"
    "     on_error: {output: {label: none, score: 0}}}\n"
    + READS % 'steps.again.error == null ? steps.again.output.label : "no label"'
    + "  - {kind: parallel, name: both, branches: {one: [{name: c, agent: sorter}]}, on_error: skip}\n",
    "steps-after-a-failure": HEAD
    + importing("./child.yaml", "    with: {text: '{{ steps.sort.output.label }}'}\n    on_failure: skip\n")
    + "on_failure:\n"
    "  - {kind: set, name: count, set: {count: 1, notes: ['{{ failure.error.message }}', '{{ failure.step }}']}}\n"
    "  - {kind: hitl, name: ask, message: '{{ failure.error.code }}, {{ input.text }}?', when: failure.error.retryable}\n"
    "  - {name: sort, agent: sorter, input: '{{ previous }}'}\n"
    "  - kind: parallel\n    name: both\n    branches:\n"
    "      failure: [{kind: map, name: each, over: '[1]', steps: [{kind: end, name: stop, of: body, when: item == 1},"
    " {name: one, agent: sorter}]}]\n      finally: [{name: tell, call: 'skills.crm:plain', with: {data: '{{ steps.sort.output.score }}'}}]\n",
    "steps-at-the-end": HEAD
    + "finally:\n"
    "  - {kind: set, name: count, set: {count: 1, notes: ['{{ ended.error == null ? ended.status : ended.error.message }}']}}\n"
    "  - kind: conditional\n    name: way\n    if: ended.status == 'cancelled'\n"
    "    then: [{kind: end, name: stop, of: body, when: input.text == ''}, {name: sort, agent: sorter, input: '{{ previous }}'}]\n"
    "  - {name: last, agent: sorter, input: '{{ context.count }}'}\n",
    "ends-of-items-and-branches": HEAD + each("    merge: no_merge\n").replace(
        "{name: one,", "{kind: end, name: skip, of: body, when: item == ''}, {name: one,"),
    "values-set-in-a-loop": HEAD.replace("count: {type: integer}", "count: {type: integer, default: 0}")
    + "  - kind: loop\n    name: again\n    until: context.count == 3\n    steps:\n"
    "      - {kind: set, name: more, set: {count: '{{ context.count + 1 }}', notes: ['{{ input.text }}']}}\n"
    + READS % "context.notes[0] + string(steps.again.output.count)",
    "agents-as-tools": HELPERS % ("{agent: b, description: Helps}", "{agent: f, description: Helps, name: last, max_turns: 3}"),
    "blueprints-as-tools": AGENT % f"{LOOKS_UP}, {LOOKS_UP.replace('}', ', name: again}')}"
    + "  - {kind: granular, name: help, agent: helper, input: hello, enforce_idempotency: true}\n",
    "a warning that somebody has judged": HEAD + "  - {name: more, agent: sorter, input: '{{ input.note }}'}  # flujo: ignore[FLJ207] it is always there\n",
    "one-blueprint-imported-twice": HEAD + importing("./child.yaml", "    with: {text: '{{ steps.sort.output.label }}'}\n")
    + importing("./child.yaml", "    with: {text: '{{ previous }}'}\n").replace("name: sub", "name: again"),
    "an-import-that-is-given-what-it-needs": HEAD + importing("./child.yaml", "    with: {text: '{{ steps.sort.output.label }}'}\n")
    + logic("steps.sub.output == 'good'"),
    "an-import-that-inherits-the-same-context": HEAD + importing("./writer.yaml", "    context: inherit\n"),
    "field-that-both-ways-give": HEAD + "  - kind: conditional\n    name: way\n    if: input.text == ''\n    then: [{name: a, agent: sorter}]\n"
    "    else: [{name: b, agent: sorter, output_schema: {type: object, required: [label], properties: {label: {enum: [other]}}}}]\n"
    + READS % 'steps.way.output.label == "other" || steps.way.output.label == "bug"',
    "further-iterations-give-the-same": HEAD + "  - {kind: loop, name: again, until: steps.try.output.score > 1,\n"
    "     steps: [{name: try, agent: sorter, input: '{{ previous.label }}'}]}\n",
    "filtered-items": HEAD + each("") + READS % "steps.each.output.filter(o, o.score > 1).map(o, o.label)",
    "returned-by-functions": HEAD + call("words") + each("", over="steps.got.output", step="agent: sorter, input: '{{ item.size() }}'")
    + "  - {name: kind, call: 'skills.typed:kind', with: {text: a}}\n" + logic("steps.kind.output == 'bad'"),
    "labels-that-there-are": HEAD + logic("steps.sort.output.label in ['bug', 'refund'] && steps.sort.output.label != 'bug'"),
    "text-that-lists-no-values": HEAD + logic("input.text == 'anything'"),
    "read-by-a-later-step": HEAD + step("agent: sorter") + READS % "input.text" + READS.replace("tell", "again") % "steps.more.output.label",
    "read-inside-a-branch": HEAD + step("agent: sorter") + both("", ", input: '{{ steps.more.output.label }}'").replace("name: a,", "name: a, input: x,"),
    "read-as-what-came-before-a-composite": HEAD + step("agent: sorter") + both("", ""),
    "read-by-its-own-save": HEAD + step("agent: sorter, save: {count: output.score}") + READS % "input.text",
    "passed-on-by-a-step-that-may-be-skipped": HEAD + step("agent: sorter") + "  - {name: b, agent: sorter, input: x, when: input.text != ''}\n",
    "passed-on-by-a-way-that-may-not-be-taken": HEAD + step("agent: sorter")
    + "  - {kind: conditional, name: way, if: input.text == '', then: [{name: a, agent: sorter, input: x}]}\n",
    "read-by-the-output-of-a-loop": HEAD + "  - {kind: loop, name: again, until: loop.index > 1, output: '{{ steps.one.output.label }}',\n"
    "     steps: [{name: one, agent: sorter}, {name: two, agent: sorter, input: '{{ input.text }}'}]}\n",
    "read-by-another-state": HEAD + machine(ONWARDS, keys=", input: '{{ steps.write.output.label }}'"),
    "an-error-of-a-state-that-only-failures-lead-to": HEAD
    + machine("{to: done}", edit="{steps: [{name: fix, agent: sorter, input: '{{ error.message }} {{ steps.write.output.label }}'}], transitions: [{to: done}]}")
    .replace("transitions: [{to: done}]}\n      edit", "transitions: [{to: done}], on_error: edit}\n      edit"),
    "judged-and-not-read": HEAD + step("agent: sorter, validators: ['skills.crm:plain']") + READS % "input.text",
    "done-and-not-read": HEAD + step("call: 'skills.crm:plain'") + READS % "input.text",
    "a-human-who-chooses-from-data": HEAD + "  - {kind: hitl, name: which, message: Which?, answer_schema: {enum: '{{ [input.text, steps.sort.output.label] }}'}}\n"
    + READS % "steps.which.output + input.text",
    "a-human-who-says-go-on": HEAD + "  - {kind: hitl, name: ok, message: Seen?}\n" + READS % "input.text",
    "a-human-s-answer": HEAD + ASKS + "  - {name: b, agent: sorter, when: steps.ok.output, input: '{{ input.text }}'}\n",
    "a-field-that-is-written-before": OPTIONAL + step("agent: sorter, save: {label: output.label}")
    + READS % "context.label + steps.sort.output.label",
    "a-field-that-a-loop-writes": HEAD
    + "  - {kind: loop, name: again, until: steps.try.output.score > 1, steps: [{name: try, agent: sorter, save: {count: output.score}}]}\n"
    + READS % "context.count + 1",
    "a-field-that-both-ways-write": HEAD + "  - {kind: conditional, name: way, if: input.text == '', then: [{name: a, agent: sorter, save: {count: output.score}}],\n"
    "     else: [{name: b, agent: sorter, save: {count: output.score}}]}\n" + READS % "context.count + 1",
    "a-field-that-a-branch-writes": OPTIONAL + both(LABEL, NOTE) + READS % "context.label + steps.sort.output.label",
    "a-field-that-is-asked-for": OPTIONAL + READS % 'get(context, "label", "") + steps.sort.output.label',
    "until-of-the-loop-s-index": HEAD + loop("    until: loop.index > 1 || input.text == ''\n"),
    "until-of-a-field-that-is-saved": HEAD
    + "  - {kind: loop, name: again, until: context.count > 3, steps: [{name: try, agent: sorter, save: {count: output.score}}]}\n",
    "until-of-the-last-output": HEAD + "  - {kind: loop, name: again, until: previous.score > 3, steps: [{name: try, agent: sorter}]}\n",
    "a-limit-from-data": HEAD + loop("    until: previous.score > 3\n    max_iterations: {value: '{{ input.text.size() }}', max: 3}\n"),
    "time-from-data": HEAD
    + "  - {kind: hitl, name: ok, message: m, deadline_s: {value: '{{ input.text.size() * 60 }}', max: 72h}}\n"
    + "  - {kind: event, name: paid, deadline_s: {value: 'input.text.size()', max: 3d}}\n"
    + loop("    until: 'true'\n    config: {timeout_s: {value: '{{ input.text.size() }}', max: 10m}}\n"),
    "the-life-of-a-run-from-its-input": HEAD.replace("steps:\n", "deadline: {value: '{{ input.text.size() * 3600 }}', max: 3d}\nsteps:\n", 1),
    "until-never": HEAD + loop("    until: false\n    on_limit: continue\n"),
    "tools-that-only-read": tools("find"),
    "tools-that-are-recorded": (AGENT % "{call: 'skills.tools:send', enforce_idempotency: true, in_doubt: fail}")
    + "  - {kind: granular, name: help, agent: helper, input: hello}\n",
    "tools-that-a-step-may-repeat": (
        AGENT % "{call: 'skills.tools:send', effect: idempotent}, {call: 'skills.tools:pay', in_doubt: fail}"
    )
    + "  - {kind: granular, name: help, agent: helper, input: hello, enforce_idempotency: true, in_doubt: retry_same_key}\n",
    "tools-that-a-human-approves": (
        AGENT % "{call: 'skills.tools:send', approve: {when: args.text.size() > 9 && input.text != '', message: 'Send {{ args.text }}?',"
        " deadline_s: 72h, on_deadline: deny, editable: true}}, {call: 'skills.tools:pay', approve: {deadline_s: {value: 'args.amount * 60', max: 3d}}}"
    )
    + "  - {kind: granular, name: help, agent: helper, input: hello}\n",
    "tools-as-strict-as-their-functions": (
        AGENT % "{call: 'skills.tools:book', effect: unsafe}, {call: 'skills.tools:find', effect: read}"
    )
    + "  - {kind: granular, name: help, agent: helper, input: hello}\n",
    "tools-of-an-mcp-server": (
        AGENT % "{mcp: kb, allow: [kb_search], approve: {when: args.query != input.text, message: 'Search {{ args.query }}?'}}"
    )
    + "  - {kind: granular, name: help, agent: helper, input: hello}\n",
    "tools-in-a-transaction": (AGENT % "'skills.tools:book'")
    + "  - {kind: granular, name: help, agent: helper, input: hello}\n",
    "tools-with-bound-parameters": (
        AGENT % "{call: 'skills.tools:mail', with: {address: {key: {secret: MAIL_KEY}, hosts: [a, {secret: HOST_KEY}], size: 5}}}"
    )
    + "  - {kind: granular, name: help, agent: helper, input: hello}\n",
    "tools-that-only-act": tools("pay"),
    "tools-on-a-text-of-ours": tools("find", "pay", asking="  - {name: help, agent: helper, input: Pay the rent.}\n"),
    "tools-behind-a-human": tools(
        "find", "pay", asking="  - {kind: hitl, name: ok, message: 'Help with {{ input.text }}?', answer_schema: {type: boolean}}\n"
        + HELP.replace("helper,", "helper, when: steps.ok.output,")
    ),
    "tools-whose-calls-a-human-approves": AGENT % "'skills.tools:find', {call: 'skills.tools:pay', approve: true}"
    + HELP.replace("{name", "{kind: granular, name"),
    "a-cache-beside-an-effect": HEAD + known("{name: a, call: 'skills.crm:plain', effect: read}")
    + "  - {name: b, call: 'skills.crm:plain', effect: unsafe}\n",
    "an-effect-recorded-late-that-may-be-repeated": HEAD + step("call: 'skills.crm:plain', config: {durability: exit}"),
    "an-agent-asked-once-without-a-bound": HEAD.replace("model_settings: {max_tokens: 9}, ", ""),
    "an-agent-asked-again-under-a-budget": HEAD.replace("model_settings: {max_tokens: 9}, ", "").replace("agents:", "budget: {requests_limit: 9}\nagents:")
    + each(""),
    "an-agent-of-this-machine-asked-again": HEAD.replace("{model: a:b, model_settings: {max_tokens: 9},", "{model: 'local:smollm2',")
    + each(""),
}  # fmt: skip
