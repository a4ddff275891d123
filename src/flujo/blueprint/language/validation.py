"""Validates a document against the language: a finding for every wrong key and value.

pydantic finds the place and type of an error; this module adds the message, the key and the suggestion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from flujo.blueprint.diagnostics import (
    MAX_FINDINGS,
    RULES,
    Fix,
    did_you_mean,
    nearest,
    one_of,
    suggest,
)
from flujo.blueprint.language import synonyms
from flujo.blueprint.language.cases import Case, CasesFile, Dataset, DatasetCase, Evaluator, Threshold
from flujo.blueprint.language.model_lookup import Language, keys_of, model_at, path_of
from flujo.blueprint.language.models import (
    KINDS,
    MODEL_SETTINGS,
    Agent,
    AgentsFile,
    BaseStep,
    Blueprint,
    Config,
    Strict,
)
from flujo.blueprint.reading import syntax_rules as rules
from flujo.blueprint.reading.scalars import is_date
from flujo.blueprint.reading.syntax_rules import bounded
from flujo.blueprint.schemas.checks import problems
from flujo.blueprint.schemas.validator import CompiledSchema, compile_schema
from flujo.domain.checks import needs_entries
from flujo.domain.choices import fixed
from flujo.domain.wording import json_short, kind_of
from flujo.governance.screen import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.synonyms import Synonym
    from flujo.blueprint.language.traversal import Path
    from flujo.blueprint.reading.source_map import Document

__all__ = ["CompiledSchema", "check", "compile_schema"]

L = TypeVar("L", bound=Strict)

SCHEMA_KEYS = frozenset({"input_schema", "context_schema", "output_schema", "answer_schema", "event_schema"})
_FREE_KEYS = frozenset(
    {
        *("with", "input", "files", "output", "model_settings", "answer", "initial", "mcp", "capabilities"),
        *("metadata", "expected", "inputs", "expected_output"),
    }
)
"""Keys that hold arbitrary data, which is not part of the language."""

_SYNONYMS: dict[type[BaseModel], Mapping[str, Synonym]] = {
    KINDS["conditional"]: synonyms.OF_CONDITIONALS,
    BaseStep: synonyms.OF_STEPS,
    Agent: synonyms.OF_AGENTS,
    Config: synonyms.OF_CONFIG,
    Blueprint: synonyms.OF_BLUEPRINTS,
}

_WANTED = {
    "string_type": "a text",
    "bool_type": "`true` or `false`",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_LIMITS = {
    "greater_than": ("gt", "must be above {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than_equal": ("le", "must be at most {}"),
}
_SLUGS = {rule.slug: rule for rule in RULES.values()}


@dataclass(frozen=True)
class Validated(Generic[L]):
    """A validated document, or its errors."""

    said: L | None
    """None if there is any error, including errors in the YAML."""
    found: tuple[Diagnostic, ...] = ()
    errors: tuple[Any, ...] = ()
    """The errors of pydantic."""
    unfit: tuple[Path, ...] = ()
    """The paths of invalid JSON Schemas."""


def check(document: Document) -> tuple[Blueprint | None, list[Diagnostic]]:
    """Return the blueprint, or None, and the findings about its document; see `judge`."""
    judged = validate(Blueprint, document)
    return judged.said, list(judged.found)


def validate(language: type[L], document: Document) -> Validated[L]:
    """Validate a document as a blueprint or as a file of agents.

    Findings of the reader are not repeated: a document that could not be read gets no more findings, and a
    line with an error in its YAML gets no other ones.
    """
    if not isinstance(document.data, dict):
        return Validated(None)
    said, errors = _fit(language, document.data)
    first = errors[: MAX_FINDINGS + 1]  # one above the limit, so that the overflow is detected
    found = [finding(language, document, one) for one in _causes(language, document.data, first)]
    found += _lookalikes(language, document, errors)
    schemas = list(_schemas(document))
    found += [one for _, one in schemas]
    unfit = tuple(path for path, one in schemas if one.is_error)
    broken = {one.span.line for one in document.diagnostics if one.is_error}
    found = sorted({f for f in found if f.span.line not in broken}, key=lambda f: (f.span, f.code))
    is_sound = not broken and not any(one.is_error for one in found)
    found = list(bounded(found))
    return Validated(said if is_sound else None, tuple(found), tuple(errors), unfit)


def _causes(language: Language, data: Any, errors: list[Any]) -> Iterator[Any]:
    """Yield the errors that do not follow from another one: a misspelt key is not also missing.

    If `kind` is misspelt, the allowed keys of the step are unknown. Invalid schemas have their own finding.
    """
    meant: dict[tuple[Any, ...], Path] = {}
    for error in errors:
        if error["type"] == "extra_forbidden":
            above = path_of(error["loc"])[:-1]
            meant[*above, meant_key(language, error["loc"], _at(data, above))] = path_of(error["loc"])
    for error in errors:
        path = path_of(error["loc"])
        kinds = ((*path[:length], "kind") for length in range(len(path) + 1))
        kind = next((meant[one] for one in kinds if one in meant), path)
        is_schema = path[-1:] and path[-1] in SCHEMA_KEYS and error["type"] == "dict_type"
        if kind == path and not is_schema and not (error["type"] == "missing" and path in meant):
            yield error


def _fit(language: type[L], data: Any) -> tuple[L | None, list[Any]]:
    """Return the validated data, or None and pydantic's errors."""
    try:
        return language.model_validate(data), []
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=True)


# One error -----------------------------------------------------------------------------------------------


def finding(language: Language, document: Document, error: Any) -> Diagnostic:
    """Return the finding for one of pydantic's errors."""
    loc, kind, value = error["loc"], error["type"], error["input"]
    path = path_of(loc)
    if path in document.lookalikes and kind in (*_WANTED, "flujo"):
        return _ambiguous(document, path)
    if path == ("version",) and kind != "missing":
        return _version(document, value)
    match kind:
        case "flujo":
            return _own(document, loc, path, error["ctx"])
        case "extra_forbidden":
            return _unknown_key(language, document, loc, path)
        case "missing":
            message = f"{_named(language, loc[:-1])} needs `{path[-1]}`"
            return rules.MISSING_KEY.at(document.span(path[:-1]), message, hint=f"add `{path[-1]}:`")
        case "union_tag_invalid":
            return _unknown_kind(document, path, value)
        case "literal_error":
            choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            message = f"`{_last(path)}` must be {one_of(choices)}, not {_shown(value)}"
            meant = nearest(str(value), choices)
            return rules.WRONG_VALUE.at(
                document.span(path),
                message,
                hint=did_you_mean(str(value), choices),
                fix=Fix(document.span(path), meant) if meant is not None else None,
            )
        case _:
            return _wrong_value(document, path, error)


def _wrong_value(document: Document, path: Path, error: Any) -> Diagnostic:
    kind, value = error["type"], error["input"]
    if kind in _WANTED:
        return _wrong_type(document, path, value, _WANTED[kind])
    if kind == "too_short":
        return rules.WRONG_VALUE.at(document.span(path), needs_entries(str(_last(path))))
    limit, words = _LIMITS.get(kind, ("", "has a value that is not allowed here"))
    message = f"`{_last(path)}` {words.format(error.get('ctx', {}).get(limit, ''))}"
    return rules.WRONG_VALUE.at(document.span(path), message)


def _own(document: Document, loc: Path, path: Path, facts: dict[str, Any]) -> Diagnostic:
    rule = _SLUGS[facts["rule"]]
    if facts["key"] is not None:
        span = document.span((*path, facts["key"]), key=True)
    else:
        is_key = loc[-1:] == ("[key]",) or rule is rules.WRONG_TYPE
        span = document.span(path, key=is_key)
    return rule.at(span, visible_line(facts["message"]), hint=facts["hint"] or None)


def _unknown_key(language: Language, document: Document, loc: Path, path: Path) -> Diagnostic:
    key = str(path[-1])
    model = model_at(language, loc[:-1])
    span = document.span(path, key=True)
    message = f"`{visible_line(key)}` is not a key of {_named(language, loc[:-1])}"
    meant = meant_key(language, loc, _at(document.data, path[:-1]))
    if meant is not None:
        synonym = _synonym(model, key)
        hint = f"did you mean `{meant}`?" if synonym is None else synonym.hint
        return rules.UNKNOWN_KEY.at(span, message, hint=hint, fix=Fix(span, meant))
    synonym = _synonym(model, key)
    if synonym is not None:
        return rules.UNKNOWN_KEY.at(span, message, hint=synonym.hint)
    hint = _home(key, model) or suggest(key, keys_of(model) if model else [], what="keys")
    return rules.UNKNOWN_KEY.at(span, message, hint=hint)


def meant_key(language: Language, loc: Path, mapping: Mapping[str, Any]) -> str | None:
    """Return the most likely intended key for an unknown one, unless the mapping has it already."""
    model = model_at(language, loc[:-1])
    key = str(loc[-1])
    if model is None:
        return None
    keys = keys_of(model)
    synonym = _synonym(model, key)
    if synonym is not None:
        return synonym.meant if synonym.meant in keys and synonym.meant not in mapping else None
    if _home(key, model) is not None:  # then only for a required key
        keys = [
            alias for alias, one in zip(keys, model.model_fields.values(), strict=True) if one.is_required()
        ]
    near = nearest(key, keys)
    return near if near not in mapping else None


def _synonym(model: type[BaseModel] | None, key: str) -> Synonym | None:
    """Return what to write instead of a key of another tool."""
    if model is None:
        return None
    words = next((words for base, words in _SYNONYMS.items() if issubclass(model, base)), {})
    return words.get(key)


def meant_kind(kind: str) -> str | None:
    """Return the most likely intended kind for an unknown one."""
    return synonyms.KINDS.get(kind.lower()) or nearest(kind, KINDS)


def _home(key: str, model: type[BaseModel] | None) -> str | None:
    """Return a hint about where a misplaced key belongs."""
    if model is Agent and key in MODEL_SETTINGS:
        return f"move `{key}` below `model_settings:`"
    if model is None or not issubclass(model, BaseStep):
        return None
    if key in Config.model_fields:
        return f"move `{key}` below `config:`"
    kinds = [kind for kind, other in KINDS.items() if key in keys_of(other)]
    if kinds:
        return (
            f"`{key}` belongs to `kind: {kinds[0]}`"
            if len(kinds) == 1
            else f"it belongs to kinds {one_of(kinds)}"
        )
    return f"`{key}` belongs to an agent, below `agents:`" if key in keys_of(Agent) else None


def _unknown_kind(document: Document, path: Path, value: Any) -> Diagnostic:
    kind = value.get("kind") if isinstance(value, dict) else None
    span = document.span((*path, "kind"))
    if not isinstance(kind, str):
        return _wrong_type(document, (*path, "kind"), kind, "a text")
    meant = meant_kind(kind)
    near = None if meant is None else f"did you mean `{meant}`?"
    hint = (
        f"{near} Kinds: {one_of(KINDS, joined_by='and', most=len(KINDS))}"
        if near
        else f"kinds: {one_of(KINDS, joined_by='and', most=len(KINDS))}"
    )
    fix = Fix(span, meant) if meant is not None else None
    return rules.UNKNOWN_KIND.at(span, f"unknown kind of step `{visible_line(kind)}`", hint=hint, fix=fix)


def _version(document: Document, value: Any) -> Diagnostic:
    message = f'unsupported language version {_shown(value)}; this Flujo reads version "1"'
    span = document.span(("version",))
    return rules.VERSION.at(span, message, hint='write `version: "1"`, or upgrade Flujo')


def _wrong_type(document: Document, path: Path, value: Any, wanted: str) -> Diagnostic:
    where = f"an entry of `{_last(path)}`" if isinstance(path[-1], int) else f"`{_last(path)}`"
    found = _shown(value) if wanted == "a whole number" else kind_of(value)
    message = f"{where} must be {wanted}, not {found}"
    span = document.span(path, key=isinstance(value, dict | list) and bool(path))
    return rules.WRONG_TYPE.at(span, message, hint=_conversion(path, value, wanted))


def _conversion(path: Path, value: Any, wanted: str) -> str | None:
    """Return a hint how to write a value as the required type, if there is a simple way."""
    if path[-2:-1] == ("carry",) and wanted == "a mapping":
        name, first = path[-1], json_short(value)
        return f"write `{name}: {{initial: {first}, next: …}}`; `next` reads the last value as `loop.{name}`"
    if path[-1:] == ("over",) and isinstance(value, list):
        return f"write the list as an expression, in quotes: `over: '{json_short(value)}'`"
    if wanted == "a text" and isinstance(value, bool | int | float):
        return f'quote it: "{str(value).lower() if isinstance(value, bool) else value}"'
    if wanted == "a list" and isinstance(value, str | dict):
        return "put it in a list: `- …`, or `[…]`"
    if value is None:
        return "write a value, or remove the key"
    return None


# Look-alikes ---------------------------------------------------------------------------------------------


def _lookalikes(language: Language, document: Document, errors: list[Any]) -> Iterator[Diagnostic]:
    """Yield a finding for each unquoted `no` or `012` at a place that allows types other than text.

    To find out whether a place allows only text, `false` is put there: then validation must fail.
    """
    wrong = {path_of(error["loc"]) for error in errors}
    # The value of a non-text key has no place in the data.
    there = [path for path in document.lookalikes if document.node(path) is not None]
    open_ = [path for path in there if not any(path[: len(w)] == w for w in wrong)]
    if not open_:
        return
    _, complaints = _fit(language, _with_false(document.data, (), _prefixes(open_)))
    only_text = {path_of(error["loc"]) for error in complaints}
    for path in open_:
        # A date is text in JSON, so a place that allows any value reads it as text.
        if path not in only_text and not is_date(str(_at(document.data, path))):
            yield _ambiguous(document, path)


def _ambiguous(document: Document, path: Path) -> Diagnostic:
    text = str(_at(document.data, path))
    message = f'YAML parsers read `{text}` differently; Flujo reads it as the text "{text}"'
    hint = f'write {document.lookalikes[path]}, or quote it ("{text}") if you mean the text'
    return rules.AMBIGUOUS_SCALAR.at(document.span(path), message, hint=hint.replace(",,", ","))


def _prefixes(paths: Iterable[Path]) -> dict[Path, bool]:
    """Return every prefix of some paths, with whether it is one of the paths."""
    found: dict[Path, bool] = {}
    for path in paths:
        found |= {path[:length]: False for length in range(len(path))} | {path: True}
    return found


def _with_false(data: Any, path: Path, places: Mapping[Path, bool]) -> Any:
    """Return data with `false` at some places."""
    if path not in places:
        return data
    if places[path]:
        return False
    if isinstance(data, list):
        return [_with_false(item, (*path, index), places) for index, item in enumerate(data)]
    return {key: _with_false(value, (*path, key), places) for key, value in data.items()}


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


# JSON Schemas --------------------------------------------------------------------------------------------


def schema_places(data: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the places of the JSON Schemas in a document's data."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from schema_places(item, (*path, index))
    elif isinstance(data, dict):
        for key, value in data.items():
            if key in SCHEMA_KEYS and value is not None:
                yield (*path, key)
            elif key not in _FREE_KEYS:
                yield from schema_places(value, (*path, key))


def _schemas(document: Document) -> Iterator[tuple[Path, Diagnostic]]:
    """Yield the findings about the JSON Schemas of a document, each with the place of the schema."""
    for place in schema_places(document.data):
        value = _at(document.data, place)
        if not isinstance(value, dict):
            message = f"`{place[-1]}` is a JSON Schema, so it must be an object, not {kind_of(value)}"
            yield place, rules.SCHEMA_TYPE.at(document.span(place), message)
            continue
        for found in problems(fixed(value) if place[-1] == "answer_schema" else value):
            span = document.span((*place, *found.path), key=found.key)
            said = visible_line(found.message)
            yield place, found.rule.at(span, said, hint=found.hint, severity=found.severity)


# Places and names ----------------------------------------------------------------------------------------


_WORDS: dict[Any, str] = {
    Blueprint: "a blueprint",
    AgentsFile: "a file of agents",
    Agent: "an agent",
    CasesFile: "a file of cases",
    Case: "a case",
    Evaluator: "an evaluator",
    Threshold: "a threshold",
    Dataset: "a dataset",
    DatasetCase: "a case of pydantic-evals",
}


def _named(language: Language, loc: Path) -> str:
    """Return a name for the mapping at a location: "a step of kind `loop`", "an agent", "`config`"."""
    model = model_at(language, loc)
    if model in _WORDS:
        return _WORDS[model]
    kind = next((kind for kind, step in KINDS.items() if step is model), None)
    if kind is not None:
        return "a step" if kind == "step" else f"a step of kind `{kind}`"
    return f"`{_last(path_of(loc))}`"


def _last(path: Path) -> str:
    """Return the last key of a path, without list indexes."""
    names = [str(part) for part in path if isinstance(part, str)]
    return visible_line(names[-1]) if names else "the value"


def _shown(value: Any) -> str:
    text = f"`{value}`" if isinstance(value, str | int | float) and len(str(value)) <= 40 else kind_of(value)
    return visible_line(text)
