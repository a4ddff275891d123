"""JSON Schema 2020-12 with patterns matched in linear time, and a limit of steps."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from flujo.json_schema import complexity
from flujo.json_schema.re2_patterns import is_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# `jsonschema` calls `re.search` in four keywords, including `additionalProperties` and
# `unevaluatedProperties`, and accepts no other engine, so all four are reimplemented here.


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not is_found(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], value: Any, _: Any
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for key in filter(lambda key: is_found(pattern, key), value):
                yield from validator.descend(value[key], inner, path=key, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, value: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        odd = sorted(value.keys() - _declared(value, schema))
        if isinstance(allowed, dict):
            for key in odd:
                yield from validator.descend(value[key], allowed, path=key)
        elif not allowed and odd:
            yield ValidationError(f"additional properties are not allowed: {', '.join(map(repr, odd))}")


def _unevaluated_properties(
    validator: Any, allowed: Any, value: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        rest = value.keys() - _evaluated(validator, value, schema)
        odd = sorted(key for key in rest if any(validator.descend(value[key], allowed)))
        if odd:
            yield ValidationError(f"unevaluated properties are not allowed: {', '.join(map(repr, odd))}")


def _declared(value: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """Return the keys that match `properties` or `patternProperties`."""
    patterns = schema.get("patternProperties", {})
    properties = schema.get("properties", {})
    return {key for key in value if key in properties or any(is_found(one, key) for one in patterns)}


def _evaluated(validator: Any, value: dict[str, Any], schema: Any) -> set[str]:
    """Return the keys evaluated by a schema or by the schemas that it applies in place."""
    if not isinstance(schema, dict):
        return set()
    found = _declared(value, schema)
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in schema:
            found |= {
                key for key in value.keys() - found if not any(validator.descend(value[key], schema[keyword]))
            }
    for inner, resolver in _applied(validator, value, schema):
        here = validator.evolve(schema=inner, _resolver=resolver)
        if here.is_valid(value):
            found |= _evaluated(here, value, inner)
    return found


def _applied(validator: Any, value: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the schemas applied in place, each with the resolver of its references."""
    resolver = validator._resolver  # private: `test_jsonschema_4_26_keeps_its_resolver` guards it
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            resolved = resolver.lookup(schema[keyword])
            yield resolved.contents, resolved.resolver
    for key, inner in schema.get("dependentSchemas", {}).items():
        if key in value:
            yield inner, resolver
    for keyword in ("allOf", "anyOf", "oneOf"):
        for inner in schema.get(keyword, ()):
            yield inner, resolver
    if "if" in schema:
        holds = validator.evolve(schema=schema["if"]).is_valid(value)
        for keyword in ("if", "then") if holds else ("else",):
            if keyword in schema:
                yield schema[keyword], resolver


def _counted(check: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    def counted(*arguments: Any) -> Iterator[ValidationError]:
        complexity.step()
        yield from check(*arguments) or ()

    return counted


def _fits(validator: Any, value: Any, schema: Any) -> bool:
    return next(validator.descend(value, schema), None) is None


# `jsonschema` collects every error of every alternative, which takes exponential time for a tree of unions.


def _any_of(validator: Any, schemas: list[Any], value: Any, _: Any) -> Iterator[ValidationError]:
    if not any(_fits(validator, value, schema) for schema in schemas):
        yield ValidationError(f"{value!r} is not valid under any of the given schemas")


def _one_of(validator: Any, schemas: list[Any], value: Any, _: Any) -> Iterator[ValidationError]:
    fitting = list(islice((schema for schema in schemas if _fits(validator, value, schema)), 2))
    if not fitting:
        yield ValidationError(f"{value!r} is not valid under any of the given schemas")
    elif len(fitting) > 1:
        yield ValidationError(f"{value!r} is valid under more than one of the given schemas")


_IN_PLACE = ("$ref", "$dynamicRef", "allOf", "not", "if", "dependentSchemas")

LinearDraft: Any = extend(
    Draft202012Validator,
    {
        **{keyword: _counted(Draft202012Validator.VALIDATORS[keyword]) for keyword in _IN_PLACE},
        "anyOf": _counted(_any_of),
        "oneOf": _counted(_one_of),
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _counted(_unevaluated_properties),
    },
)
