"""How many tokens a prompt has: counted where its values are known, and assumed where they are not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions.evaluators import check_expression
from flujo.blueprint.expressions.templates import scan
from flujo.blueprint.schemas.algebra import closed
from flujo.domain import canonical
from flujo.domain.values import Text
from flujo.services.forecast.spans import NOTHING, Span, total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.domain.values import Value

UNKNOWN_TOKENS = 4_000
"""The assumed greatest length of a value that is not known before the run, in tokens."""

_LONGEST_TOKEN, _SHORTEST_TOKEN = 6, 2
"""Bytes of text for a token: a text of English has about 4, one of another alphabet fewer."""
_AROUND = Span(3, 256)
"""Tokens that a provider adds to a request: roles, separators, a sentence about JSON."""

_CHAIN = re.compile(r"\s*([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*|\[\d+\])*)\s*")
_LINK = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
_MISSING: Any = object()


@dataclass(slots=True)
class Known:
    """What is known of the names in expressions before a run."""

    input: Any = _MISSING
    previous: Span | None = None
    """The bytes of the output of the step before; None if they are not known."""
    outputs: dict[str, Span | None] = field(default_factory=dict)
    """The bytes of the outputs of steps, by their names."""
    input_schema: Any = None
    previous_schema: Any = None
    schemas: dict[str, Any] = field(default_factory=dict)
    """The schemas of the outputs of steps; None: nothing declares it."""

    def after(self, name: str, size: Span | None, schema: Any) -> None:
        """Take the output of a step: what follows sees it by its name, and the next step as `previous`."""
        self.previous = self.outputs[name] = size
        self.previous_schema = self.schemas[name] = schema

    def inside(self) -> Known:
        """Return what the steps of a body know of what is around it."""
        return replace(
            self,
            previous=None,
            previous_schema=None,
            outputs=dict(self.outputs),
            schemas=dict(self.schemas),
        )

    def bytes_of(self, source: str) -> Span | None:
        """Return how long the value of an expression is; None if that is not known."""
        matched = _CHAIN.fullmatch(source)
        if matched is None:
            return None
        root, links = matched.groups()
        if root == "previous":
            return self.previous if not links or self.previous is None else self.previous.or_nothing()
        if root == "steps" and (named := re.match(r"\.(\w+)\.output", links)):
            return self.outputs.get(named[1])
        value = self.value_of(source)
        return None if value is _MISSING else _length(value)

    def count_of(self, source: str) -> Span | None:
        """Return how many items the list has that an expression gives; None if that is not known."""
        value = self.value_of(source)
        if value is not _MISSING:
            return Span(len(value), len(value)) if isinstance(value, list) else None
        steps = closed({name: closed({"output": schema}) for name, schema in self.schemas.items()})
        names = {"input": self.input_schema, "previous": self.previous_schema, "steps": steps}
        schema = check_expression(source, closed(names)).schema
        if not isinstance(schema, dict) or schema.get("type") != "array":
            return None
        return Span(schema.get("minItems", 0), schema.get("maxItems"))

    def value_of(self, source: str) -> Any:
        """Return the value of a part of the input."""
        matched = _CHAIN.fullmatch(source)
        if matched is None or matched[1] != "input":
            return _MISSING
        value = self.input
        for name, index in _LINK.findall(matched[2]):
            try:
                value = value[name] if name else value[int(index)]
            except (KeyError, IndexError, TypeError):
                return _MISSING
        return value


def tokens_of_bytes(size: Span) -> Span:
    """Return how many tokens a text of this many bytes may have."""
    most = None if size.most is None else math.ceil(size.most / _SHORTEST_TOKEN)
    return Span(size.least // _LONGEST_TOKEN, most)


def bytes_of_tokens(tokens: int | None) -> Span:
    """Return how long an answer of up to this many tokens may be."""
    return Span(1, None if tokens is None else tokens * _LONGEST_TOKEN)


def tokens_of(values: Iterable[Value], fixed: Iterable[Any], known: Known) -> tuple[Span, bool]:
    """Return the tokens of a request, and whether they are assumed in part.

    Args:
        values: texts with placeholders, and data that consists of them.
        fixed: what is sent as it is, such as a schema.
        known: what is known of the names in placeholders.
    """
    sizes = [_size(value, known) for value in values]
    sent = total(tokens_of_bytes(size) for size, _ in sizes)
    unknown = sum(count for _, count in sizes)
    as_it_is = total(tokens_of_bytes(_length(each)) for each in fixed if each is not None)
    return sent + as_it_is + Span(0, unknown * UNKNOWN_TOKENS) + _AROUND, unknown > 0


def _size(value: Value, known: Known) -> tuple[Span, int]:
    """Return the bytes of a value, and how many placeholders in it have values of unknown length."""
    if isinstance(value, Text) and not value.literal:
        found, unknown = NOTHING, 0
        for piece in scan(value.source).pieces:
            size = known.bytes_of(piece.source) if piece.code else _length(piece.source)
            if size is None or size.most is None:
                unknown += 1
            found += size if size is not None and size.most is not None else NOTHING
        return found, unknown
    if isinstance(value, Text):
        return _length(value.source), 0
    if isinstance(value, Mapping):
        inner = [_size(each, known) for each in value.values()]
        return total(size for size, _ in inner) + _length(list(value)), sum(count for _, count in inner)
    if isinstance(value, tuple):
        inner = [_size(each, known) for each in value]
        return total(size for size, _ in inner), sum(count for _, count in inner)
    return (NOTHING if value is None else _length(value)), 0


def _length(value: Any) -> Span:
    size = len(value.encode()) if isinstance(value, str) else len(canonical.encode(value))
    return Span(size, size)
