"""Reads the answer of a model: text -> values -> the one that fits, or a refusal with its reason.

An answer is true or refused; it is never a plausible other value. The rules:

1. A text that is JSON as a whole has one value. It is never changed if it fits.
2. Reasoning (`<think>…</think>`, a lone closing tag) is set aside, at every level.
3. Otherwise each value starts at a bracket outside of all others and ends where that bracket is closed.
   Broken JSON is repaired as a whole; what is inside it is not a value of its own. Unclosed JSON is cut off.
4. A correction ("Corrected:", "Wait, …") withdraws the values before it. Of the rest, the ones that fit
   count. If two different values or readings remain, the answer is refused.
5. Types are corrected by `flujo.json_schema.coercion`, where their meaning is certain.
6. White space is not an answer, and a value that the journal cannot hold (NUL, half a surrogate pair) does
   not fit.

Three levels of tolerance. 0: only JSON is accepted. 1: code fences and prose around the JSON are removed, and
types are corrected. 2: broken JSON is repaired where its damage has one certain repair.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from unicodedata import category

from flujo.agents import damaged_json
from flujo.agents.answer_text import NO_VALUE, Answer, Piece, closed_by_fence, take_apart, without_reasoning
from flujo.domain import canonical
from flujo.domain.wording import json_short, short, size
from flujo.exceptions import AgentError, NotJournalable, OutputRejected
from flujo.json_schema import strict_json
from flujo.json_schema.coercion import is_closed
from flujo.json_schema.complexity import DATA, SchemaTooComplex, check_complexity, referred
from flujo.json_schema.re2_patterns import PatternRefused
from flujo.json_schema.validator import Validator

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64

_FENCE = re.compile(r"\s*```[ \t]*\w*[ \t]*\r?\n?(.*?)```\s*", re.DOTALL)
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)  # an open one runs to the end: linear time
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_SHARED = ("$defs", "definitions")

_REASONING = "set the reasoning aside"
_UNFENCED = "extracted the JSON from a code fence"
_EXTRACTED = "removed the text around the JSON"
_REPAIRED = "repaired broken JSON"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that fits, and the repairs that it needed, in order."""

    value: Any
    repairs: tuple[str, ...] = ()


class OutputReader:
    """Reads answers against one JSON Schema (2020-12, no remote references).

    Providers' JSON modes require an object at the root. For any other schema, the model writes an object with
    the field `value`, and the reader returns that field.

    Args:
        schema: the JSON Schema of the value; None for any text.
        level: 0 strict · 1 strip and coerce · 2 also repair.

    Raises:
        AgentError: `schema` is not a JSON Schema.
    """

    def __init__(self, schema: Any, *, level: int) -> None:
        self.level = level
        self.is_text = schema is None or _is_plain_text(schema)
        """Whether the answer is plain text, not JSON."""
        self._validator = None if schema is None else _validator(schema)
        plain = _without_root_reference(schema)
        self.is_wrapped = not self.is_text and not _is_object(plain)
        self.asked_schema: Any = _wrapped(schema) if self.is_wrapped else plain
        """The schema that is sent to the model."""
        self._is_scalar = self.is_wrapped and is_closed(schema, schema)

    def read(self, text: str) -> Reading:
        """Return the only value that an answer can mean.

        Raises:
            OutputRejected: there is none, or there are several; `reason` is why, `answer` is the start of the
                text.
        """
        if all(character.isspace() or category(character) == "Cf" for character in text):
            raise _rejected(text, "it is empty")
        if self.is_text:
            return self._text(text)
        _refuse_size(text)
        try:
            value = strict_json.loads(text)
        except ValueError as error:
            return self._inside(text, take_apart(text), f"it is not JSON: {error}")
        return self._fitted(text, value, ())

    def _text(self, text: str) -> Reading:
        answer = without_reasoning(text)
        if answer is None or not answer.strip():
            raise _rejected(text, "it contains only reasoning")
        return self._fitted(text, answer, () if answer == text else (_REASONING,))

    def _inside(self, text: str, answer: Answer, not_json: str) -> Reading:
        """Return the value inside a text that is not JSON as a whole."""
        notes = (_REASONING,) if answer.has_reasoning else ()
        if self.level < 1:
            rest = answer.prose if not answer.pieces else answer.pieces[0].text
            is_alone = len(answer.pieces) == (not answer.prose.strip()) and answer.problem is None
            if not (answer.has_reasoning and is_alone):
                raise _rejected(text, not_json)
            return self._fitted(text, _strict(text, rest), notes)
        if answer.problem is not None:
            raise _rejected(text, answer.problem)
        return self._chosen(text, answer, notes) if answer.pieces else self._bare(text, answer.prose, notes)

    def _bare(self, text: str, prose: str, notes: tuple[str, ...]) -> Reading:
        """Return the value of a text without brackets: `42`, also in a code fence."""
        fence = _FENCE.fullmatch(prose)
        bare = prose.strip() if fence is None else fence[1].strip()
        notes += () if fence is None else (_UNFENCED,)
        try:
            return self._fitted(text, strict_json.loads(bare), notes)
        except ValueError:
            if not self._is_scalar:
                raise _rejected(text, "it contains no JSON") from None
        return self._fitted(text, bare, (*notes, "used the text as the value"))

    def _chosen(self, text: str, answer: Answer, notes: tuple[str, ...]) -> Reading:
        """Return the only reading of an answer's values that fits."""
        found: dict[str, tuple[Reading, bool]] = {}
        reasons: list[str] = []
        is_unread = False
        around = _around(answer)
        for piece in answer.pieces:
            readings = _readings(piece)
            if not readings and piece.looks_like_json:
                is_unread = True
                reasons.append(_why_broken(piece))
            for each in readings:
                is_broken = piece.value is NO_VALUE
                how = (_REPAIRED,) if is_broken else around
                try:
                    reading = self._fitted(text, each.value, notes + how)
                except OutputRejected as error:
                    reasons.append(error.reason or error.message)
                else:
                    key = canonical.encode(reading.value).decode()
                    is_usable = not each.is_doubtful and (not is_broken or self.level >= 2)
                    if key not in found or is_usable:
                        found[key] = reading, is_usable
        if len(found) + is_unread > 1:
            shown = [json_short(reading.value) for reading, _ in found.values()]
            raise _rejected(text, f"it has two answers: {' and '.join([*shown, 'a broken one'][:2])}")
        if not found:
            raise _rejected(text, reasons[0] if reasons else "it contains no JSON")
        ((reading, is_usable),) = found.values()
        if not is_usable:
            raise _rejected(text, "its JSON is broken, and it is not certain how to repair it")
        return reading

    def _fitted(self, text: str, value: Any, repairs: tuple[str, ...]) -> Reading:
        """Return `value` as a reading, coerced where necessary."""
        if self.is_wrapped and isinstance(value, dict) and list(value) == ["value"]:
            try:
                return self._valid(text, value["value"], repairs)
            except OutputRejected:
                pass
        return self._valid(text, value, repairs)

    def _valid(self, text: str, value: Any, repairs: tuple[str, ...]) -> Reading:
        try:
            canonical.encode(value, what="the value")
        except NotJournalable as error:
            place = f"`{error.path}`" if error.path else "the value"
            raise _rejected(text, f"{place}: {error.message.rpartition(': ')[2]}") from error
        if self._validator is None:
            return Reading(value, repairs)
        notes: tuple[str, ...] = ()
        try:
            if self.level >= 1 and not self.is_text:
                value, notes = self._validator.coerced(value)
            found = list(islice(self._validator.violations(value), 5))
            if not found:
                value = self._validator.declared(value)
        except Exception as error:  # references are resolved here; their errors share no class
            raise _rejected(text, f"the schema cannot be applied: {error}") from error
        if found:
            raise _rejected(text, "; ".join(found))
        return Reading(value, repairs + notes)


def _around(answer: Answer) -> tuple[str, ...]:
    if len(answer.pieces) == 1 and not answer.prose.strip():
        return ()
    return (_UNFENCED if "```" in answer.prose else _EXTRACTED,)


def _readings(piece: Piece) -> list[damaged_json.Repaired]:
    """Return the values that one piece of an answer can mean."""
    if piece.value is not NO_VALUE:
        return [damaged_json.Repaired(piece.value, is_doubtful=False)]
    text = piece.text if piece.is_complete else closed_by_fence(piece)
    return [] if text is None else damaged_json.readings(text)


def _why_broken(piece: Piece) -> str:
    if not piece.is_complete:
        return "it ends before its JSON is complete"
    try:
        strict_json.loads(piece.text)
    except ValueError as error:
        return f"its JSON is broken: {error}"
    return "its JSON is broken"


def _strict(text: str, rest: str) -> Any:
    try:
        return strict_json.loads(rest)
    except ValueError as error:
        raise _rejected(text, f"it is not JSON: {error}") from error


def _refuse_size(text: str) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _rejected(text, f"it is larger than {size(MAX_BYTES)}")
    depth = deepest = 0
    for character in _STRINGS.sub("", text):
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    if deepest > MAX_DEPTH:
        raise _rejected(text, f"it is nested {deepest} levels deep, more than {MAX_DEPTH}")


def _rejected(text: str, reason: str) -> OutputRejected:
    start = short(text, 200)
    return OutputRejected(
        f"the answer does not fit the output schema: {reason}; it starts with {start!r}",
        hint="make `instructions` more precise, make the schema simpler, or use a larger model",
        reason=reason,
        answer=start,
    )


def _validator(schema: Any) -> Any:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        check_complexity(schema)
        Draft202012Validator.check_schema(schema)
    except (SchemaTooComplex, RecursionError) as error:
        raise AgentError(
            f"the output schema is too complex: {error}",
            hint="merge alternatives, or divide the value into fields",
        ) from error
    except SchemaError as error:
        raise AgentError(
            f"the output schema is not a JSON Schema: {error.message}",
            hint="see the JSON Schema 2020-12 specification",
        ) from error
    try:
        return Validator(schema)
    except PatternRefused as refused:
        raise AgentError(
            f"the output schema has a pattern that is not supported: {refused}",
            hint="write it without lookaround and backreferences, which can take very long to match",
        ) from refused


def _is_plain_text(schema: Any) -> bool:
    return (
        isinstance(schema, Mapping) and schema.get("type") == "string" and not {"enum", "const"} & set(schema)
    )


def _is_object(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (schema.get("type") == "object" or "properties" in schema)


def _without_root_reference(schema: Any) -> Any:
    """Return a schema whose root is only a reference as that schema, with all definitions."""
    here = schema
    for _ in range(MAX_DEPTH):
        if (
            not isinstance(here, Mapping)
            or "$ref" not in here
            or here.keys() & {"anyOf", "oneOf", "allOf", "if"}
        ):
            break
        here = referred(here["$ref"], schema)
    if here is schema or not _is_object(here):
        return schema
    return {**{key: schema[key] for key in _SHARED if key in schema}, **here}


def _wrapped(schema: Any) -> dict[str, Any]:
    """Return the schema of an object whose only field `value` has `schema`; definitions stay at the root."""
    moved = _moved(schema)
    shared = {key: moved.pop(key) for key in _SHARED if isinstance(moved, dict) and key in moved}
    return {
        "type": "object",
        "properties": {"value": moved},
        "required": ["value"],
        "additionalProperties": False,
        **shared,
    }


def _moved(schema: Any) -> Any:
    """Return a copy of a schema in which references to its root point to the field `value`."""
    if isinstance(schema, list):
        return [_moved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, inner in schema.items():
        if key in _NAMED and isinstance(inner, dict):
            moved[key] = {name: _moved(each) for name, each in inner.items()}
        elif key == "$ref" and isinstance(inner, str):
            is_shared = inner.startswith(tuple(f"#/{each}/" for each in _SHARED))
            is_pointer = inner == "#" or inner.startswith("#/")
            moved[key] = f"#/properties/value{inner[1:]}" if is_pointer and not is_shared else inner
        else:
            moved[key] = inner if key in DATA else _moved(inner)
    return moved
