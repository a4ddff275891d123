"""Blueprints with errors in the flow of data between steps."""

from __future__ import annotations

from bad.composite_cases import both, each, known
from bad.meaning_cases import HEAD, Case, importing, logic, loop, step
from bad.stopping_cases import STOPPING

READS = "  - {name: tell, call: 'skills.crm:plain', with: {data: '{{ %s }}'}}\n"
ASKS = "  - {kind: hitl, name: ok, message: 'ok?', answer_schema: {type: boolean}}\n"
TYPED = """\
from typing import Literal
def count(text: str) -> int: ...
def words(text) -> list[str]: ...
def kind(text) -> Literal["good", "bad"]: ...
def perhaps(text) -> "str | None": ...
"""
FILES = {"skills/typed.py": TYPED}
OPTIONAL = HEAD.replace(", save: {label: output.label}", "")
"""The start of a case in which no step writes to the context."""


def call(name: str) -> str:
    """Return a call of `skills.typed`; its reader is on line 10."""
    return f"  - {{name: got, call: 'skills.typed:{name}', with: {{text: '{{{{ input.text }}}}'}}}}\n"


KNOWN = [
    Case("output-of-either-way-has-no-field",
         "  - kind: conditional\n    name: way\n    if: input.text == ''\n    then: [{name: a, agent: sorter}]\n"
         "    else: [{name: b, agent: sorter, output_schema: {type: object, required: [label], properties: {label: {type: string}}}}]\n"
         + READS % "steps.way.output.lable", "FLJ204", "did you mean `label`", "lable", line=14),
    Case("output-of-one-way-only", "  - kind: conditional\n    name: way\n    if: input.text == ''\n    then: [{name: a, agent: sorter}]\n"
         "    else: [{name: b, agent: sorter, output_schema: {type: object, required: [label], properties: {label: {type: string}}}}]\n"
         + READS % "steps.way.output.score", "FLJ207", "may be missing", "steps.way.output.score", line=14, severity="warning"),
    Case("further-iteration-has-no-field", "  - {kind: loop, name: again, until: steps.try.output.score > 1,\n"
         "     steps: [{name: try, agent: sorter, input: '{{ previous.lable }}'}]}\n", "FLJ204", "did you mean `label`", "lable", line=10),
    Case("filtered-items-have-no-field", each("") + READS % "steps.each.output.filter(o, o.score > 1).map(o, o.lable)",
         "FLJ204", "did you mean `label`", "lable", line=13),
    Case("function-returns-a-number", call("count") + READS % "steps.got.output.total", "FLJ204", "is a whole number", "total",
         line=10, files=FILES),
    Case("map-over-what-is-no-list", call("count") + each("", over="steps.got.output").replace("each", "all"), "FLJ206",
         "needs a list", "steps.got.output", line=13, files=FILES),
    Case("map-over-a-function-s-list", each("", over="'skills.typed:words'", step="agent: sorter, input: '{{ item.title }}'"),
         "FLJ204", "`item` is text", "title", line=11, files=FILES),
    Case("text-of-a-function-may-be-null", call("perhaps") + logic("steps.got.output.size() > 3"), "FLJ207", "may be null",
         "steps.got.output", line=12, severity="warning", files=FILES),
    Case("a-literal-that-a-function-never-returns", call("kind") + logic("steps.got.output == 'fine'"), "FLJ260",
         "possible values: `good` and `bad`", "'fine'", line=12, severity="warning", files=FILES),
    Case("a-label-that-is-none", logic("steps.sort.output.label == 'bugs'"), "FLJ260", "did you mean `bug`", "'bugs'", line=11,
         severity="warning"),
    Case("a-label-in-a-list-that-is-none", logic("steps.sort.output.label in ['bug', 'refunds']"), "FLJ260", "did you mean `refund`",
         "'refunds'", line=11, severity="warning"),
    Case("a-label-of-an-item-that-is-none", each("") + READS % "steps.each.output.filter(o, o.label != ''bgs'').map(o, o.score)",
         "FLJ260", "`o.label` is never 'bgs'", None, line=13, severity="warning"),
    Case("a-branch-of-a-boolean", "  - kind: conditional\n    name: way\n    switch: steps.sort.output.score > 1\n"
         "    branches: {'true': [{name: a, agent: sorter}], 'no': [{name: b, agent: sorter}]}\n    default: []\n",
         "FLJ218", "is never 'no'", "'no'", line=12),
    Case("limit-that-is-text", loop("    until: 'true'\n    max_iterations: {value: input.text, max: 3}\n"), "FLJ206",
         "needs a whole number", "input.text", line=13),
    Case("limit-that-is-a-callable", loop("    until: 'true'\n    max_iterations: {value: 'skills.crm:plain', max: 3}\n"), "FLJ125",
         "is an expression, not a callable", "value", line=13),
    Case("limit-without-a-maximum", loop("    until: 'true'\n    max_iterations: {value: input.text.size()}\n"), "FLJ121",
         "needs `max`", None, line=13),
    Case("seconds-that-are-text", "  - {kind: hitl, name: ok, message: m, deadline_s: {value: input.text, max: 1h}}\n", "FLJ206",
         "needs a number", "input.text"),
    Case("timeout-with-an-unknown-name", loop("    until: 'true'\n    config: {timeout_s: {value: input.txt, max: 1h}}\n"), "FLJ204",
         "txt", "txt", line=13),
    Case("life-that-is-text", "", "FLJ206", "needs a number", "input.text", line=3,
         entry=HEAD.replace("name: case\n", "name: case\ndeadline: {value: input.text, max: 1h}\n")),
    Case("life-of-a-field-of-the-context", "", "FLJ204", "context", "context", line=3,
         entry=HEAD.replace("name: case\n", "name: case\ndeadline: {value: context.label.size(), max: 1h}\n")),
    Case("life-without-a-maximum", "", "FLJ121", "needs `max`", None, line=3,
         entry=HEAD.replace("name: case\n", "name: case\ndeadline: {value: input.text.size()}\n")),
    Case("choices-that-are-no-list", "  - {kind: hitl, name: which, message: m, answer_schema: {enum: '{{ input.text }}'}}\n", "FLJ206",
         "needs a list", "input.text"),
    Case("choices-with-an-unknown-name", "  - {kind: hitl, name: which, message: m, answer_schema: {items: {enum: '{{ [input.txt] }}'}}}\n",
         "FLJ204", "did you mean `text`", "txt"),
    Case("branch-and-default-of-one-name", "  - kind: conditional\n    name: way\n    switch: input.text\n"
         "    branches: {default: [{name: a, agent: sorter}]}\n    default: [{name: b, agent: sorter}]\n",
         "FLJ127", "rename the branch", "default", line=13),
    Case("import-gets-another-type", importing("./child.yaml", "    with: {text: '{{ steps.sort.output.score }}'}\n"), "FLJ224",
         "expects `string`", None, line=12,
         files={"blueprints/child.yaml": 'version: "1"\nname: child\ninput_schema: {type: object, properties: {text: {type: string}}}\n'
                "steps: [{name: echo, call: skills.crm:plain}]\n"}),
    Case("import-is-handed-another-type", importing("./child.yaml"), "FLJ224", "expects `string`", "sub", line=10,
         files={"blueprints/child.yaml": 'version: "1"\nname: child\ninput_schema: {type: string}\n'
                "steps: [{name: echo, call: skills.crm:plain}]\n"}),
]  # fmt: skip

NOWHERE = [
    Case("an-answer-that-nobody-reads", step("agent: sorter") + READS % "input.text", "FLJ268", "the answer of 'more'", "more",
         severity="warning"),
    Case("a-human-s-no-that-nobody-hears", ASKS + READS % "input.text", "FLJ268", "the human's answer to 'ok'", "ok",
         severity="warning"),
    Case("a-look-up-that-nobody-reads", step("call: 'skills.crm:plain', effect: read") + READS % "input.text", "FLJ268",
         "the output of 'more'", "more", severity="warning"),
    Case("an-answer-that-nobody-reads-in-a-branch", both("", "").replace("{name: a, agent: sorter}",
         "{name: c, agent: sorter}, {name: a, agent: sorter, input: '{{ input.text }}'}"), "FLJ268", "'c'", "c", line=12,
         severity="warning"),
    Case("a-cached-answer-that-nobody-reads", known("{name: a, agent: sorter}") + READS % "input.text", "FLJ268", "'known'", "known",
         line=10, severity="warning"),
    Case("a-last-answer-that-the-output-leaves-out", step("agent: sorter") + "output: '{{ steps.sort.output }}'\n", "FLJ268",
         "'more'", "more", severity="warning"),
    Case("a-field-that-nobody-writes", "", "FLJ269", "no step writes `context.label`", "context.label", line=9, severity="warning",
         entry=OPTIONAL + READS % "context.label + steps.sort.output.label"),
    Case("a-field-that-is-written-later", READS % "context.count + 1" + step("agent: sorter, save: {count: output.score}"), "FLJ207",
         "`context.count` may be missing", "context.count", severity="warning"),
    Case("a-field-that-one-way-writes", "  - {kind: conditional, name: way, if: input.text == '', then: [{name: a, agent: sorter, save: {count: output.score}}]}\n"
         + READS % "context.count + 1", "FLJ207", "`context.count` may be missing", "context.count", line=10, severity="warning"),
    Case("an-until-that-stands", loop("    until: steps.sort.output.score > 3\n"), "FLJ264", "no step of loop 'again' changes",
         "steps.sort.output.score > 3", line=12, severity="warning"),
    Case("an-until-of-a-field-that-the-loop-leaves", loop("    until: context.label == ''\n"), "FLJ264", "`loop.index`",
         "context.label == ''", line=12, severity="warning"),
    Case("an-until-of-the-loop-around", "  - {kind: map, name: each, over: '[1, 2]', steps: [\n"
         "      {kind: loop, name: again, until: item > 1, steps: [{name: try, agent: sorter}]}]}\n", "FLJ264", "a field that it saves",
         "item > 1", line=10, severity="warning"),
]  # fmt: skip

AGENT = """\
version: "1"
name: case
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
agents:
  helper: {model: a:b, tools: [%s]}
steps:
"""
TOOLS = """\
import flujo
from flujo.exceptions import PausedException
def lookup(email): ...
def send(text): ...
def mail(text, address): ...
@flujo.tool(effect="read")
def find(text): ...
@flujo.tool(effect="unsafe")
def pay(amount): ...
@flujo.tool(effect="transactional")
def book(seat, connection): ...
def confirm(text): raise PausedException("Send it?")
"""
GRANULAR = "  - {kind: granular, name: help, agent: helper, input: hello}\n"
HELP = "  - {name: help, agent: helper, input: '{{ input.text }}'}\n"


def tools(*names: str, asking: str = HELP) -> str:
    return AGENT % ", ".join(f"'skills.tools:{name}'" for name in names) + asking


def agent(name: str, entry: str, code: str, words: str, under: str, line: int = 7) -> Case:
    return Case(
        name,
        "",
        code,
        words,
        under,
        line=line,
        severity="warning",
        files={"skills/tools.py": TOOLS},
        entry=entry,
    )


SAFETY = [
    agent("rule-of-two", tools("find", "pay"), "FLJ291", "ask a human first", "helper"),
    agent("rule-of-two-undeclared", tools("lookup", "send"), "FLJ291", '`@flujo.tool(effect="read")`', "helper"),
    agent("rule-of-two-handed-on", tools("find", "pay", asking="  - {name: help, agent: helper}\n"), "FLJ291", "`skills.tools:pay`", "helper"),
    agent("rule-of-two-by-a-file", tools("find", "pay", asking="  - {name: help, agent: helper, input: hello, files: [scan.png]}\n"),
          "FLJ291", "reads untrusted text", "helper"),
    agent("rule-of-two-on-a-thread", tools("find", "pay", asking="  - {name: help, agent: helper, thread: talk, input: Help.}\n"),
          "FLJ291", "may have side effects", "helper"),
    agent("rule-of-two-and-a-human-afterwards", tools("find", "pay", asking=HELP + "  - {kind: hitl, name: ok, message: 'ok? {{ previous }}'}\n"),
          "FLJ291", "may have side effects", "helper"),
    agent("rule-of-two-in-the-long-form", (AGENT % "{call: 'skills.tools:lookup', effect: read}, {call: 'skills.tools:send', effect: unsafe}") + HELP,
          "FLJ291", "ask a human first", "helper"),
    agent("rule-of-two-in-turns", tools("find", "pay", asking=HELP.replace("{name", "{kind: granular, enforce_idempotency: true, name")), "FLJ291", "`approve: true`", "helper"),
    agent("rule-of-two-and-some-approvals", (AGENT % "'skills.tools:find', {call: 'skills.tools:pay', approve: {when: args.amount > 5}}")
          + HELP.replace("{name", "{kind: granular, name"), "FLJ291", "may have side effects (`skills.tools:pay`)", "helper"),
    Case("recorded-tool-in-one-attempt", "", "FLJ444", "write `kind: granular`", "helper", line=7,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', enforce_idempotency: true}") + "  - {name: help, agent: helper, input: hello}\n"),
    Case("approved-tool-in-one-attempt", "", "FLJ444", "has `approve`, and this kind of step", "helper", line=7,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: true}") + "  - {name: help, agent: helper, input: hello}\n"),
    Case("tool-that-needs-a-key", "", "FLJ432", "requires an `idempotency_key`", "helper", line=7,
         files={"skills/tools.py": TOOLS + "def charge(amount, idempotency_key): ...\n"},
         entry=(AGENT % "'skills.tools:charge'") + GRANULAR),
    Case("tool-whose-calls-must-be-recorded", "", "FLJ432", "requires `enforce_idempotency`", "helper", line=7,
         files={"skills/tools.py": TOOLS + '@flujo.tool(effect="unsafe", enforce_idempotency=True)\ndef charge(amount): ...\n'},
         entry=(AGENT % "'skills.tools:charge'") + GRANULAR),
    Case("call-that-would-write-in-a-transaction", "", "FLJ447", "only a tool has one", "'skills.tools:book'", line=8,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "'skills.tools:find'") + "  - {name: help, agent: helper, input: '{{ input.text }}'}\n  - {name: b, call: 'skills.tools:book', with: {seat: 5}, effect: transactional}\n"),
    Case("unsafe-tool-that-a-step-repeats", "", "FLJ433", "its tool `pay` is `unsafe`", "retry_same_key", line=7,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "'skills.tools:pay'") + GRANULAR.replace("hello", "hello, enforce_idempotency: true, in_doubt: retry_same_key")),
    Case("undeclared-tool-that-repeats-itself", "", "FLJ433", "declare the effect `idempotent`", "helper", line=7,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', enforce_idempotency: true, in_doubt: retry_same_key}") + GRANULAR),
    Case("approval-by-an-unknown-name", "", "FLJ204", "`arg`", "arg", line=5, files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: {when: arg.amount > 5}}") + GRANULAR),
    Case("approval-by-an-unknown-argument", "", "FLJ204", "did you mean `text`?", "txt", line=5, files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: {when: args.txt != ''}}") + GRANULAR),
    Case("approval-by-an-argument-that-the-model-does-not-pass", "", "FLJ204", "`args` has no `address`", "address", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:mail', with: {address: a}, approve: {when: args.address != ''}}") + GRANULAR),
    Case("approval-within-seconds-of-an-unknown-argument", "", "FLJ204", "did you mean `text`?", "txt", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: {deadline_s: {value: args.txt.size(), max: 1h}}}") + GRANULAR),
    Case("approval-that-asks-about-no-step", "", "FLJ204", "nope", "nope", line=5, files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: {message: 'Send {{ args.text }} of {{ steps.nope.output }}?'}}") + GRANULAR),
    Case("approval-by-a-callable", "", "FLJ125", "is an expression, not a callable", "when", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: {when: 'skills.tools:find'}}") + GRANULAR),
    Case("approval-without-a-deadline", "", "FLJ245", "the approval of tool `skills.tools:send`", "on_deadline", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:send', approve: {on_deadline: deny}}") + GRANULAR),
    Case("tool-weaker-than-its-function", "", "FLJ445", "but its function declares 'transactional'", "idempotent", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:book', effect: idempotent}") + "  - {kind: granular, name: help, agent: helper, input: hello}\n"),
    Case("tool-with-an-unknown-parameter", "", "FLJ252", "has no parameter 'adress'", "adress", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:mail', with: {adress: a}}") + GRANULAR),
    Case("tool-with-a-parameter-of-ours", "", "FLJ252", "Flujo fills in `resources` itself", "resources", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:mail', with: {resources: {}}}") + GRANULAR),
    Case("tool-with-a-text-that-is-not-filled-in", "", "FLJ252", "is not filled in for a tool", "'To {{ input.text }}'", line=5,
         severity="warning", files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:mail', with: {address: 'To {{ input.text }}'}}") + GRANULAR),
    Case("tool-with-a-secret-that-is-not-set", "", "FLJ465", "LOST_KEY is not set", "LOST_KEY", line=5,
         severity="warning", files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:mail', with: {address: [a, {secret: LOST_KEY}]}}") + GRANULAR),
    Case("tool-with-a-secret-itself", "", "FLJ125", "by the name of an environment variable", "with", line=5,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:mail', with: {address: {secret: 'my pass-word'}}}") + GRANULAR),
    Case("transactional-tool-without-a-connection", "", "FLJ466", "has no parameter `connection`", "'skills.tools:send'", line=5,
         files={"skills/tools.py": TOOLS}, entry=(AGENT % "{call: 'skills.tools:send', effect: transactional}") + GRANULAR),
    Case("transactional-tool-in-one-attempt", "", "FLJ444", "has `effect: transactional`, and this kind", "helper", line=7,
         files={"skills/tools.py": TOOLS},
         entry=(AGENT % "{call: 'skills.tools:book', effect: transactional}") + "  - {name: help, agent: helper, input: hello}\n"),
    agent("tool-that-asks-a-human", tools("confirm"), "FLJ294", "kind: hitl", "'skills.tools:confirm'", line=5),
    Case("cache-around-an-effect", known("{name: a, call: 'skills.crm:plain', effect: unsafe}"), "FLJ292", "has an effect (unsafe)",
         "'skills.crm:plain'", line=11, severity="warning"),
    Case("cache-on-an-enforced-call", step("call: 'skills.crm:plain', enforce_idempotency: true, cache: {}"), "FLJ292",
         "idempotency is enforced", "'skills.crm:plain'", severity="warning"),
    Case("cache-around-a-declared-effect", step("call: 'skills.tools:pay', with: {amount: 1}, cache: {}, effect: unsafe"), "FLJ292",
         "call outside", "'skills.tools:pay'", severity="warning", files={"skills/tools.py": TOOLS}),
    Case("enforced-and-recorded-late", step("call: 'skills.crm:plain', enforce_idempotency: true, config: {durability: exit}"),
         "FLJ295", "recorded only when the run ends", "durability", severity="warning"),
    *(
        Case(f"agent-without-a-bound-in-a-{name}", "", "FLJ293", "'sorter' is called repeatedly", "sorter", line=6, severity="warning",
             entry=HEAD.replace("model_settings: {max_tokens: 9}, ", "") + body)
        for name, body in {
            "loop": loop("    until: steps.try.output.score > 1\n"),
            "map": each(""),
            "search": "  - {kind: tree_search, name: s, propose: 'skills.crm:plain', evaluate: sorter}\n",
        }.items()
    ),
]  # fmt: skip

STALE = '{"version": 1, "module": "skills.crm", "sources": {"skills/crm.py": "0"}, "types": {"plain": {"type": "string"}}}'
TYPES = [
    Case(f"types-{name}", step("call: 'skills.crm:plain'"), "FLJ254", words, "'skills.crm:plain'", severity="warning",
         files={"schemas/skills.crm.json": written})
    for name, written, words in (
        ("of-code-that-has-changed", STALE, "skills/crm.py has changed since schemas/skills.crm.json was written"),
        ("of-another-version", STALE.replace("1", "2", 1), "run `flujo types`"),
        ("that-are-no-json", "{", "is not what `flujo types` writes"),
    )
]  # fmt: skip

IGNORED = [
    Case("an-ignore-without-a-reason", "  - {name: more, agent: sorter, input: '{{ input.note }}'}  # flujo: ignore[FLJ207]\n", "FLJ190",
         "has no reason", "# flujo: ignore[FLJ207]", severity="warning"),
    Case("an-ignore-of-nothing", step("agent: sorter").rstrip() + "  # flujo: ignore[FLJ207] nothing is missing here\n", "FLJ190",
         "has no warning to ignore", None, severity="warning"),
]  # fmt: skip

ORDER = (
    'version: "1"\nname: order\ninput_schema: {type: object, required: [order], properties: {order: {type: string}}}\n'
    "steps: [{name: look, call: 'skills.crm:plain', with: {data: '{{ input.order }}'}}]\n"
)
HELPERS = """\
version: "1"
name: case
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
agents:
  helper: {model: a:b, tools: [%s]}
  b: {model: a:b, tools: [%s]}
  c: {model: a:b, tools: [{agent: d, description: Helps}]}
  d: {model: a:b, tools: [{agent: e, description: Helps}]}
  e: {model: a:b, tools: [{agent: f, description: Helps}]}
  f: {model: a:b}
steps:
  - {kind: granular, name: help, agent: helper, input: hello}
  - {kind: granular, name: more, agent: c, input: hello}
"""
LOOKS_UP = "{blueprint: ./order.yaml, description: Looks an order up}"
_ASKS_B = "{agent: %s, description: Helps}"
_TALKS = "  - {kind: granular, name: help, agent: helper, input: hello}\n"
COMPOSED = [
    Case(
        "tools-below-each-other-too-deep",
        "",
        "FLJ456",
        "more than 4 deep",
        "helper",
        line=12,
        entry=HELPERS % (_ASKS_B % "b", _ASKS_B % "c"),
    ),
    Case(
        "blueprint-tool-in-one-attempt",
        "",
        "FLJ457",
        "tool `order` consists of steps",
        "helper",
        line=7,
        files={"blueprints/order.yaml": ORDER},
        entry=AGENT % LOOKS_UP + "  - {name: help, agent: helper, input: hello}\n",
    ),
    Case(
        "blueprint-tool-without-an-object",
        "",
        "FLJ458",
        "is not of `type: object`",
        "./order.yaml",
        line=5,
        files={
            "blueprints/order.yaml": ORDER.replace(
                "object, required: [order], properties: {order: {type: string}}", "string"
            ).replace(".order", "")
        },
        entry=AGENT % LOOKS_UP + _TALKS,
    ),
    Case(
        "blueprint-tool-without-an-input",
        "",
        "FLJ458",
        "it has no `input_schema`",
        "./order.yaml",
        line=5,
        files={
            "blueprints/order.yaml": 'version: "1"\nname: order\nsteps: [{name: look, call: "skills.crm:plain", with: {data: a}}]\n'
        },
        entry=AGENT % LOOKS_UP + _TALKS,
    ),
    Case(
        "blueprint-tool-that-is-not-there",
        "",
        "FLJ221",
        "the file does not exist",
        "./order.yaml",
        line=5,
        entry=AGENT % LOOKS_UP + _TALKS,
    ),
    Case(
        "blueprint-tool-that-has-itself-as-a-tool",
        "",
        "FLJ222",
        "in a cycle",
        "./case.yaml",
        line=5,
        entry=AGENT % "{blueprint: ./case.yaml, description: Again}" + _TALKS,
    ),
    Case(
        "agent-that-is-a-tool-of-itself",
        "",
        "FLJ459",
        "agent 'helper' would call itself",
        "helper",
        line=5,
        entry=AGENT % (_ASKS_B % "helper") + _TALKS,
    ),
    Case(
        "agent-tool-that-is-unknown",
        "",
        "FLJ201",
        "which is not in `agents:`",
        "helpr",
        line=5,
        entry=AGENT % (_ASKS_B % "helpr") + _TALKS,
    ),
    Case(
        "two-blueprint-tools-of-one-name",
        "",
        "FLJ255",
        "two tools named `order`",
        None,
        line=5,
        files={"blueprints/order.yaml": ORDER},
        entry=AGENT % f"{LOOKS_UP}, {LOOKS_UP}" + _TALKS,
    ),
    Case(
        "blueprint-tool-without-a-description",
        "",
        "FLJ121",
        "has no `description`",
        None,
        line=5,
        files={"blueprints/order.yaml": ORDER},
        entry=AGENT % "{blueprint: ./order.yaml}" + _TALKS,
    ),
    Case(
        "blueprint-tool-with-an-effect",
        "",
        "FLJ120",
        "has no `effect`",
        "effect",
        line=5,
        files={"blueprints/order.yaml": ORDER},
        entry=AGENT % LOOKS_UP.replace("}", ", effect: read}") + _TALKS,
    ),
    Case(
        "blueprint-tool-that-records-no-effect",
        "",
        "FLJ464",
        "may have an effect that is not recorded",
        "enforce_idempotency",
        line=7,
        files={"blueprints/order.yaml": ORDER},
        entry=AGENT % LOOKS_UP + _TALKS.replace("hello", "hello, enforce_idempotency: true"),
    ),
]

FLOW_CASES = [*COMPOSED, *IGNORED, *KNOWN, *NOWHERE, *SAFETY, *STOPPING, *TYPES]
