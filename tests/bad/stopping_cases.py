"""Blueprints with errors in steps that only compute: values for the context, and early ends."""

from __future__ import annotations

from bad.meaning_cases import CHILD, Case, step


def sets(values: str, keys: str = "") -> str:
    """Return a `set` step on line 9."""
    return f"  - {{kind: set, name: put, set: {{{values}}}{keys}}}\n"


SETS = [
    Case("set-of-nothing", "  - {kind: set, name: put, set: {}}\n", "FLJ125", "at least 1", None),
    Case("set-of-an-unknown-field", sets("cuont: 1"), "FLJ214", "no field 'cuont'", "cuont"),
    Case("set-to-another-type", sets("count: many"), "FLJ215", '"many" is `string`', "many"),
    Case("set-to-the-type-of-an-expression", sets("count: '{{ input.text }}'"), "FLJ215", "is `string`", None),
    Case("set-to-an-unknown-name", sets("count: '{{ inptu.n }}'"), "FLJ204", "inptu", "inptu"),
    Case("set-in-a-cache", f"  - kind: cache\n    name: known\n    step: {sets('count: 1').strip(' -')}", "FLJ261",
         "sets 'count'", "count", line=11),
    Case("set-with-a-cache", sets("count: 1", ", cache: {}"), "FLJ261", "only evaluates expressions", "cache"),
    Case("set-with-attempts", sets("count: 1", ", config: {max_retries: 2}"), "FLJ213", "evaluated once", "max_retries"),
    Case("set-in-the-background", sets("count: 1", ", config: {execution_mode: background}"), "FLJ280",
         "only evaluates expressions", "execution_mode"),
    Case("set-by-two-branches", "  - kind: parallel\n    name: both\n    branches:\n"
         "      one: [{kind: set, name: a, set: {count: 1}}]\n      two: [{kind: set, name: b, set: {count: 2}}]\n",
         "FLJ235", "both write `context.count`", "count", line=13),
]  # fmt: skip


def ends(keys: str) -> str:
    """Return an `end` step."""
    return f"{{kind: end, name: stop{keys}}}"


ENDS = [
    Case("end-of-the-blueprint-in-a-map", f"  - {{kind: map, name: each, over: '[1]', steps: [{ends('')}]}}\n", "FLJ313",
         "which is of `kind: map`", "end"),
    Case("end-of-the-blueprint-in-a-branch-at-once", "  - kind: parallel\n    name: both\n    branches:\n"
         f"      one: [{{kind: conditional, name: c, if: 'true', then: [{ends('')}]}}]\n", "FLJ313", "write `of: body`",
         "end", line=12),
    Case("end-of-the-blueprint-in-the-background",
         f"  - {{kind: loop, name: again, until: 'true', config: {{execution_mode: background}}, steps: [{ends('')}]}}\n",
         "FLJ313", "which runs in the background", "end"),
    Case("end-with-an-output-and-a-failure", f"  - {ends(', output: a, fail: b')}\n", "FLJ127", "exclude each other", "fail"),
    Case("end-of-a-body-with-a-failure", f"  - {ends(', of: body, fail: b')}\n", "FLJ127", "exclude each other", "of"),
    Case("end-of-something-else", f"  - {ends(', of: loop')}\n", "FLJ125", "blueprint", "loop"),
    Case("end-with-a-wrong-name-in-its-failure", "  - {kind: end, name: stop, fail: 'it is {{ inptu }}'}\n", "FLJ204", "inptu", "inptu"),
    Case("step-after-an-end", f"  - {ends('')}\n  - {{name: late, agent: sorter}}\n", "FLJ312",
         "'stop' before it ends the blueprint", "late", line=10, severity="warning"),
    Case("step-after-a-failure", f"  - {ends(', fail: no')}\n  - {{name: late, agent: sorter}}\n", "FLJ312",
         "'stop' before it fails: no", "late", line=10, severity="warning"),
    Case("end-with-a-cache", f"  - {ends(', cache: {}')}\n", "FLJ261", "only evaluates expressions", "cache"),
    Case("step-that-an-end-may-skip", "  - kind: loop\n    name: again\n    until: steps.b.output.score > 1\n    steps:\n"
         f"      - {ends(', of: body, when: steps.sort.output.score > 3')}\n      - {{name: b, agent: sorter}}\n",
         "FLJ207", "`steps.b.output` may be null", "steps.b.output", line=11, severity="warning"),
    Case("field-that-an-end-may-leave-unwritten", "  - kind: loop\n    name: again\n    until: 'true'\n    max_iterations: 1\n    steps:\n"
         f"      - {ends(', of: body, when: steps.sort.output.score > 3')}\n      - {{kind: set, name: b, set: {{count: 1}}}}\n"
         "  - {name: tell, call: 'skills.crm:plain', with: {data: '{{ context.count }}'}}\n",
         "FLJ207", "`context.count` may be missing", "context.count", line=16, severity="warning"),
    Case("output-of-an-early-end-of-another-type", f"  - {{kind: conditional, name: way, if: 'true', then: [{ends(', of: body, when: steps.sort.output.score > 3, output: 4')}, {{name: b, agent: sorter}}], else: [{{name: c, agent: sorter}}]}}\n"
         "  - {name: tell, call: 'skills.crm:plain', with: {data: '{{ steps.way.output.label }}'}}\n",
         "FLJ206", "may be a whole number", "steps.way.output", line=10, severity="warning"),
]  # fmt: skip


def again(keys: str) -> str:
    """Return a loop, whose own keys are on line 10."""
    return f"  - {{kind: loop, name: again, until: 'true', max_iterations: 1, steps: [{{name: b, agent: sorter}}],\n     {keys}}}\n"


READ = "  - {name: tell, call: 'skills.crm:plain', with: {data: '{{ %s }}'}}\n"
ERRORS = [
    Case("on-error-by-another-word", again("on_error: continue"), "FLJ125", "`fail`", "continue", line=10),
    Case("on-error-with-a-wrong-name", again("on_error: {output: '{{ inptu }}'}"), "FLJ204", "inptu", "inptu", line=10),
    Case("on-error-gives-another-type", again("on_error: {output: 4}") + READ % "steps.again.output.label", "FLJ206",
         "may be a whole number", "steps.again.output", line=11, severity="warning"),
    Case("error-that-is-not-kept", again("on_limit: continue") + READ % "steps.again.error", "FLJ204", "error", "error", line=11),
    Case("field-of-an-error-that-may-be-null", again("on_error: skip") + READ % "steps.again.error.code", "FLJ207",
         "`steps.again.error` may be null", "steps.again.error", line=11, severity="warning"),
    Case("field-that-a-failed-step-leaves-unwritten", again("on_error: skip").replace("agent: sorter", "agent: sorter, save: {count: output.score}")
         + READ % "context.count", "FLJ207", "`context.count` may be missing", "context.count", line=11, severity="warning"),
]  # fmt: skip

FAILING = [
    Case("import-of-a-blueprint-with-on-failure", "  - {kind: import, name: sub, blueprint: ./child.yaml, with: {text: a}}\n",
         "FLJ314", "executed only when a run of that", "./child.yaml",
         files={"blueprints/child.yaml": CHILD + "on_failure: [{name: undo, call: skills.crm:echo, with: {text: a}}]\n"}),
    Case("new-run-in-on-failure", "on_failure:\n  - {kind: continue_as_new, name: next}\n", "FLJ315", "begins a new run", "next", line=10),
    Case("end-in-a-body-of-on-failure", f"on_failure:\n  - {{kind: conditional, name: c, if: 'true', then: [{ends('')}]}}\n",
         "FLJ315", "':failure/c/stop' ends the blueprint", "stop", line=10),
    Case("task-in-on-failure", "on_failure:\n  - {name: late, agent: sorter, config: {execution_mode: background}}\n", "FLJ315",
         "runs in the background", "late", line=10),
    Case("state-called-unfinished", "  - {kind: state_machine, name: m, initial: unfinished, final: [unfinished], states: {unfinished: {}}}\n",
         "FLJ316", "name of a branch or state", "unfinished"),
    Case("step-of-the-run-in-on-failure", "on_failure:\n" + READ % "steps.sort.output.label", "FLJ204", "sort", None, line=10),
    Case("failure-before-there-is-one", READ % "failure.step", "FLJ204", "failure", None),
    Case("field-that-a-failure-lacks", "on_failure:\n" + READ % "failure.kind", "FLJ204", "kind", None, line=10),
    Case("two-steps-of-one-name-after-a-failure", "on_failure:\n" + 2 * step("agent: sorter"), "FLJ210", "called 'more'", "more", line=11),
]  # fmt: skip

CLOSING = [
    Case("import-of-a-blueprint-with-finally", "  - {kind: import, name: sub, blueprint: ./child.yaml, with: {text: a}}\n",
         "FLJ314", "a run of that pipeline ends", "./child.yaml",
         files={"blueprints/child.yaml": CHILD + "finally: [{name: undo, call: skills.crm:echo, with: {text: a}}]\n"}),
    Case("end-in-finally", f"finally:\n  - {ends('')}\n", "FLJ315", "':finally/stop' ends the blueprint", "stop", line=10),
    Case("task-in-finally", "finally:\n  - {name: late, agent: sorter, config: {execution_mode: background}}\n", "FLJ315",
         "runs in the background", "late", line=10),
    Case("sleep-in-a-body-of-finally",
         "finally:\n  - {kind: conditional, name: c, if: 'true', then: [{kind: sleep, name: rest, for: 5}]}\n",
         "FLJ317", "':finally/c/rest' waits for a time", "rest", line=10),
    Case("pause-at-a-limit-in-finally", "finally:\n  - {kind: granular, name: talk, agent: sorter, on_limit: pause}\n", "FLJ317",
         "asks a human when its turns are used up", "talk", line=10),
    Case("field-that-an-end-lacks", "finally:\n" + READ % "ended.output", "FLJ204", "output", None, line=10),
    Case("error-of-an-end-without-one", "finally:\n" + READ % "ended.error.message", "FLJ207", "may be null", "ended.error",
         line=10, severity="warning"),
    Case("failure-in-finally", "finally:\n" + READ % "failure.step", "FLJ204", "failure", None, line=10),
]  # fmt: skip

STOPPING = [*SETS, *ENDS, *ERRORS, *FAILING, *CLOSING]
