"""Whether a JSON Schema that a user wrote may be used, and if not, what is wrong where.

Keywords are known by a table of our own: the metaschema's errors point nowhere near the mistake, it knows
nothing of circles and of patterns that never end, and loading `jsonschema` takes longer than checking a whole
blueprint. Tests hold the table against the metaschema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flujo.blueprint.diagnostics import Severity, nearest, suggest
from flujo.blueprint.reading.syntax_rules import (
    REF_CYCLE,
    REF_MISSING,
    REGEX,
    REMOTE_REF,
    SCHEMA_EMPTY,
    SCHEMA_KEYWORD,
    SCHEMA_LIMIT,
    SCHEMA_TYPE,
)
from flujo.blueprint.schemas.keywords import KEYWORDS, is_number, kind_of, short, wrong
from flujo.blueprint.schemas.patterns import pattern_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Rule

MAX_DEPTH = 32
MAX_KEYWORDS = 2_000
MAX_PROBLEMS = 25
"""How many problems of one schema are looked for: to find what was meant takes longer than to find them."""

Path = tuple[str | int, ...]

_SAME_VALUE = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas are applied to the same value: only through these can a check go in a circle."""

_BOUNDS = (
    ("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"),
    ("minProperties", "maxProperties"), ("minContains", "maxContains"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """What is wrong with a schema. `path` leads to the value; `key` asks for the key before it instead."""

    rule: Rule
    path: Path
    message: str
    hint: str | None = None
    key: bool = False
    severity: Severity = Severity.ERROR


def problems(schema: Any) -> list[SchemaProblem]:
    """Return what is wrong with a JSON Schema; empty when `compile_schema` will take it."""
    if not isinstance(schema, dict):
        found = f"a JSON Schema is an object, and this is {kind_of(schema)}"
        return [SchemaProblem(SCHEMA_TYPE, (), found, "begin with `type:`")]
    walk = _Walk(schema)
    walk.visit(schema, ())
    walk.references()
    return walk.found


class _Walk:
    """One walk over one schema; `found` has what it came across."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.found: list[SchemaProblem] = []
        self.schemas: dict[Path, Any] = {}
        self.anchors: dict[str, Path] = {}
        self.keywords = 0
        self.depth = 0

    def visit(self, schema: Any, path: Path) -> None:
        """Check a schema and those inside of it."""
        if isinstance(schema, bool):
            self.schemas[path] = schema
            return
        if not isinstance(schema, dict):
            self._add(SCHEMA_TYPE, path, f"a schema is an object or a boolean, and this is {kind_of(schema)}")
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
            message = "an `$id` inside a schema gives its references another base"
            self._add(REMOTE_REF, (*path, "$id"), message, "keep `$id` at the root only")
        if isinstance(anchor := schema.get("$anchor"), str):
            self.anchors[anchor] = path
        for keyword, value in schema.items():
            if len(self.found) < MAX_PROBLEMS:
                self._keyword(keyword, value, path)
        self._bounds(schema, path)

    def _too_large(self, path: Path) -> None:
        if all(known.rule is not SCHEMA_LIMIT for known in self.found):
            message = f"a schema has at most {MAX_KEYWORDS} keywords and {MAX_DEPTH} levels"
            self._add(SCHEMA_LIMIT, path, message, "split it, or check less")

    def _keyword(self, keyword: str, value: Any, above: Path) -> None:
        path = (*above, keyword)
        shape = KEYWORDS.get(keyword)
        if shape is None:
            if (near := nearest(keyword, KEYWORDS)) is not None:
                message = f"`{keyword}` is no keyword of JSON Schema, so it checks nothing"
                self.found.append(
                    SchemaProblem(
                        SCHEMA_KEYWORD, path, message, f"did you mean `{near}`?", True, Severity.WARNING
                    )
                )
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

    def _schemas(self, value: Any, path: Path) -> None:
        if not isinstance(value, list) or not value:
            self._add(SCHEMA_TYPE, path, f"`{path[-1]}` is a list of schemas, with at least one")
            return
        for index, schema in enumerate(value):
            self.visit(schema, (*path, index))

    def _named_schemas(self, value: Any, path: Path, *, patterns: bool) -> None:
        if not isinstance(value, dict):
            self._add(
                SCHEMA_TYPE, path, f"`{path[-1]}` is a mapping of schemas, and this is {kind_of(value)}"
            )
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
            self._add(SCHEMA_EMPTY, (*path, "enum"), "no value fits: `enum` is empty", "list what is allowed")

    # References ------------------------------------------------------------------------------------------

    def references(self) -> None:
        """Check that every `$ref` leads somewhere, and that none leads back without going into the value."""
        state: dict[Path, bool] = {}
        for path in self.schemas:
            if path not in state and len(self.found) < MAX_PROBLEMS:
                self._follow(path, state)

    def _follow(self, start: Path, state: dict[Path, bool]) -> None:
        """Go through the schemas for the same value, depth first; True marks those that are being visited.

        Without recursion: a chain of references may be as long as there are keywords.
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
                message = f"`$ref` comes back to `{pointer(target)}` without going into the value"
                self._add(REF_CYCLE, edge, message, "refer to it from `properties` or `items`")
            elif target in self.schemas and target not in state:
                state[target] = True
                ways.append((target, self._same_value(target)))

    def _same_value(self, path: Path) -> Iterator[tuple[Path, Path]]:
        """Yield where a schema passes its value on to: the place of the keyword, and the schema there."""
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
            target = _resolve(self.root, fragment)
        if target is None or target not in self.schemas:
            names = [pointer(known) for known in self.schemas if known[:1] in (("$defs",), ("definitions",))]
            message = f"`$ref: {short(reference)}` leads to no schema"
            self._add(
                REF_MISSING, path, message, suggest(reference, names, what="there are") or "add it to `$defs`"
            )
            return None
        return target

    def _add(self, rule: Rule, path: Path, message: str, hint: str | None = None) -> None:
        self.found.append(SchemaProblem(rule, path, message, hint))


def pointer(path: Path) -> str:
    """Return a place in a schema as a JSON pointer: `#/$defs/ticket`."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _resolve(root: Any, fragment: str) -> Path | None:
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
