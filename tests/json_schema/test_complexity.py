"""A schema that multiplies the work of a check is refused, and a check that is too long ends."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.blueprint.reading.syntax_rules import SCHEMA_LIMIT
from flujo.blueprint.schemas.checks import problems
from flujo.blueprint.schemas.validator import compile_schema
from flujo.exceptions import BlueprintError, OutputRejected
from flujo.json_schema import complexity
from flujo.json_schema.complexity import SchemaTooComplex, check_complexity
from flujo.json_schema.validator import Validator

COMBINATORS = ["anyOf", "oneOf", "allOf"]


def tower(combinator: str, levels: int) -> dict[str, Any]:
    """Return a schema whose levels each refer twice to the next."""
    definitions: dict[str, Any] = {
        f"a{level}": {combinator: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": {**definitions, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def nested(keyword: str, levels: int) -> dict[str, Any]:
    """Return schemas inside each other for one value."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {keyword: [schema] if keyword.endswith("Of") else schema}
    return schema


@pytest.mark.parametrize("combinator", COMBINATORS)
@pytest.mark.parametrize("levels", [9, 30, 300])
def test_a_tower_of_combinators_is_refused_before_a_value_is_checked(combinator: str, levels: int) -> None:
    with pytest.raises(SchemaTooComplex, match="more than"):
        Validator(tower(combinator, levels))
    with pytest.raises(BlueprintError, match="more than"):
        compile_schema(tower(combinator, levels))
    assert SCHEMA_LIMIT in {found.rule for found in problems(tower(combinator, levels))}


def test_the_finding_points_to_the_schema_where_the_tower_begins() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/a0"}}, "$defs": tower("anyOf", 9)["$defs"]}
    found = [each for each in problems(schema) if each.rule is SCHEMA_LIMIT]
    assert [each.path[0] for each in found] == ["$defs"]


@pytest.mark.parametrize("keyword", [*COMBINATORS, "not", "if"])
@pytest.mark.parametrize("levels", [70, 5_000])
def test_schemas_deep_inside_each_other_are_refused(keyword: str, levels: int) -> None:
    with pytest.raises(SchemaTooComplex, match="inside each other"):
        check_complexity(nested(keyword, levels))


def test_dependent_schemas_and_conditions_count_too() -> None:
    definitions: dict[str, Any] = {
        f"a{level}": {
            "if": {"$ref": f"#/$defs/a{level + 1}"},
            "then": {"dependentSchemas": {"x": {"$ref": f"#/$defs/a{level + 1}"}}},
            "else": {"not": {"$ref": f"#/$defs/a{level + 1}"}},
        }
        for level in range(10)
    }
    with pytest.raises(SchemaTooComplex):
        check_complexity({"$defs": {**definitions, "a10": {}}, "$ref": "#/$defs/a0"})


def test_a_tower_that_descends_with_the_value_ends_when_it_is_checked() -> None:
    definitions: dict[str, Any] = {
        "a": {"anyOf": [{"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["y"]}] * 3}
    }
    schema = {"$defs": definitions, "$ref": "#/$defs/a"}
    value: dict[str, Any] = {}
    for _ in range(40):
        value = {"x": value}
    with pytest.raises(OutputRejected, match="takes too many steps"):
        compile_schema(schema).check(value, what="the value")


def test_anchors_are_counted_when_a_value_is_checked() -> None:
    definitions: dict[str, Any] = {
        f"a{level}": {"$anchor": f"a{level}", "anyOf": [{"$ref": f"#a{level + 1}"}] * 2}
        for level in range(30)
    }
    last = {"a30": {"$anchor": "a30", "type": "string"}}
    found = Validator({"$defs": {**definitions, **last}, "$ref": "#a0"}).violations(5)
    assert list(found) == ["the value takes too many steps to be checked"]


def test_ordinary_unions_and_recursive_schemas_are_accepted() -> None:
    union = {"anyOf": [{"$ref": f"#/$defs/t{number}"} for number in range(100)]}
    kinds = {f"t{n}": {"properties": {"kind": {"const": n}, "next": {"$ref": "#"}}} for n in range(100)}
    schema = {**union, "$defs": kinds}
    value: dict[str, Any] = {"kind": 99}
    for _ in range(20):
        value = {"kind": 99, "next": value}
    compile_schema(schema).check(value, what="the value")
    many = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "integer"}]}}
    compile_schema(many).check(list(range(20_000)), what="the value")


def test_each_reference_of_a_chain_is_followed_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []
    referred = complexity.referred

    def counted(reference: Any, root: Any) -> Any:
        followed.append(reference)
        return referred(reference, root)

    monkeypatch.setattr(complexity, "referred", counted)
    links: dict[str, Any] = {f"a{index}": {"$ref": f"#/$defs/a{index + 1}"} for index in range(1_000)}
    check_complexity({"$defs": {**links, "a1000": {"type": "string"}}, "$ref": "#/$defs/a0"})
    assert len(followed) < 5 * len(links)
