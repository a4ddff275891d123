"""JSON Schemas in files: which references are taken, what they become, and where their findings are."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.sources.source_files import PinnedSource

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY = "blueprints/desk.yaml"
TICKET = b"""{
\t"$schema": "https://json-schema.org/draft/2020-12/schema",
\t"$id": "https://acme.example/ticket",
\t"type": "object",
\t"required": ["title", "owner"],
\t"properties": {
\t\t"title": {"type": "string"},
\t\t"children": {"items": {"$ref": "#"}},
\t\t"owner": {"$ref": "common.yaml#/$defs/person"}
\t}
}
"""
COMMON = b"""\
$defs:
  priority: {enum: [low, high]}
  person:
    type: object
    required: [name]
    properties:
      name: {type: string}
      boss: {$ref: "#/$defs/person"}
      ticket: {$ref: ./ticket.json#/properties/title}
"""


def read(
    schema: str,
    key: str = "answer_schema",
    message: str = "m",
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> Compiled:
    """Return a blueprint with a question whose schema is as written; files are those of `schemas/`."""
    own = f"    answer_schema: {schema}\n" if key == "answer_schema" else ""
    top = f"{key}: {schema}\n" if not own else ""
    text = f'version: "1"\nname: desk\n{top}steps:\n  - kind: hitl\n    name: ask\n    message: "{message}"\n{own}'
    given = {
        "ticket.json": TICKET,
        "common.yaml": COMMON,
        **files,
    }
    at = {f"schemas/{name}": data for name, data in given.items()}
    return compile_blueprint(ENTRY, PinnedSource({ENTRY: text.encode(), **at}))


def answer(compiled: Compiled) -> Any:
    assert compiled.pipeline is not None, [str(one) for one in compiled.diagnostics]
    (ask,) = compiled.pipeline.steps
    assert ask.question is not None
    return ask.question.answer_schema


def test_a_schema_that_is_only_a_reference_is_replaced_by_the_file() -> None:
    compiled = read("{$ref: ../schemas/ticket.json}", "input_schema", "{{ input.owner.name }}")
    assert compiled.pipeline is not None
    assert compiled.pipeline.input_schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["title", "owner"],
        "properties": {
            "title": {"type": "string"},
            "children": {"items": {"$ref": "#"}},
            "owner": {"$ref": "#/$defs/person"},
        },
        "$defs": {
            "person": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "boss": {"$ref": "#/$defs/person"},
                    "ticket": {"$ref": "#/properties/title"},
                },
            }
        },
    }


def test_a_part_of_a_schema_may_be_a_reference_to_a_part_of_a_file() -> None:
    schema = '{properties: {p: {$ref: "../schemas/common.yaml#/$defs/priority"}}, $defs: {priority: true}}'
    assert answer(read(schema)) == {
        "properties": {"p": {"$ref": "#/$defs/priority_2"}},
        "$defs": {"priority": True, "priority_2": {"enum": ["low", "high"]}},
    }


def test_only_schemas_are_references_and_not_data_inside_them() -> None:
    schema = "{properties: {$ref: {type: string}}, default: {$ref: ./none.json}, const: {$ref: ./none.json}}"
    assert answer(read(schema)) == {
        "properties": {"$ref": {"type": "string"}},
        "default": {"$ref": "./none.json"},
        "const": {"$ref": "./none.json"},
    }


def test_the_files_belong_to_the_closure() -> None:
    one = read("{$ref: ../schemas/ticket.json}")
    assert set(one.closure.files) == {ENTRY, "schemas/ticket.json", "schemas/common.yaml"}
    other = read("{$ref: ../schemas/ticket.json}", files={"common.yaml": COMMON.replace(b"high", b"top")})
    assert one.closure.digest != other.closure.digest
    again = compile_blueprint(ENTRY, PinnedSource(one.closure.files))
    assert answer(again) == answer(one)


LOOP = {"one.json": b'{"$ref": "two.json"}', "two.json": b'{"$ref": "one.json"}'}
WRONG: dict[str, tuple[str, dict[str, bytes], str]] = {
    "no such file": ("./none.json", {}, f"{ENTRY}:7:27 FLJ221 './none.json' is not read"),
    "outside the project": (
        "../../x.json",
        {},
        f"{ENTRY}:7:27 FLJ220 '../../x.json' is not read: it leads out",
    ),
    "an absolute path": (
        "/etc/x.json",
        {},
        f"{ENTRY}:7:27 FLJ220 '/etc/x.json' is not read: it is an absolute",
    ),
    "no schema": ("skills.py", {}, f"{ENTRY}:7:27 FLJ220 'skills.py' is not read: it is not a plain path"),
    "the network": (
        "https://a.example/x.json",
        {},
        f"{ENTRY}:7:27 FLJ142 `$ref: https://a.example/x.json` points",
    ),
    "no such part": (
        "../schemas/common.yaml#/$defs/persn",
        {},
        f"{ENTRY}:7:27 FLJ144 `$ref: ../schemas/common.yaml#/$defs/persn` leads to nothing in schemas/common.yaml",
    ),
    "a file that is wrong": (
        "../schemas/ticket.json",
        {"common.yaml": COMMON.replace(b"name: {type: string}", b"name: {type: strng}")},
        "schemas/common.yaml:7:20 FLJ140 `strng` is not a type of JSON Schema",
    ),
    "a file inside a file": (
        "../schemas/ticket.json",
        {"common.yaml": COMMON.replace(b"./ticket.json", b"./none.json")},
        "schemas/common.yaml:9:22 FLJ221 './none.json' is not read",
    ),
    "not JSON": ("../schemas/ticket.json", {"ticket.json": b'{"type": '}, "schemas/ticket.json:1:10 FLJ105"),
    "a list": (
        "../schemas/ticket.json",
        {"ticket.json": b"[1]"},
        "schemas/ticket.json:1:1 FLJ116 the file must be",
    ),
    "a cycle": ("../schemas/one.json", LOOP, "schemas/one.json:1:10 FLJ143 `$ref` leads back to `#`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_reference_is_reported_once_where_it_is(name: str) -> None:
    reference, files, expected = WRONG[name]
    compiled = read(f'{{$ref: "{reference}"}}', files=files)
    assert compiled.pipeline is None
    (found,) = compiled.diagnostics
    said = f"{found.span.file}:{found.span.line}:{found.span.column} {found.code} {found.message}"
    assert said.startswith(expected), said
