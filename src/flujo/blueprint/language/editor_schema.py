"""Generates `blueprint.schema.json` and `cases.schema.json`, the JSON Schemas for editors, from the models.

`python -m flujo.blueprint.language.editor_schema` writes the files. The schema of blueprints differs from
pydantic's schema in how it separates alternatives: by `if` and `then` on `kind` (or on the type), so that an
editor reports the wrong key of a loop instead of "no alternative fits" for the whole file.
"""

import json
from pathlib import Path
from typing import Any

from flujo.blueprint.language.cases import CasesFile
from flujo.blueprint.language.field_descriptions import DESCRIPTIONS
from flujo.blueprint.language.models import KINDS, AgentsFile, Blueprint
from flujo.blueprint.schemas.keywords import DRAFT
from flujo.domain.checks import MAX_NAME

FILE = Path(__file__).parents[1] / "blueprint.schema.json"
CASES_FILE = FILE.with_name("cases.schema.json")


def generate() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a blueprint, and of a file of agents."""
    definitions: dict[str, Any] = {}
    for language in (Blueprint, AgentsFile):
        schema = _dispatched(language.model_json_schema())
        definitions |= schema.pop("$defs") | {language.__name__: schema}
    for definition in definitions.values():
        definition["properties"] = {
            key: {"description": DESCRIPTIONS[key]} | value
            for key, value in definition.get("properties", {}).items()
        }
    definitions["AnyStep"] = _any_step()
    definitions["Step"] |= _exactly_one("agent", "call")
    definitions["SleepStep"] |= _exactly_one("for", "until")
    definitions["AwaitStep"] |= _exactly_one("task", "tasks")
    definitions["ConditionalStep"] |= _exactly_one("if", "switch") | {
        "dependentRequired": {"if": ["then"], "switch": ["branches"]},
        "dependentSchemas": {"if": _none_of("branches", "default"), "switch": _none_of("then", "else")},
    }
    definitions["Agent"] |= {
        "dependentSchemas": {
            "instructions": _none_of("instructions_file"),
            "output_schema": _none_of("output_type"),
        },
    }
    definitions["Blueprint"]["dependentSchemas"] = {"context": _none_of("context_schema")}
    return {
        "$schema": DRAFT,
        "title": "Flujo blueprint, or file of agents",
        "type": "object",
        "if": {"required": ["agents"], **_none_of("name", "steps")},
        "then": {"$ref": "#/$defs/AgentsFile"},
        "else": {"$ref": "#/$defs/Blueprint"},
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """Return the content of the schema file of blueprints."""
    return json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"


def cases_text() -> str:
    """Return the content of the schema file of files of cases."""
    schema = _dispatched(CasesFile.model_json_schema())
    whole = {"$schema": DRAFT, "title": "Cases of a Flujo blueprint", **schema}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _any_step() -> dict[str, Any]:
    """Return the schema of a step: `kind` selects the definition; without `kind` it is a plain step."""
    cases = []
    for kind, model in KINDS.items():
        chosen: dict[str, Any] = {"properties": {"kind": {"const": kind}}}
        if kind != "step":
            chosen["required"] = ["kind"]
        cases.append({"if": chosen, "then": {"$ref": f"#/$defs/{model.__name__}"}})
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"kind": {"enum": list(KINDS), "default": "step", "description": DESCRIPTIONS["kind"]}},
        "allOf": cases,
    }


def _exactly_one(one: str, other: str) -> dict[str, Any]:
    return {"if": {"required": [one]}, "then": _none_of(other), "else": {"required": [other]}}


def _none_of(*keys: str) -> dict[str, Any]:
    return {"properties": dict.fromkeys(keys, False)}


def _dispatched(node: Any) -> Any:
    """Return pydantic's schema with separated alternatives, without redundant titles and defaults."""
    if isinstance(node, list):
        return [_dispatched(item) for item in node]
    if not isinstance(node, dict):
        return node
    if {"type": "null"} in node.get("anyOf", ()):
        node = _without_null(node)
    if "oneOf" in node:
        return _chosen([_dispatched(one) for one in node["oneOf"]])
    if "patternProperties" in node:
        node = _named_properties(node)
    return {
        key: {name: _dispatched(inner) for name, inner in value.items()}
        if key in ("properties", "$defs")  # their keys are names, which may equal a keyword (`default`)
        else _dispatched(value)
        for key, value in node.items()
        if not _is_noise(key, value)
    }


def _is_noise(key: str, value: Any) -> bool:
    """Whether a keyword is a title derived from a name, or an empty default."""
    is_title = key == "title" and isinstance(value, str)
    return is_title or (key == "default" and (isinstance(value, dict | list) or value in (None, "")))


def _named_properties(node: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping whose keys must all be names; pydantic's own form accepts other keys."""
    ((pattern, inner),) = node["patternProperties"].items()
    rest = {key: value for key, value in node.items() if key != "patternProperties"}
    return {
        **rest,
        "propertyNames": {"pattern": pattern, "maxLength": MAX_NAME},
        "additionalProperties": inner,
    }


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    kept = [one for one in node["anyOf"] if one != {"type": "null"}]
    return {**rest, **kept[0]} if len(kept) == 1 else {**rest, "anyOf": kept}


def _chosen(alternatives: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one schema for a list of alternatives: kinds of step, or a short form and a mapping."""
    if len(alternatives) == len(KINDS):
        return {"$ref": "#/$defs/AnyStep"}
    short, long = alternatives
    return {"if": {"type": "object"}, "then": long, "else": short}


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
    CASES_FILE.write_text(cases_text(), "utf-8")
