"""Checks the JSON Schemas that users write, and reports each problem with its path.

Keywords are in a table of this package: the metaschema's errors point far from the mistake, it does not
detect cycles and exponential patterns, and loading `jsonschema` takes longer than checking a whole blueprint.
Tests compare the table with the metaschema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flujo.blueprint.diagnostics import Severity, nearest, suggest
from flujo.blueprint.reading.syntax_rules import (
    NOT_A_SCHEMA,
    REF_CYCLE,
    REF_MISSING,
    REGEX,
    REMOTE_REF,
    SCHEMA_EMPTY,
    SCHEMA_KEYWORD,
    SCHEMA_LIMIT,
    SCHEMA_TYPE,
)
from flujo.blueprint.schemas.keywords import KEYWORDS, TYPES, is_number, short, wrong
from flujo.blueprint.schemas.patterns import pattern_problem
from flujo.domain.wording import kind_of
from flujo.json_schema.complexity import SchemaTooComplex, check_complexity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Rule

MAX_DEPTH = 32
MAX_KEYWORDS = 2_000
MAX_PROBLEMS = 25
"""How many problems of one schema are reported: suggestions take longer than finding problems."""

Path = tuple[str | int, ...]

_WARNING = Severity.WARNING
_OF_OTHERS = frozenset({"discriminator", "example", "externalDocs"})
"""Keywords of OpenAPI that only describe a value."""
_SYNONYMS = {
    "fields": "properties", "props": "properties", "values": "enum", "choices": "enum", "options": "enum",
    "min": "minimum", "max": "maximum", "regex": "pattern", "optional": "required", "nullable": "type",
    "of": "items", "elements": "items", "min_length": "minLength", "max_length": "maxLength",
}  # fmt: skip
"""Keywords of other languages of schemas → the keyword of JSON Schema."""

_SAME_VALUE = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas apply to the same value: only these can form a cycle."""

_BOUNDS = (
    ("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"),
    ("minProperties", "maxProperties"), ("minContains", "maxContains"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """A problem of a schema. `path` leads to the value; with `key`, the problem is in the key itself."""

    rule: Rule
    path: Path
    message: str
    hint: str | None = None
    key: bool = False
    severity: Severity = Severity.ERROR


def problems(schema: Any) -> list[SchemaProblem]:
    """Return the problems of a JSON Schema; empty if `compile_schema` accepts it."""
    if not isinstance(schema, dict):
        found = f"a JSON Schema must be an object, not {kind_of(schema)}"
        return [SchemaProblem(SCHEMA_TYPE, (), found, "start with `type:`")]
    walk = _Walk(schema)
    walk.visit(schema, ())
    walk.references()
    return walk.found


class _Walk:
    """One walk over one schema; `found` has the problems."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.found: list[SchemaProblem] = []
        self.schemas: dict[Path, Any] = {}
        self.anchors: dict[str, Path] = {}
        self.keywords = 0
        self.depth = 0

    def visit(self, schema: Any, path: Path) -> None:
        """Check a schema and its subschemas."""
        if isinstance(schema, bool):
            self.schemas[path] = schema
            return
        if not isinstance(schema, dict):
            hint = f"write `{{type: {schema}}}`" if schema in TYPES else None
            message = f"a schema must be an object or a boolean, not {kind_of(schema)}"
            self._add(SCHEMA_TYPE, path, message, hint)
            return
        self.keywords += len(schema)
        self.depth += 1
        if self.depth > MAX_DEPTH or self.keywords > MAX_KEYWORDS:
            self._too_large(path)
        else:
            self._visit(schema, path)
        self.depth -= 1

    def _visit(self, schema: dict[str, Any], path: Path) -> None:
        self.schemas[path] = schema
        if path and "$id" in schema:
            message = "an `$id` inside a schema changes the base of its references"
            self._add(REMOTE_REF, (*path, "$id"), message, "use `$id` only at the root")
        if isinstance(anchor := schema.get("$anchor"), str):
            self.anchors[anchor] = path
        for keyword, value in schema.items():
            if len(self.found) < MAX_PROBLEMS:
                self._keyword(keyword, value, path)
        self._bounds(schema, path)

    def _too_large(self, path: Path) -> None:
        if all(known.rule is not SCHEMA_LIMIT for known in self.found):
            message = f"a schema has at most {MAX_KEYWORDS} keywords and {MAX_DEPTH} levels"
            self._add(SCHEMA_LIMIT, path, message, "split it, or simplify it")

    def _keyword(self, keyword: str, value: Any, above: Path) -> None:
        path = (*above, keyword)
        shape = KEYWORDS.get(keyword)
        if shape is None:
            self._unknown(keyword, above)
            return
        match shape:
            case "schema":
                self.visit(value, path)
            case "schemas":
                self._schemas(value, path)
            case "named schemas" | "patterned schemas":
                self._named_schemas(value, path, patterns=shape == "patterned schemas")
            case _:
                if (found := wrong(keyword, value)) is not None:
                    self._add(found[0], path, *found[1:])

    def _unknown(self, keyword: str, above: Path) -> None:
        """Report a keyword that JSON Schema does not have, or once a schema that has none of its keywords."""
        schema = self.schemas[above]
        if _is_ignored(keyword):
            return
        meant = _SYNONYMS.get(keyword) or nearest(keyword, KEYWORDS)
        is_schema = any(each in KEYWORDS for each in schema)
        if not is_schema and (meant is None or schema[keyword] in TYPES):
            if keyword == next(each for each in schema if not _is_ignored(each)):
                message = "this is not a JSON Schema: none of its keys is a keyword, so any value fits"
                found = SchemaProblem(NOT_A_SCHEMA, above, message, _as_schema(schema), not above, _WARNING)
                self.found.append(found)
            return
        message = f"`{keyword}` is not a keyword of JSON Schema, so it checks nothing"
        hint = "remove it, or begin it with `x-`" if meant is None else f"did you mean `{meant}`?"
        self.found.append(SchemaProblem(SCHEMA_KEYWORD, (*above, keyword), message, hint, True, _WARNING))

    def _schemas(self, value: Any, path: Path) -> None:
        if not isinstance(value, list) or not value:
            self._add(SCHEMA_TYPE, path, f"`{path[-1]}` must be a list of at least one schema")
            return
        for index, schema in enumerate(value):
            self.visit(schema, (*path, index))

    def _named_schemas(self, value: Any, path: Path, *, patterns: bool) -> None:
        if not isinstance(value, dict):
            self._add(SCHEMA_TYPE, path, f"`{path[-1]}` must be a mapping of schemas, not {kind_of(value)}")
            return
        for name, schema in value.items():
            if patterns and (problem := pattern_problem(name)):
                self.found.append(SchemaProblem(REGEX, (*path, name), f"the pattern {problem}", key=True))
            self.visit(schema, (*path, name))

    def _bounds(self, schema: dict[str, Any], path: Path) -> None:
        for low, high in _BOUNDS:
            least, most = schema.get(low), schema.get(high)
            if is_number(least) and is_number(most) and least > most:
                message = f"no value fits: `{low}` {least} is above `{high}` {most}"
                self._add(SCHEMA_EMPTY, (*path, low), message, "swap them")
        if schema.get("enum") == []:
            self._add(
                SCHEMA_EMPTY, (*path, "enum"), "no value fits: `enum` is empty", "list the allowed values"
            )

    # References ------------------------------------------------------------------------------------------

    def references(self) -> None:
        """Check that every `$ref` has a target, and that few schemas and no cycle stay at the same value."""
        state: dict[Path, bool] = {}
        for path in self.schemas:
            if path not in state and len(self.found) < MAX_PROBLEMS:
                self._follow(path, state)
        try:
            check_complexity(self.root)
        except SchemaTooComplex as error:
            where = next((path for path, known in self.schemas.items() if known is error.schema), ())
            self._add(SCHEMA_LIMIT, where, str(error), "merge alternatives, or divide the value into fields")

    def _follow(self, start: Path, state: dict[Path, bool]) -> None:
        """Visit the schemas for the same value, depth first; True marks those that are being visited.

        Not recursive: a chain of references may be as long as the number of keywords.
        """
        ways = [(start, self._same_value(start))]
        state[start] = True
        while ways:
            path, edges = ways[-1]
            edge, target = next(edges, (path, None))
            if target is None:
                state[path] = False
                ways.pop()
            elif state.get(target):
                message = f"`$ref` leads back to `{pointer(target)}` without descending into the value"
                self._add(REF_CYCLE, edge, message, "refer to it from `properties` or `items`")
            elif target in self.schemas and target not in state:
                state[target] = True
                ways.append((target, self._same_value(target)))

    def _same_value(self, path: Path) -> Iterator[tuple[Path, Path]]:
        """Yield the schemas that apply to the same value, each with the path of its keyword."""
        schema = self.schemas[path]
        for keyword in _SAME_VALUE if isinstance(schema, dict) else ():
            value, edge = schema.get(keyword), (*path, keyword)
            match value:
                case str() if keyword == "$ref":
                    if (target := self._target(value, edge)) is not None:
                        yield edge, target
                case list():
                    yield from (((*edge, index), (*edge, index)) for index in range(len(value)))
                case dict() if keyword == "dependentSchemas":
                    yield from (((*edge, name), (*edge, name)) for name in value)
                case dict():
                    yield edge, edge
                case _:
                    pass

    def _target(self, reference: str, path: Path) -> Path | None:
        if not reference.startswith("#"):
            return None
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            target = self.anchors.get(fragment)
        else:
            target = resolve(self.root, fragment)
        if target is None or target not in self.schemas:
            names = [pointer(known) for known in self.schemas if known[:1] in (("$defs",), ("definitions",))]
            message = f"`$ref: {short(reference)}` does not lead to a schema"
            self._add(
                REF_MISSING,
                path,
                message,
                suggest(reference, names, what="known definitions") or "add it to `$defs`",
            )
            return None
        return target

    def _add(self, rule: Rule, path: Path, message: str, hint: str | None = None) -> None:
        self.found.append(SchemaProblem(rule, path, message, hint))


def _is_ignored(keyword: str) -> bool:
    """Return whether an unknown keyword is meant for other programs."""
    return keyword.startswith("x-") or keyword in _OF_OTHERS


def _as_schema(fields: dict[str, Any]) -> str:
    """Return the hint for a mapping of fields that was written in place of a schema."""
    written = []
    for name, value in [*fields.items()][:3]:
        kind = value if isinstance(value, str) and value in TYPES else "string"
        written.append(f"{short(name)}: {{type: {kind}}}")
    names = ", ".join(short(name) for name in [*fields][:3])
    more = ", …" if len(fields) > 3 else ""
    said = ", ".join(written)
    return f"write `{{type: object, required: [{names}{more}], properties: {{{said}{more}}}}}`"


def pointer(path: Path) -> str:
    """Return a place in a schema as a JSON pointer: `#/$defs/ticket`."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def resolve(root: Any, fragment: str) -> Path | None:
    """Return the place that a JSON pointer without `#` names, or None if there is nothing."""
    if fragment and not fragment.startswith("/"):
        return None
    path: list[str | int] = []
    here = root
    for part in fragment.split("/")[1:]:
        step: str | int = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and part.isdecimal() and int(part) < len(here):
            step = int(part)
            here = here[step]
        elif isinstance(here, dict) and step in here:
            here = here[step]
        else:
            return None
        path.append(step)
    return tuple(path)
