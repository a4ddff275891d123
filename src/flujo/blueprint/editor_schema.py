"""The JSON Schema of the language, for editors: generated from the models, kept in `blueprint.schema.json`.

`python -m flujo.blueprint.editor_schema` writes the file again. What differs from pydantic's output is how
alternatives are told apart: by `if` and `then` on `kind` (or on the type), so that an editor names the wrong
key of a loop, and not "no alternative fits" for the whole file.
"""

import json
from pathlib import Path
from typing import Any

from flujo.blueprint.document import KINDS, Blueprint
from flujo.blueprint.json_schemas import DRAFT

FILE = Path(__file__).with_name("blueprint.schema.json")


def generate() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a blueprint."""
    schema = _dispatched(Blueprint.model_json_schema())
    definitions = schema.pop("$defs")
    definitions["AnyStep"] = _any_step()
    definitions["Step"] |= _exactly_one("agent", "call")
    definitions["ConditionalStep"] |= _exactly_one("if", "switch") | {
        "dependentRequired": {"if": ["then"], "switch": ["branches"]},
        "dependentSchemas": {
            "if": {"properties": {"branches": False, "default": False}},
            "switch": {"properties": {"then": False, "else": False}},
        },
    }
    return {
        "$schema": DRAFT,
        "title": "Flujo blueprint",
        **{key: value for key, value in schema.items() if key != "title"},
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"


def _any_step() -> dict[str, Any]:
    """Return the schema of a step: `kind` chooses one definition, and no `kind` is a plain step."""
    cases = []
    for kind, model in KINDS.items():
        chosen: dict[str, Any] = {"properties": {"kind": {"const": kind}}}
        if kind != "step":
            chosen["required"] = ["kind"]
        cases.append({"if": chosen, "then": {"$ref": f"#/$defs/{model.__name__}"}})
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"kind": {"enum": list(KINDS), "default": "step"}},
        "allOf": cases,
    }


def _exactly_one(one: str, other: str) -> dict[str, Any]:
    return {"if": {"required": [one]}, "then": {"properties": {other: False}}, "else": {"required": [other]}}


def _dispatched(node: Any) -> Any:
    """Return pydantic's schema with alternatives told apart, and without the null of a key left out."""
    if isinstance(node, list):
        return [_dispatched(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node and {"type": "null"} in node["anyOf"]:
        node = _without_null(node)
    if "oneOf" in node:
        return _chosen([_dispatched(one) for one in node["oneOf"]])
    return {
        key: _dispatched(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    kept = [one for one in node["anyOf"] if one != {"type": "null"}]
    return {**rest, **kept[0]} if len(kept) == 1 else {**rest, "anyOf": kept}


def _chosen(alternatives: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one schema for a list of alternatives: the kinds of step, or a short form and a mapping."""
    if len(alternatives) == len(KINDS):
        return {"$ref": "#/$defs/AnyStep"}
    short, long = alternatives
    return {"if": {"type": "object"}, "then": long, "else": short}


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
