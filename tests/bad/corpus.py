"""Blueprints that the reader must refuse: the bytes, and the rule, line and words of the finding.

A case may break several rules; the findings must include the named one, on its line.
"""

import json
from dataclasses import dataclass

HEAD = 'version: "1"\nname: x\n'
STEPS = "steps:\n  - name: a\n    call: skills.demo:ok\n"
GOOD = HEAD + STEPS
"""A blueprint of five lines without an error; additions of cases start on line 6."""


@dataclass(frozen=True)
class Case:
    """One bad file. The message or the hint must contain `words`."""

    name: str
    data: bytes
    slug: str
    line: int
    words: tuple[str, ...] = ()


def _case(name: str, data: str | bytes, slug: str, line: int, *words: str) -> Case:
    return Case(name, data if isinstance(data, bytes) else data.encode(), slug, line, words)


def _described(value: str) -> str:
    return f"{GOOD}description: {value}\n"


def _configured(entry: str) -> str:
    return f"{GOOD}    config: {{{entry}}}\n"


def _schema(schema: object) -> str:
    return f"{HEAD}input_schema: {json.dumps(schema)}\n{STEPS}"


def _laughs() -> str:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "a0: &a0 [ha]\n" + "\n".join(levels) + "\n"


def _nested_schema(depth: int) -> object:
    schema: object = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


BYTES = (
    _case("empty", "", "empty", 1, "flujo init"),
    _case("only-white-space", "\n  \n\n", "empty", 1),
    _case("only-comments", "# nothing here yet\n", "empty", 1),
    _case("only-a-document-mark", "---\n", "empty", 1),
    _case("nul-byte", GOOD.encode() + b"description: a\x00b\n", "encoding", 6, "NUL"),
    _case(
        "latin-1", HEAD.encode() + "description: caf\xe9\n".encode("latin-1"), "encoding", 3, "0xE9", "UTF-8"
    ),
    _case("utf-16", GOOD.encode("utf-16"), "encoding", 1, "UTF-16", "UTF-8"),
    _case("every-byte", bytes(range(256)), "encoding", 3, "UTF-8"),
    _case("a-picture", b"\x89PNG\r\n\x1a\n" + bytes(64), "encoding", 1, "0x89"),
    _case("half-a-surrogate-pair", _described('"\\ud800"'), "encoding", 6, "surrogate", "eight digits"),
    _case("bidi-override", _described('"a\u202eb"'), "bidi", 6, "U+202E"),
    _case("bidi-isolate-in-a-comment", GOOD + "# \u2066x\n", "bidi", 6, "U+2066"),
    _case("control-character", GOOD.encode() + b"description: a\x07b\n", "encoding", 6, "U+0007"),
    _case("line-separator", _described("a\u2028b"), "encoding", 6, "U+2028"),
    _case("nul-by-escape", _described('"a\\0b"'), "encoding", 6, "NUL"),
    _case(
        "too-many-bytes", _described("|\n" + "  abcdefghijklmnopqrstuvwxyz\n" * 10_000), "size", 1, "256 KiB"
    ),
)

STRUCTURE = (
    _case("100,000-open-brackets", "[" * 100_000, "depth", 1, "32"),
    _case("50,000-pairs-of-brackets", "[" * 50_000 + "]" * 50_000, "depth", 1, "32"),
    _case("60,000-braces", "{a: " * 60_000, "depth", 1, "32"),
    _case("300-blocks", "".join("  " * depth + "a:\n" for depth in range(300)), "depth", 33, "32"),
    _case("33-levels", _described("[" * 32 + "]" * 32), "depth", 6, "import"),
    _case("a-billion-laughs", _laughs(), "alias", 2, "alias"),
    _case("an-anchor-around-itself", "a: &a [*a]\n", "alias", 1, "anchor"),
    _case("an-anchor-alone", _described("&n x"), "alias", 6, "anchor", "&n"),
    _case("an-anchor-on-a-mapping", GOOD + "output: &o {a: b}\n", "alias", 6, "anchor"),
    _case("an-alias-of-nothing", _described("*nope"), "alias", 6, "alias"),
    _case("a-merge-key", GOOD + "output:\n  <<: {a: 1}\n", "alias", 7, "<<"),
    _case("an-ampersand", _described("& x"), "alias", 6, "quotes"),
    *(
        _case(f"a-tag-on-{name}", _described(value), "tag", 6, "tag")
        for name, value in {
            "a-python-name": "!!python/name:os.system x",
            "a-python-call": "!!python/object/apply:os.system ['id']",
            "a-python-object": "!!python/object:x.Y {a: 1}",
            "a-sequence": "!foo [1]",
            "a-text": "!!str 1",
            "binary": "!!binary aGk=",
            "a-set": "!!set {a}",
            "a-date": "!!timestamp 2001-01-01",
            "a-text-without-a-name": "! x",
            "a-text-with-a-handle": "!e!x y",
            "a-text-verbatim": "!<tag:yaml.org,2002:str> x",
        }.items()
    ),
    _case("a-tag-on-a-key", GOOD + "!!str description: x\n", "tag", 6, "tag"),
    _case("a-key-twice", GOOD + "name: y\n", "duplicate-key", 6, "name", "line 2"),
    _case("a-key-twice-in-a-step", GOOD + "    name: b\n", "duplicate-key", 6, "name", "line 4"),
    _case("a-key-twice-in-braces", GOOD + "output: {a: 1, 'a': 2}\n", "duplicate-key", 6, "line 6"),
    _case("two-documents", GOOD + "---\n" + GOOD, "one-document", 6, "one document"),
    _case("a-tab", HEAD + "steps:\n\t- name: a\n", "syntax", 4, "tab"),
    _case("an-open-quote", _described('"abc'), "syntax", 6, "line 6", "never closed"),
    _case("an-open-bracket", _described("[a, b") + "output: x\n", "syntax", 7, "["),
    _case("a-wrong-indentation", GOOD + "   config: {}\n", "syntax", 6, "neighbours"),
    _case("two-colons", _described("Answer this: now"), "syntax", 6, "quotes"),
    _case("a-back-tick", _described("`x`"), "syntax", 6, "quotes"),
    _case("a-bad-escape", _described('"C:\\path"'), "syntax", 6, "backslash"),
    _case("a-directive", "%YAML 3.0\n---\n" + GOOD, "syntax", 1),
    _case("a-number-as-key", GOOD + "1: x\n", "key", 6, "string", '"1":'),
    _case("a-key-that-is-no-text-before-a-look-alike", HEAD + "steps: [{false: yes, name: a, call: b:c}]\n", "key", 3, "`false`"),
    _case("null-as-key", GOOD + "~: x\n", "key", 6, "string"),
    _case("true-as-key", GOOD + "true: x\n", "key", 6, "string"),
    _case("a-list-as-key", GOOD + "[a]: x\n", "key", 6, "string"),
    _case("a-mapping-as-key", GOOD + "{a: b}: x\n", "key", 6, "string"),
    _case("a-reserved-key", GOOD + "__proto__: x\n", "key", 6, "reserved"),
    _case("a-key-of-ours", GOOD + "$flujo.id: x\n", "key", 6, "reserved"),
    _case("a-key-of-200-characters", GOOD + "k" * 200 + ": x\n", "key", 6, "128"),
    _case("20,001-values", GOOD + "output: [" + "1," * 20_001 + "]\n", "nodes", 6, "20000"),
    _case("70,000-characters", _described("x" * 70_000), "scalar-size", 6, "64 KiB"),
    _case("5,000-digits", _configured("max_retries: " + "9" * 5_000), "number", 6, "integer", "2^53"),
    _case("2^53-and-one", GOOD + f"output: {2**53 + 1}\n", "number", 6, "integer"),
    _case("a-float-beyond-a-double", GOOD + "output: 1e999\n", "number", 6, "double"),
    _case("a-list-as-root", "- a\n", "root", 1, "mapping"),
    _case("a-text-as-root", "hello\n", "root", 1, "mapping"),
    *(
        _case(f"a-bare-{value}", _configured(f"timeout_s: {value}"), "ambiguous-scalar", 6, value)
        for value in (
            "no", "On", "012", "0o17", "12:30:45", "1_000", "2001-01-01", ".inf", "-.INF", ".nan", "0x1F", "0b11",
        )
    ),
    _case("a-bare-no-as-data", GOOD + "    with: {urgent: no}\n", "ambiguous-scalar", 6, "`false`"),
    _case("a-bare-off-as-expression", GOOD + "    when: off\n", "ambiguous-scalar", 6, "`false`"),
    _case("a-bare-octal-as-data", GOOD + "output: 012\n", "ambiguous-scalar", 6, "012"),
    _case("a-not-without-quotes", GOOD + "    when: !context.done\n", "unquoted-expression", 6, "'!context.done'"),
    _case("a-not-and-more", GOOD + "    when: !a.b && !c.d\n", "unquoted-expression", 6, "'!a.b && !c.d'"),
    _case("a-comparison", GOOD + '    when: "r" == input.kind\n', "unquoted-expression", 6, "quote it"),
    _case("a-not-in-save", GOOD + "    save: {done: !output.ok }\n", "unquoted-expression", 6, "quote it"),
    _case("braces-without-quotes", GOOD + "output: {{ input.text }}\n", "unquoted-expression", 6, "quote it"),
    _case("braces-and-text", GOOD + "output: {{ input.a }} and {{ input.b }}\n", "unquoted-expression", 6, "quote it"),
    _case("braces-in-a-list", GOOD + "output: [{{ input.text }}]\n", "unquoted-expression", 6, "quotes"),
)  # fmt: skip

LANGUAGE = (
    _case("an-unknown-key", GOOD + "descripton: x\n", "unknown-key", 6, "did you mean `description`?"),
    _case("an-unknown-key-of-a-step", GOOD + "    cal: x\n", "unknown-key", 6, "a step", "`call`"),
    _case("a-key-of-another-kind", GOOD + '    until: "true"\n', "unknown-key", 6, "`loop` or `sleep`"),
    _case("a-key-that-belongs-to-config", GOOD + "    timeout_s: 5\n", "unknown-key", 6, "config:"),
    _case("a-key-that-belongs-to-an-agent", GOOD + "    instructions: x\n", "unknown-key", 6, "agents:"),
    _case("a-setting-of-the-model", GOOD + "agents:\n  w: {model: m, temperature: 0}\n", "unknown-key", 7, "model_settings"),
    _case("an-event-with-a-space", GOOD + "  - {kind: event, name: paid, event: order paid}\n", "identifier", 6, "order.paid"),
    _case("an-event-with-a-message", GOOD + "  - {kind: event, name: paid, message: hm}\n", "unknown-key", 6, "message"),
    _case("a-sleep-without-an-end", GOOD + "  - {kind: sleep, name: rest}\n", "missing-key", 6, "`for`", "`until`"),
    _case("a-sleep-with-two-ends", GOOD + "  - {kind: sleep, name: rest, for: 1h, until: input}\n", "conflicting-keys", 6, "`until`"),
    _case("a-sleep-of-no-time", GOOD + "  - {kind: sleep, name: rest, for: 0}\n", "duration", 6, "greater than 0"),
    _case("an-await-of-nothing", GOOD + "  - {kind: await, name: done}\n", "missing-key", 6, "`task`", "`tasks`"),
    _case("an-await-of-both", GOOD + "  - {kind: await, name: done, task: a, tasks: [b]}\n", "conflicting-keys", 6, "`tasks`"),
    _case("no-version", "name: x\n" + STEPS, "missing-key", 1, "version"),
    _case("no-steps", HEAD, "missing-key", 1, "steps"),
    _case("no-name-of-a-step", GOOD + "  - call: a.b:c\n", "missing-key", 6, "name"),
    _case("version-as-a-condition", "version: true\nname: x\n" + STEPS, "version", 1, '"1"'),
    _case("a-later-version-as-a-number", "version: 1.1\nname: x\n" + STEPS, "version", 1, "`1.1`"),
    _case("a-branch-without-a-name", GOOD + "  - {kind: conditional, name: c, switch: input, branches: {' ': []}}\n", "identifier", 6, "name of a branch"),
    _case("a-branch-that-cannot-be-printed", GOOD + '  - {kind: conditional, name: c, switch: input, branches: {"a\\u0007b": []}}\n', "identifier", 6, "U+0007"),
    _case("a-version-to-come", 'version: "2"\nname: x\n' + STEPS, "version", 1, "`2`"),
    _case("no-step-in-steps", HEAD + "steps: []\n", "wrong-value", 3, "steps"),
    _case("steps-as-mapping", HEAD + "steps: {name: a}\n", "wrong-type", 3, "a list", "a mapping"),
    _case("a-text-as-step", HEAD + "steps:\n  - greet\n", "wrong-type", 4, "an entry of `steps`", "a text"),
    _case("an-unknown-kind", GOOD + "    kind: condtional\n", "unknown-kind", 6, "did you mean `conditional`?", "`loop`"),
    _case("a-number-as-kind", GOOD + "    kind: 3\n", "wrong-type", 6, "a text"),
    _case("a-kind-without-name", HEAD + "steps: [{kind: loop}]\n", "missing-key", 3, "`loop`", "`steps`"),
    _case("a-number-as-name", HEAD + "steps: [{name: 7, call: a:b}]\n", "wrong-type", 3, 'quote it: "7"'),
    _case("a-cyrillic-letter", HEAD + "steps: [{name: s\u0430y, call: a:b}]\n", "identifier", 3, "ASCII", "U+0430"),
    _case("a-name-with-a-space", HEAD + "steps: [{name: say it, call: a:b}]\n", "identifier", 3, "say it"),
    _case("a-way-to-merge-that-is-none", GOOD + "  - {kind: parallel, name: p, branches: {a: []}, merge: overwrit}\n", "wrong-value", 6, "did you mean `overwrite`?", "module:callable"),
    _case("a-merge-callable-misspelt", GOOD + "  - {kind: parallel, name: p, branches: {a: []}, merge: a-b:c}\n", "callable-name", 6, "a-b:c"),
    _case("a-router-that-is-no-name", GOOD + "  - {kind: router, name: r, router: a b, branches: {a: []}}\n", "identifier", 6, "a b"),
    _case("a-router-without-branches", GOOD + "  - {kind: router, name: r, router: a, branches: {}}\n", "wrong-value", 6, "branches"),
    _case("a-parallel-without-branches", GOOD + "  - {kind: parallel, name: p, branches: {}}\n", "wrong-value", 6, "branches"),
    _case("nothing-at-once", GOOD + "  - {kind: parallel, name: p, branches: {a: []}, max_concurrency: 0}\n", "wrong-value", 6, "max_concurrency"),
    _case("a-map-without-over", GOOD + "  - {kind: map, name: m, steps: [{name: b, call: c:d}]}\n", "missing-key", 6, "over"),
    _case("a-map-without-steps", GOOD + "  - {kind: map, name: m, over: input, steps: []}\n", "wrong-value", 6, "steps"),
    _case("a-machine-without-states", GOOD + "  - {kind: state_machine, name: m, initial: a, final: [a], states: {}}\n", "wrong-value", 6, "states"),
    _case("a-machine-without-final", GOOD + "  - {kind: state_machine, name: m, initial: a, states: {a: {}}}\n", "missing-key", 6, "final"),
    _case("a-state-with-a-dash", GOOD + "  - {kind: state_machine, name: m, initial: a, final: [a], states: {a: {}, b-c: {}}}\n", "identifier", 6, "b-c"),
    _case("a-transition-to-nowhere", GOOD + "  - {kind: state_machine, name: m, initial: a, final: [a], states: {a: {transitions: [{}]}}}\n", "missing-key", 6, "to"),
    _case("an-agent-with-a-dot", GOOD + "agents:\n  a.b: {model: m}\n", "identifier", 7, "a.b"),
    _case("neither-agent-nor-call", HEAD + "steps: [{name: a}]\n", "missing-key", 3, "agent", "call"),
    _case("both-agent-and-call", GOOD + "    agent: writer\n", "conflicting-keys", 5, "`agent`", "`call`"),
    _case("instructions-twice", GOOD + "agents:\n  w: {model: m, instructions: x, instructions_file: y}\n", "conflicting-keys", 7),
    _case("two-contexts", GOOD + "context: a:B\ncontext_schema: {}\n", "conflicting-keys", 7, "context_schema"),
    _case("if-without-then", GOOD + "  - {kind: conditional, name: c, if: a}\n", "missing-key", 6, "`then`"),
    _case("if-and-switch", GOOD + "  - {kind: conditional, name: c, if: a, then: [], switch: b}\n", "conflicting-keys", 6),
    _case("no-condition", GOOD + "  - {kind: conditional, name: c}\n", "missing-key", 6, "`switch:`"),
    _case("no-branches-at-all", GOOD + "  - {kind: parallel, name: p, branches: {}}\n", "wrong-value", 6, "branches"),
    _case("a-duration-of-two-units", _configured("timeout_s: 1h30m"), "duration", 6, "1h30m"),
    _case("a-duration-below-zero", _configured("timeout_s: -1"), "duration", 6, "greater than 0"),
    _case("a-duration-as-list", _configured("timeout_s: []"), "wrong-type", 6, "a number"),
    _case("retries-below-zero", _configured("max_retries: -1"), "wrong-value", 6, "at least 0"),
    _case("half-a-retry", _configured("max_retries: 0.5"), "wrong-type", 6, "0.5"),
    _case("an-unknown-choice", _configured("durability: synch"), "wrong-value", 6, "`sync`"),
    _case("no-iterations", GOOD + '  - {kind: loop, name: l, until: "true", max_iterations: 0, steps: [{name: b, call: a:b}]}\n', "wrong-value", 6, "max_iterations"),
    _case("a-key-without-value", GOOD + "    when:\n", "wrong-type", 6, "no value"),
    _case("a-path-as-callable", HEAD + "steps: [{name: a, call: skills/demo.py}]\n", "callable-name", 3, "package.module:name"),
    _case("a-callable-in-cyrillic", HEAD + "steps: [{name: a, call: 'skills.dem\u043e:ok'}]\n", "callable-name", 3, "ASCII"),
    _case("two-colons-in-a-callable", HEAD + "steps: [{name: a, call: 'a:b:c'}]\n", "callable-name", 3),
    _case("an-unknown-failure", GOOD + "  - {kind: import, name: i, blueprint: ./x.yaml, on_failure: ignore}\n", "wrong-value", 6, "`skip`"),
    _case("a-budget-below-zero", GOOD + "budget: {total_cost_usd_limit: -1}\n", "wrong-value", 6, "above 0"),
    _case("a-budget-of-half-a-request", GOOD + "budget: {requests_limit: 0.5}\n", "wrong-type", 6),
    _case("a-budget-misspelt", GOOD + "budget: {total_cost_limit: 1}\n", "unknown-key", 6, "total_cost_usd_limit"),
    _case("201-unknown-keys", GOOD + "".join(f"    zz{i}: 1\n" for i in range(201)), "more-findings", 206, "200"),
    _case("an-unknown-key-far-inside", GOOD + "  - kind: loop\n    name: l\n    until: 'true'\n    steps:\n      - {kind: conditional, name: c, if: a, then: [{name: d, call: a:b, wiht: {}}]}\n", "unknown-key", 10, "`with`"),
)  # fmt: skip

SCHEMAS = (
    _case("a-list-as-schema", _schema([1]), "schema-type", 3, "an object"),
    _case("a-misspelt-type", _schema({"type": "strng"}), "schema-type", 3, "strng", "`string`"),
    _case("required-as-text", _schema({"required": "a"}), "schema-type", 3, "required"),
    _case("a-text-as-minimum", _schema({"minimum": "1"}), "schema-type", 3, "minimum"),
    _case("properties-as-list", _schema({"properties": ["a"]}), "schema-type", 3, "properties"),
    _case("a-wrong-mask-of-a-field", _schema({"properties": {"mail": {"pii": "scrubb"}}}), "schema-type", 3, "`scrub`"),
    _case("a-misspelt-keyword", _schema({"requird": ["a"]}), "schema-keyword", 3, "`required`"),
    _case("a-prompt-of-a-step", GOOD + "    prompt: hello\n", "unknown-key", 6, "did you mean `input`?"),
    _case("needs-of-a-step", GOOD + "    needs: [b]\n", "unknown-key", 6, "in the order of their list"),
    _case("a-timeout-of-a-step", GOOD + "    timeout: 5\n", "unknown-key", 6, "`timeout_s`"),
    _case("retries-of-a-step", GOOD + "    retries: 5\n", "unknown-key", 6, "`max_retries`"),
    _case("a-step-with-if", GOOD + "    if: 'true'\n", "unknown-key", 6, "`when`"),
    _case("a-step-for-each", GOOD + "    for_each: x\n", "unknown-key", 6, "kind: map"),
    _case("a-step-with-approval", GOOD + "    approval: true\n", "unknown-key", 6, "kind: hitl"),
    _case("a-step-with-env", GOOD + "    env: {A: b}\n", "unknown-key", 6, "{secret: NAME}"),
    _case("a-type-of-a-step", GOOD + "    type: step\n", "unknown-key", 6, "did you mean `kind`?"),
    _case("a-loop-with-while", HEAD + "steps:\n  - {kind: loop, name: a, while: 'true', steps: [{name: b, call: 's:f'}]}\n",
          "unknown-key", 4, "`until`"),
    _case("a-condition-of-a-conditional", HEAD + "steps:\n  - {kind: conditional, name: a, condition: 'true', then: []}\n",
          "unknown-key", 4, "did you mean `if`?"),
    _case("a-prompt-of-an-agent", GOOD + "agents: {w: {model: a:b, prompt: hello}}\n", "unknown-key", 6, "`instructions`"),
    _case("an-agent-inside-a-step", HEAD + "steps:\n  - {name: a, agent: {model: a:b}}\n", "wrong-type", 4, "below `agents:`"),
    _case("a-human", HEAD + "steps:\n  - {kind: human, name: a, message: m}\n", "unknown-kind", 4, "did you mean `hitl`?"),
    _case("a-foreach", HEAD + "steps:\n  - {kind: foreach, name: a, over: x, steps: []}\n", "unknown-kind", 4, "did you mean `map`?"),
    _case("a-bare-list-to-map", HEAD + "steps:\n  - {kind: map, name: a, over: [1, 2], steps: [{name: b, call: 's:f'}]}\n",
          "wrong-type", 4, "`over: '[1, 2]'`"),
    _case("a-short-carry", HEAD + "steps:\n  - {kind: loop, name: a, until: 'true', carry: {n: 0}, steps: [{name: b, call: 's:f'}]}\n",
          "wrong-type", 4, "`n: {initial: 0, next: …}`"),
    _case("fields-in-place-of-a-schema", _schema({"label": "string", "id": "integer"}), "not-a-schema", 3,
          "{type: object, required: [label, id], properties: {label: {type: string}, id: {type: integer}}}"),
    _case("fields-called-as-other-keywords", _schema({"min": "number", "max": "number"}), "not-a-schema", 3),
    _case("a-type-in-place-of-a-schema", _schema({"properties": {"a": "string"}}), "schema-type", 3, "{type: string}"),
    _case("a-keyword-of-another-language", _schema({"type": "object", "fields": {}}), "schema-keyword", 3, "`properties`"),
    _case("an-unknown-keyword", _schema({"type": "object", "wobble": 1}), "schema-keyword", 3, "x-"),
    _case("a-schema-of-draft-4", _schema({"$schema": "http://json-schema.org/draft-04/schema#"}), "schema-draft", 3, "2020-12"),
    _case("a-reference-to-a-host", _schema({"$ref": "http://127.0.0.1:9/x.json"}), "remote-ref", 3, "$ref"),
    _case("a-reference-to-a-file", _schema({"$ref": "file:///etc/hostname"}), "remote-ref", 3, "$ref"),
    _case("a-reference-to-a-neighbour", _schema({"items": {"$ref": "ticket.json"}}), "remote-ref", 3, "#/$defs/NAME"),
    _case("a-schema-with-another-base", _schema({"items": {"$id": "http://a/b", "$ref": "#"}}), "remote-ref", 3, "$id"),
    _case("a-dynamic-reference", _schema({"$dynamicRef": "#x"}), "remote-ref", 3, "$dynamicRef"),
    _case("a-reference-to-itself", _schema({"$ref": "#"}), "ref-cycle", 3, "#"),
    _case("two-references-in-a-circle", _schema({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}), "ref-cycle", 3, "$defs"),
    _case("a-circle-through-not", _schema({"not": {"$ref": "#"}}), "ref-cycle", 3),
    _case("a-reference-to-nothing", _schema({"$defs": {"yes": {}}, "$ref": "#/$defs/nope"}), "ref-missing", 3, "nope"),
    _case("a-reference-to-no-schema", _schema({"required": ["a"], "$ref": "#/required/0"}), "ref-missing", 3),
    _case("a-pattern-without-end", _schema({"type": "string", "pattern": "^(a+)+$"}), "regex", 3, "quantifier"),
    _case("a-pattern-for-keys-without-end", _schema({"patternProperties": {"(a|a)*$": {}}}), "regex", 3, "quantifier"),
    _case("a-pattern-that-does-not-compile", _schema({"pattern": "("}), "regex", 3, "pattern"),
    _case("bounds-the-wrong-way-round", _schema({"minimum": 5, "maximum": 1}), "schema-empty", 3, "minimum"),
    _case("nothing-to-choose-from", _schema({"enum": []}), "schema-empty", 3, "enum"),
    _case("a-schema-of-100-levels", _schema(_nested_schema(100)), "depth", 3, "32"),
    _case("a-schema-of-2,001-keywords", _schema({"properties": {f"p{i}": {"type": "string", "title": "t"} for i in range(1_001)}}), "schema-limit", 3, "2000"),
    _case("a-schema-of-an-answer", GOOD + "  - {kind: hitl, name: h, message: m, answer_schema: {type: bool}}\n", "schema-type", 6, "`boolean`"),
    _case("a-schema-of-an-agent", GOOD + "agents:\n  w:\n    model: m\n    output_schema:\n      type: objet\n", "schema-type", 10, "`object`"),
)  # fmt: skip

CASES = (*BYTES, *STRUCTURE, *LANGUAGE, *SCHEMAS)
