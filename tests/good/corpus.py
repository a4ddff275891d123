"""Valid blueprints that resemble bad ones and must pass: a check must not refuse too much."""

import json

HEAD = 'version: "1"\nname: x\n'
STEPS = "steps:\n  - name: a\n    call: skills.demo:ok\n"
GOOD = HEAD + STEPS


def _described(value: str) -> str:
    return f"{GOOD}description: {value}\n"


def _step(rest: str) -> str:
    return f"{GOOD}    {rest}\n"


def _schema(schema: object) -> str:
    return f"{HEAD}input_schema: {json.dumps(schema)}\n{STEPS}"


CASES: dict[str, str | bytes] = {
    "the smallest": GOOD,
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "lines that end as on Windows": GOOD.replace("\n", "\r\n"),
    "lines that end as on old Macs": GOOD.replace("\n", "\r"),
    "no end of the last line": GOOD.rstrip("\n"),
    "a document mark and an end mark": f"---\n{GOOD}...\n",
    "a directive for YAML 1.2": f"%YAML 1.2\n---\n{GOOD}",
    "comments everywhere": f"# a\n{GOOD}    # b & *c !d\n# &e\n",
    "JSON": json.dumps({"version": "1", "name": "x", "steps": [{"name": "a", "call": "skills.demo:ok"}]}),
    # Text
    "text in other alphabets": _described("Тикет 票 تذكرة 🎫"),
    "right-to-left marks": _described("\u200f\u05e9\u05dc"),
    "an astral character by escape": _described('"\\U0001F600"'),
    "a control character by escape": _described('"a\\u0007b\\e"'),
    "a bidi override by escape": _described('"a\\u202eb"'),
    "a long text": _described("|\n" + "  0123456789abcdef0123456789abcdef\n" * 1_900),
    "signs inside of texts": _described("a & b * c ! d % e @ f"),
    "signs at the start in quotes": _described("'& * ! % @ ` #'"),
    "a text with a percent escape": _described("see https://a.example/%2e%2e/x?y=%00"),
    "a literal block with code": _described("|\n  if (a) { return [b, *c]; }  # &d !e\n\n  <<: x"),
    "a folded block": _described(">-\n  one\n  two\n\n  three"),
    "a plain text over two lines": _described("one\n  two"),
    "two merge signs in quotes": GOOD + 'output: {"<<": "x"}\n',
    # Words that YAML 1.1 reads differently, where only text is allowed
    "a step called yes": HEAD + "steps: [{name: yes, call: a:b}]\n",
    "a step called no, and its agent on": HEAD + "agents: {on: {model: m}}\nsteps: [{name: no, agent: on}]\n",
    "branches called yes and no": GOOD + "  - {kind: conditional, name: c, switch: a.b, branches: {yes: [], no: []}, default: []}\n",
    "a description that is no": _described("no"),
    "a description that is a date": _described("2001-01-01"),
    "a description that is a time": _described("12:30:45"),
    "a description that is an octal": _described("012"),
    "60,000 digits and underscores": _described("1_" * 30_000 + "x"),
    "tags that look like dates": _step("tags: [2001-01-01, 1_000, off]"),
    "300 texts that look like something else": _step("tags: [" + "no, 012, 1_000, " * 100 + "]"),
    "a date as data": GOOD + "output: 2001-01-01\n",
    "an ISO time as data": GOOD + "output: 2001-01-01T12:30:45Z\n",
    "quoted words as data": GOOD + "output: ['no', \"012\", '12:30:45', '.nan', '0x1F']\n",
    "words that merely begin so": GOOD + "output: [nobody, offer, yesterday, 012a, 1_000 items, v1.2.3, 10.0.0.1]\n",
    "a merge strategy and a callable": GOOD
    + "  - {kind: parallel, name: p, branches: {a: []}, merge: keep_first, max_concurrency: 1}\n"
    + "  - {kind: router, name: r, router: skills.demo:choose, branches: {a: []}, merge: skills.demo:fold}\n",
    # Numbers
    "every number of JSON": GOOD + "output: [0, -0, 7, -12, 1.5, -0.25, 1e3, 1.5E-3, 9007199254740992]\n",
    "numbers of YAML 1.2": GOOD + "output: [+1, .5, 1., +.5e1]\n",
    "null and booleans": GOOD + "output: [null, ~, Null, true, True, FALSE, ]\n",
    # Limits, just inside
    "31 levels": GOOD + "output: " + "[" * 31 + "]" * 31 + "\n",
    "19,900 values": GOOD + "output: [" + "1," * 19_900 + "]\n",
    "a text of 64 KiB": _described("x" * 65_536),
    "a key of 128 characters": GOOD + "output: {" + "k" * 128 + ": 1}\n",
    # Keys
    "a key with spaces and a dash": GOOD + "output: {two words: 1, sk-learn: 2, $ref: 3, a.b: 4}\n",
    "a number as key in quotes": GOOD + 'output: {"1": x, "true": y, "null": z}\n',
    "a key called proto": GOOD + "output: {proto: 1, __proto: 2}\n",
    "a question mark as key sign": GOOD + "output:\n  ? a\n  : b\n",
    # Expressions
    "a not in quotes": _step("when: '!context.done'"),
    "a not inside": _step("when: input.a && !input.b"),
    "a comparison in quotes": _step("when: '\"r\" == input.kind'"),
    "a comparison that begins with a name": _step('when: input.kind == "r"'),
    "a literal as expression": _step("when: true"),
    "numbers and booleans to save": _step("save: {tries: 0, done: false, rate: 0.5, label: output.label}"),
    "a list to append to": _step("save: {findings: {append: output}}"),
    "a callable as condition": _step("when: skills.rules:is_urgent"),
    "braces after text": GOOD + "output: Dear {{ input.name }}, hello\n",
    "braces in quotes": GOOD + 'output: "{{ input.name }}"\n',
    "braces in a mapping": GOOD + 'output: {a: "{{ input.name }}", b: {c: "{{ run.id }}"}}\n',
    # The language
    "each unit of time": _step("config: {timeout_s: 250ms, retry: {initial_s: 0.5, max_s: 5m}}"),
    "hours and days": _step("cache: {ttl_s: 30d, key: input.id}"),
    "an answer instead of a deadline": GOOD + "  - {kind: hitl, name: h, message: m, deadline_s: 72h, on_deadline: {answer: {ok: false}}}\n",
    "an output instead of a failure": GOOD + "  - {kind: import, name: i, blueprint: ./x.yaml, on_failure: {output: {text: none}}}\n",
    "a condition whose else does nothing": GOOD + "  - {kind: conditional, name: c, if: input.a, then: [], else: []}\n",
    "a blueprint's name with dashes": GOOD.replace("name: x", "name: ticket-triage"),
    "a version as a number": GOOD.replace('"1"', "1"),
    "a version as a number with a point": GOOD.replace('"1"', "1.0"),
    "a version as text with a point": GOOD.replace('"1"', '"1.0"'),
    "branches of any text": GOOD + """  - {kind: conditional, name: c, switch: input, branches: {"Desktop Team": [], "Ä/B [1]: c": [], "2": []}}
  - {kind: parallel, name: p, branches: {"a b": [{name: q, call: a:b}]}, field_mapping: {"a b": [note]}}
  - {kind: router, name: r, router: m:f, branches: {"100 % / 7": []}}
""",
    "keys of the language inside data": GOOD + "    with: {steps: no_list, kind: loop, input_schema: [1], output_schema: text}\n",
    "every kind": HEAD + """steps:
  - {name: s, agent: w, input: "{{ previous }}", fallback: {call: a:b}, validators: [a:c], processors: {input: [a:b]}}
  - {kind: loop, name: l, until: "true", carry: {n: {initial: 0, next: loop.n + 1}}, steps: [{name: l1, call: a:b}]}
  - {kind: state_machine, name: m, initial: a, final: [b], states: {a: {steps: [], transitions: [{to: b}]}, b: {}}}
  - {kind: map, name: p, over: input.items, as: item_, steps: [{name: p1, call: a:b}], on_error: collect}
  - {kind: parallel, name: q, branches: {a: [{name: q1, call: a:b}]}, field_mapping: {a: [b]}}
  - {kind: router, name: r, router: chooser, branches: {a: []}}
  - {kind: granular, name: g, agent: w, max_turns: 3, history: {max_tokens: 4000, keep: summary}}
  - {kind: cache, name: c, ttl_s: 1h, step: {name: c1, call: a:b}}
  - {kind: import, name: i, blueprint: ./answer.yaml, with: {text: "{{ input }}"}}
  - {kind: hitl, name: h, message: "Send this?"}
  - {kind: tree_search, name: t, propose: w, evaluate: a:b, goal: "true"}
agents: {w: {model: "local:smollm2", tools: [a:b, {call: a:c, effect: read}, {mcp: kb, allow: [search], effect: read}]}}
""",
    # JSON Schemas
    "a schema of a tree": _schema({"type": "object", "properties": {"child": {"$ref": "#"}}}),
    "a schema of two that refer to each other": _schema({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"properties": {"x": {"$ref": "#/$defs/a"}}}}}),
    "one schema referred to twice": _schema({"$defs": {"a": {}}, "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}),
    "a chain of 1,500 references": _schema({"$ref": "#/$defs/a0", "$defs": {**{f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(1_500)}, "a1500": {"type": "string"}}}),
    "a reference by anchor": _schema({"$ref": "#ticket", "$defs": {"t": {"$anchor": "ticket", "type": "object"}}}),
    "a reference with escapes": _schema({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": True}}),
    "patterns that people use": _schema({"anyOf": [{"pattern": p} for p in ("^[a-z0-9]+(-[a-z0-9]+)*$", "^([a-z]+\\.)+[a-z]{2,}$", "^\\d{4}-\\d{2}-\\d{2}$", "^(foo|bar)+$", "^[A-Z]{2}(\\d{3})+$")]}),
    "properties named like keywords": _schema({"properties": {"$ref": {"type": "string"}, "pattern": {}, "typ": {}}}),
    "a schema with keys of other programs": _schema({"x-order": 1, "type": "object", "discriminator": {"propertyName": "kind"}}),
    "bounds that meet": _schema({"minimum": 5, "maximum": 5, "minLength": 0}),
    "a keyword of one's own": _schema({"x-order": 3, "type": ["string", "null"]}),
    "a schema of this draft": _schema({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://a.example/t"}),
}  # fmt: skip
