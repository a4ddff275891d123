"""The syntax rules, FLJ101 to FLJ149: bytes, YAML, keys, values and JSON Schemas.

`reader.py` reports the first group (bytes and YAML), `schema.py` the second (keys and values), and
`json_schemas.py` the third (JSON Schemas inside a blueprint).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import MAX_FINDINGS, Severity, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flujo.blueprint.diagnostics import Diagnostic

# Bytes and YAML ------------------------------------------------------------------------------------------

EMPTY = rule(
    "FLJ101",
    "empty",
    "the file has no content",
    finds="A file that is empty or has only comments.",
    why="Usually the file was never saved. Running nothing would look like success.",
    example="# to be written",
    instead='version: "1"\nname: hello\nsteps:\n  - {name: greet, call: skills.greet:hello}',
)
ENCODING = rule(
    "FLJ102",
    "encoding",
    "a character that is not allowed in a blueprint",
    finds="Bytes that are not UTF-8, control characters, NUL, and lone surrogates.",
    why="Editors, databases and models change such text, so the text that runs differs from the displayed "
    "one.",
    example='description: "\\ud83d"',
    instead='description: "\\U0001F600"',
)
BIDI = rule(
    "FLJ103",
    "bidi",
    "a character that changes the direction in which text is displayed",
    finds="The bidirectional controls U+202A to U+202E and U+2066 to U+2069.",
    why="With them, a reviewer sees a different text from the one that runs.",
    example='call: skills.pay:refund # "<U+202E>yllaer"',
    instead="call: skills.pay:refund",
)
SIZE = rule(
    "FLJ104",
    "size",
    "the file is too large",
    finds="A blueprint of more than 256 KiB.",
    why="It is too large to review, and usually contains pasted data.",
    example='input: "…300 KiB of text…"',
    instead='input: "{{ input.document }}"   # and give the text with --input-file',
)
SYNTAX = rule(
    "FLJ105",
    "syntax",
    "the file is not YAML",
    finds="A YAML syntax error: an open quote, a tab, a wrong indentation.",
    why="The rest of the file cannot be read.",
    example='message: "Send this?',
    instead='message: "Send this?"',
)
DEPTH = rule(
    "FLJ106",
    "depth",
    "the file is nested too deeply",
    finds="Mappings and lists nested more than 32 levels deep.",
    why="Every parser, including Flujo's, has a limited stack.",
    example="input: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    instead="- {kind: import, name: inner, blueprint: ./inner.yaml}",
)
NODES = rule(
    "FLJ107",
    "nodes",
    "the file has too many values",
    finds="More than 20,000 keys and values.",
    why="A blueprint describes the steps. Data belongs in the run's input.",
    example="input: [1, 2, 3]   # and 20,000 more",
    instead='input: "{{ input.numbers }}"',
)
ALIAS = rule(
    "FLJ108",
    "alias",
    "anchors, aliases and merge keys are not part of the language",
    finds="`&anchor`, `*alias` and `<<`.",
    why="A few hundred bytes of them can expand to gigabytes, and a reviewer has to expand them mentally.",
    example="config: &fast {timeout_s: 5}",
    instead="defaults: {config: {timeout_s: 5}}",
)
TAG = rule(
    "FLJ109",
    "tag",
    "tags are not part of the language",
    finds="`!tag` and `!!tag` on any value.",
    why="A tag makes the parser build objects other than plain data, which is how YAML files run code.",
    example="input: !!str 12",
    instead='input: "12"',
)
ONE_DOCUMENT = rule(
    "FLJ110",
    "one-document",
    "the file has more than one document",
    finds="A second document after `---`.",
    why="It is unclear which one to run.",
    example="name: a\n---\nname: b",
    instead="name: a",
)
DUPLICATE_KEY = rule(
    "FLJ111",
    "duplicate-key",
    "a key occurs twice in one mapping",
    finds="The same key twice in one mapping.",
    why="Most YAML parsers silently keep the last one.",
    example="- name: sort\n  agent: sorter\n  agent: reviewer",
    instead="- name: sort\n  agent: sorter",
)
KEY = rule(
    "FLJ112",
    "key",
    "a key that is not text",
    finds="Keys that are numbers, null, booleans, lists or mappings, reserved keys, and very long ones.",
    why="The journal, the lockfile and expressions use JSON, where keys are text.",
    example="branches: {true: []}",
    instead='branches: {"true": []}',
)
SCALAR_SIZE = rule(
    "FLJ113",
    "scalar-size",
    "a text is too long",
    finds="A single text of more than 64 KiB.",
    why="Long prompts are easier to read, compare and lock in separate files.",
    example='instructions: "…70 KiB…"',
    instead="instructions_file: prompts/review.md",
)
NUMBER = rule(
    "FLJ114",
    "number",
    "a number that JSON cannot represent",
    finds="Integers beyond 2^53, and floats beyond the range of a double.",
    why="Another program that reads them as JSON gets a different number.",
    example="input: 12345678901234567890",
    instead='input: "12345678901234567890"',
)
AMBIGUOUS_SCALAR = rule(
    "FLJ115",
    "ambiguous-scalar",
    "an unquoted word that YAML parsers read differently",
    finds="`no`, `012`, `0x1F`, `1_000`, `12:30:45`, `.nan`, unquoted, where values other than text are "
    "allowed.",
    why="YAML 1.1 reads them as false, 10, 31, 1000, 45045 and so on; YAML 1.2 mostly as text.",
    example="with: {urgent: no}",
    instead="with: {urgent: false}   # or quote it",
)
ROOT = rule(
    "FLJ116",
    "root",
    "a blueprint is a mapping",
    finds="A file whose outermost value is a list, a text or a number.",
    why="A blueprint has a version, a name and steps.",
    example="- {name: greet, call: skills.greet:hello}",
    instead='version: "1"\nname: hello\nsteps:\n  - {name: greet, call: skills.greet:hello}',
)
UNQUOTED = rule(
    "FLJ117",
    "unquoted-expression",
    "an expression that YAML reads as something else",
    finds="Expressions and `{{ … }}` that need quotes: they start with `!`, a quote or a brace.",
    why="`!` starts a tag, `{` a mapping, and text after a closing quote is a syntax error.",
    example="until: !steps.review.output.again",
    instead='until: "!steps.review.output.again"',
)

# Keys and values -----------------------------------------------------------------------------------------

UNKNOWN_KEY = rule(
    "FLJ120",
    "unknown-key",
    "an unknown key",
    finds="A key that is not allowed in this mapping. The allowed keys of a step depend on its `kind`.",
    why="A misspelt key would be ignored, and the run would behave as if it were not set.",
    example="- {name: sort, agnet: sorter}",
    instead="- {name: sort, agent: sorter}",
)
MISSING_KEY = rule(
    "FLJ121",
    "missing-key",
    "a key is missing",
    finds="A mapping without a required key.",
    why="The key has no default.",
    example="- {kind: loop, name: refine}",
    instead='- {kind: loop, name: refine, until: "true", steps: [{name: ask, agent: writer}]}',
)
WRONG_TYPE = rule(
    "FLJ122",
    "wrong-type",
    "a value of the wrong type",
    finds="A text where a list is needed, a list where a mapping is needed, and so on.",
    why="Flujo does not convert types implicitly.",
    example="steps: {name: sort, agent: sorter}",
    instead="steps: [{name: sort, agent: sorter}]",
)
UNKNOWN_KIND = rule(
    "FLJ123",
    "unknown-kind",
    "a kind of step that does not exist",
    finds="A `kind` that the language does not have.",
    why="The kind decides which keys a step has, so the rest of the step cannot be checked.",
    example="- {kind: if, name: route}",
    instead="- {kind: conditional, name: route, if: input.urgent, then: []}",
)
IDENTIFIER = rule(
    "FLJ124",
    "identifier",
    "a name that is not an identifier",
    finds="Names of steps, agents, states and variables that are not `[A-Za-z_][A-Za-z0-9_]*`; names of "
    "branches that are empty, longer than 128 characters, or contain characters that cannot be printed.",
    why="Expressions use them (`steps.sort.output`), and letters of other alphabets can look like Latin "
    "ones.",
    example="- {name: sort tickets, agent: sorter}",
    instead="- {name: sort_tickets, agent: sorter}",
)
WRONG_VALUE = rule(
    "FLJ125",
    "wrong-value",
    "a value that is not allowed",
    finds="A number out of its range, a word that is not one of the choices, an empty list of steps.",
    why="The key does not support this value.",
    example="config: {max_retries: -1}",
    instead="config: {max_retries: 0}",
)
DURATION = rule(
    "FLJ126",
    "duration",
    "a duration that cannot be read",
    finds="A duration that is not a number of seconds above 0, nor a number with `ms`, `s`, `m`, `h` or `d`.",
    why="`5 min` and `1h30m` mean different things to different readers.",
    example="config: {timeout_s: 1h30m}",
    instead="config: {timeout_s: 90m}",
)
CONFLICTING_KEYS = rule(
    "FLJ127",
    "conflicting-keys",
    "two keys that do not go together",
    finds="Two keys that exclude each other: `agent` and `call`, `if` and `switch`.",
    why="It is unclear which one applies.",
    example="- {name: sort, agent: sorter, call: skills.sort:sort}",
    instead="- {name: sort, agent: sorter}",
)
CALLABLE_NAME = rule(
    "FLJ128",
    "callable-name",
    "a text that does not name a Python object",
    finds="A `call`, `context`, `output_type` or tool that is not `package.module:name`.",
    why="Callables are looked up by module and name, never evaluated.",
    example="call: skills/greet.py",
    instead="call: skills.greet:hello",
)
VERSION = rule(
    "FLJ129",
    "version",
    "a version of the language that this Flujo does not read",
    finds='A `version` other than "1", which may also be written `1` or `1.0`.',
    why="A later version may give the same keys another meaning.",
    example="version: 2",
    instead='version: "1"',
)

# JSON Schemas inside a blueprint -------------------------------------------------------------------------

SCHEMA_TYPE = rule(
    "FLJ140",
    "schema-type",
    "not a JSON Schema",
    finds="A `*_schema` that does not fit the metaschema of JSON Schema 2020-12.",
    why="A keyword with a wrong value checks nothing, so a wrong output is accepted and fails later.",
    example="output_schema: {type: strng}",
    instead="output_schema: {type: string}",
)
SCHEMA_DRAFT = rule(
    "FLJ141",
    "schema-draft",
    "a JSON Schema of another draft",
    finds="A `$schema` that is not 2020-12.",
    why="The drafts give the same keywords different meanings.",
    example='answer_schema: {$schema: "http://json-schema.org/draft-04/schema#"}',
    instead='answer_schema: {$schema: "https://json-schema.org/draft/2020-12/schema"}',
)
REMOTE_REF = rule(
    "FLJ142",
    "remote-ref",
    "a reference out of the schema",
    finds="A `$ref` to an address of the network, in Python also one to a file, and `$dynamicRef`. In a "
    "blueprint a `$ref` may name a file of the project.",
    why="Schemas are never fetched from the network, so a check always means the same.",
    example='input_schema: {$ref: "https://example.com/ticket.json"}',
    instead="input_schema: {$ref: ./schemas/ticket.json}",
)
REF_CYCLE = rule(
    "FLJ143",
    "ref-cycle",
    "a reference that leads back to itself",
    finds="A cycle of `$ref`s that never descends into the value.",
    why="Checking such a schema never ends.",
    example='input_schema: {$ref: "#"}',
    instead='input_schema: {type: object, properties: {child: {$ref: "#"}}}',
)
REF_MISSING = rule(
    "FLJ144",
    "ref-missing",
    "a reference to nothing",
    finds="A `$ref` whose place in the schema does not exist.",
    why="The check would fail during a run.",
    example='input_schema: {$ref: "#/$defs/tiket", $defs: {ticket: {type: object}}}',
    instead='input_schema: {$ref: "#/$defs/ticket", $defs: {ticket: {type: object}}}',
)
REGEX = rule(
    "FLJ145",
    "regex",
    "a regular expression that cannot be used",
    finds="A `pattern` that RE2 does not compile, or that nests quantifiers (`(a+)+`). RE2 has no "
    "lookaround, no backreferences, and at most 1,000 repetitions.",
    why="Patterns are matched against texts that an attacker may choose. Flujo uses RE2, which takes linear "
    "time. Other programs that use the schema may need exponential time for a nested quantifier.",
    example='output_schema: {type: string, pattern: "^(a+)+$"}',
    instead='output_schema: {type: string, pattern: "^a+$"}',
)
SCHEMA_EMPTY = rule(
    "FLJ146",
    "schema-empty",
    "a schema that no value fits",
    finds="A lower bound above its upper bound: `minimum` and `maximum`, `minLength` and `maxLength` …",
    why="Every output would be rejected after it was paid for.",
    example="answer_schema: {type: integer, minimum: 5, maximum: 1}",
    instead="answer_schema: {type: integer, minimum: 1, maximum: 5}",
)
SCHEMA_LIMIT = rule(
    "FLJ147",
    "schema-limit",
    "a JSON Schema that is too large",
    finds="More than 2,000 keywords, nesting beyond 32 levels, or more than 1,000 schemas for one value.",
    why="Every output is checked against the whole schema.",
    example="output_schema: {items: {items: {items: {}}}}   # and 40 more",
    instead="output_schema: {type: array, items: {type: number}}",
)
SCHEMA_KEYWORD = rule(
    "FLJ148",
    "schema-keyword",
    "a keyword that JSON Schema does not have",
    finds="A keyword that is not one of JSON Schema 2020-12. Those that begin with `x-` are yours.",
    why="JSON Schema ignores unknown keywords, so a misspelt keyword checks nothing.",
    example="output_schema: {type: object, require: [label]}",
    instead="output_schema: {type: object, required: [label]}",
)

NOT_A_SCHEMA = rule(
    "FLJ156",
    "not-a-schema",
    "a mapping of fields in place of a JSON Schema",
    finds="A schema none of whose keys is a keyword of JSON Schema.",
    why="JSON Schema ignores unknown keywords, so any value fits: the answers of an agent are not checked.",
    example="output_schema: {label: string}",
    instead="output_schema: {type: object, required: [label], properties: {label: {type: string}}}",
)

# The end of a long list ----------------------------------------------------------------------------------

MORE = rule(
    "FLJ150",
    "more-findings",
    "more errors than are shown",
    finds=f"A file with more than {MAX_FINDINGS} errors in its syntax or its meaning.",
    why="Most of them have a common cause, and computing suggestions for each takes time.",
    example="# a file of another program, with a thousand keys that blueprints do not have",
    instead="# the first ones put right, and `flujo validate` again",
)


def bounded(findings: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Yield findings up to the limit of errors per file, then a note about the rest."""
    errors = 0
    for one in findings:
        errors += one.is_error
        if errors > MAX_FINDINGS:
            message = f"this file has more than {MAX_FINDINGS} errors; the others are not shown"
            yield MORE.at(one.span, message, hint="fix these first", severity=Severity.INFO)
            return
        yield one
