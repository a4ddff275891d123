"""The fields of a form as a template shows them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from flujo.domain.wording import size
from flujo.governance.screen import visible_line
from flujo.serve.forms.shapes import INPUT_TYPES, Kind
from flujo.serve.forms.values import ROOT, key_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.serve.forms.shapes import Shape

_LIMITS = {
    "minimum": "min",
    "maximum": "max",
    "minLength": "minlength",
    "maxLength": "maxlength",
    "multipleOf": "step",
}
_MOST_RADIOS = 4


@dataclass(frozen=True, slots=True)
class Field:
    """One field with its texts, or a group of fields."""

    control: str
    """`input`, `textarea`, `radios`, `select`, `fixed`, `object`, `list`, `union`, `file` or `json`."""
    name: str
    id: str
    """For HTML; its description has `-about`, its problems have `-wrong` after it."""
    label: str
    description: str
    required: bool
    value: str
    """The text in the field; of a fixed value, how it is shown."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The type and the limits of an HTML field."""
    options: Sequence[tuple[str, str, bool]] = ()
    """The values of a choice: what is sent, what is shown, and whether it is chosen."""
    problems: Sequence[str] = ()
    fields: Sequence[Field] = ()
    """Those of the members of an object, of the rows of a list, or of the chosen variant."""
    nullable: bool = False
    """Whether no value at all can be chosen."""
    is_null: bool = False
    schema: str = ""
    """The schema of a field for JSON."""
    file_name: str = ""
    """The name that an uploaded file had on the machine of the person."""
    file_size: str = ""

    @property
    def described_by(self) -> str:
        """The ids of the texts that describe it."""
        parts = [f"{self.id}-wrong"] if self.problems else []
        return " ".join([*parts, *([f"{self.id}-about"] if self.description else [])])


def form_fields(
    shape: Shape,
    data: Mapping[str, str],
    problems: Mapping[str, Sequence[str]],
    prefix: str,
    root: str = ROOT,
) -> Field:
    """Return the fields of a form.

    Args:
        shape: what can be filled in.
        data: the texts of the fields by name.
        problems: what is wrong, by the name of the field.
        prefix: the beginning of the ids, unique in the page.
        root: the name of the field for the whole.
    """
    return _Builder(data, problems, (f"{prefix}-{number}" for number in count(1))).field(
        shape, root, shape.label or "Answer", required=True
    )


@dataclass(frozen=True, slots=True)
class _Builder:
    data: Mapping[str, str]
    problems: Mapping[str, Sequence[str]]
    ids: Iterator[str]

    def field(self, shape: Shape, key: str, label: str, *, required: bool) -> Field:
        """Return the field of a value."""
        more: dict[str, Any] = {}
        match shape.kind:
            case Kind.OBJECT:
                control = "object"
            case Kind.LIST:
                control = "list"
            case Kind.UNION:
                control, more = "union", {"options": self._variants(shape, key)}
            case Kind.CHOICE:
                few = required and not shape.nullable and len(shape.options) <= _MOST_RADIOS
                control, more = ("radios" if few else "select"), {"options": self._options(shape, key)}
            case Kind.FIXED:
                control, more = "fixed", {"value": shape.options[0].label}
            case Kind.JSON:
                control = "json"
                more = {"schema": json.dumps(shape.schema, ensure_ascii=False, indent=2)}
            case Kind.FILE:
                control, more = "file", self._file(key)
            case Kind.LONG_TEXT:
                control = "textarea"
            case _:
                control = "textarea" if "\n" in self.data.get(key, "") else "input"
        return Field(
            control=control,
            name=key,
            id=next(self.ids),
            label=label,
            description=shape.description,
            required=required and not shape.nullable,
            **{"value": self.data.get(key, ""), "attributes": _attributes(shape), **more},
            problems=self.problems.get(key, ()),
            fields=tuple(self._inside(shape, key, required=required and not shape.nullable)),
            nullable=shape.nullable,
            is_null=f"{key}#null" in self.data,
        )

    def _inside(self, shape: Shape, key: str, *, required: bool) -> Iterator[Field]:
        """Yield the fields inside; a browser demands none of a value that may be left out as a whole."""
        for name, inner, is_needed in shape.members:
            yield self.field(inner, key_of(key, name), inner.label or name, required=required and is_needed)
        if shape.item is not None:
            for row in range(rows_of(self.data, key)):
                label = f"{shape.item.label or 'Row'} {row + 1}"
                yield self.field(shape.item, key_of(key, row), label, required=False)
        chosen = self.data.get(f"{key}#which", "")
        if shape.kind is Kind.UNION and chosen.isdecimal() and int(chosen) < len(shape.variants):
            variant = shape.variants[int(chosen)]
            yield self.field(variant, key, variant.label, required=required)

    def _file(self, key: str) -> dict[str, str]:
        """Return how an uploaded file is shown."""
        shown = {"file_name": visible_line(self.data.get(f"{key}#name", ""))}
        with suppress(ValueError, TypeError, KeyError):
            shown["file_size"] = size(int(json.loads(self.data.get(key, ""))["size"]))
        return shown

    def _options(self, shape: Shape, key: str) -> list[tuple[str, str, bool]]:
        chosen = self.data.get(key)
        return [(str(n), option.label, chosen == str(n)) for n, option in enumerate(shape.options)]

    def _variants(self, shape: Shape, key: str) -> list[tuple[str, str, bool]]:
        chosen = self.data.get(f"{key}#which")
        return [(str(n), variant.label, chosen == str(n)) for n, variant in enumerate(shape.variants)]


def _attributes(shape: Shape) -> dict[str, str]:
    """Return the type and the limits of an HTML field; the server checks all of them again."""
    schema = shape.schema
    if shape.kind not in (Kind.TEXT, Kind.LONG_TEXT, Kind.INTEGER, Kind.NUMBER):
        return {}
    found = {html: str(schema[name]) for name, html in _LIMITS.items() if name in schema}
    if shape.kind is Kind.TEXT:
        found["type"] = INPUT_TYPES.get(schema.get("format", ""), "text")
        if schema.get("format") == "date-time":
            found["placeholder"] = "2026-11-30T09:30:00Z"
    elif shape.kind in (Kind.INTEGER, Kind.NUMBER):
        found = {"step": "1" if shape.kind is Kind.INTEGER else "any", **found}
        found |= {"type": "number", "inputmode": "numeric" if shape.kind is Kind.INTEGER else "decimal"}
    return found
