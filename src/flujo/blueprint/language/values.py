"""The types of single values in the language: durations, identifiers, expressions, callables.

Constraints beyond JSON types are annotated types: a validator, and the JSON Schema for editors.
"""

# No `from __future__ import annotations`: pydantic reads these annotations at run time.

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from flujo.blueprint.diagnostics import suggest
from flujo.blueprint.language.roles import Role, Sees, Site
from flujo.domain.checks import MAX_NAME, branch_problem, name_problem
from flujo.domain.merge import MergeStrategy
from flujo.domain.schedules import NAME as SCHEDULE_NAME
from flujo.domain.sent_events import EVENT_NAME, is_event_name

IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"
BLUEPRINT_NAME = r"^[A-Za-z_][A-Za-z0-9_-]*$"
BRANCH_NAME = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
CALLABLE = (
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
)
DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> Any:
    """Return seconds as a float; a number is seconds already, a text has a unit (`30s`, `5m`, `72h`)."""
    if isinstance(value, str):
        if not re.fullmatch(DURATION, value, re.ASCII):
            raise problem(
                "duration", f"{value!r} is not a duration", "write seconds, or `30s`, `5m`, `72h`, `30d`"
            )
        digits = value.rstrip("mshd")
        value = float(digits) * _UNITS[value[len(digits) :]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value <= 0:
            raise problem(
                "duration", f"a duration must be greater than 0, got {value:g}", "write a positive duration"
            )
        return float(value)
    return value


def problem(slug: str, message: str, hint: str, *, key: str | None = None) -> PydanticCustomError:
    """Return an error that `validation` converts to a diagnostic.

    Args:
        slug: the broken rule.
        message: what is wrong.
        hint: what to write instead.
        key: the key of this mapping to point at; by default the whole value.
    """
    # The template has no placeholders, because pydantic would format braces in the message.
    return PydanticCustomError(
        "flujo", "{message}", {"rule": slug, "message": message, "hint": hint, "key": key}
    )


def _identifier(value: str) -> str:
    return _named(value, also="")


def _blueprint_name(value: str) -> str:
    return _named(value, also="-")


def _named(value: str, *, also: str) -> str:
    if wrong := name_problem(value, also=also):
        raise problem("identifier", *wrong)
    return value


def _branch_name(value: str) -> str:
    if wrong := branch_problem(value):
        raise problem("identifier", *wrong)
    return value


def _event_name(value: str) -> str:
    if not is_event_name(value):
        raise problem(
            "identifier",
            f"{value!r} is not the name of an event",
            "use letters, digits and `_ . : -`, at most 128, with a letter or `_` first: `order.paid`",
        )
    return value


def _callable(value: str) -> str:
    if not re.fullmatch(CALLABLE.rstrip("$"), value):
        module, _, name = value.rpartition(".")
        meant = f"{module}:{name}"
        is_dotted = module and re.fullmatch(CALLABLE.rstrip("$"), meant)
        hint = f"did you mean `{meant}`?" if is_dotted else "write `package.module:name`, ASCII only"
        raise problem("callable-name", f"{value!r} does not name a Python object", hint)
    return value


def _logic(value: Any) -> Any:
    """Return the CEL source of a literal that YAML has parsed (`until: false`, `save: {tries: 0}`)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value


Identifier = Annotated[
    str, AfterValidator(_identifier), Field(json_schema_extra={"pattern": IDENTIFIER, "maxLength": MAX_NAME})
]
BlueprintName = Annotated[
    str,
    AfterValidator(_blueprint_name),
    Field(json_schema_extra={"pattern": BLUEPRINT_NAME, "maxLength": MAX_NAME}),
]


def _schedule_name(value: str) -> str:
    if not SCHEDULE_NAME.fullmatch(value):
        raise problem(
            "identifier",
            f"{value!r} cannot name a schedule",
            "write up to 100 letters, digits, `_` and `-`, ASCII only, beginning with a letter",
        )
    return value


ScheduleName = Annotated[
    str,
    AfterValidator(_schedule_name),
    Field(json_schema_extra={"pattern": f"^{SCHEDULE_NAME.pattern}$"}),
]
EventName = Annotated[
    str, AfterValidator(_event_name), Field(json_schema_extra={"pattern": f"^{EVENT_NAME}$"})
]
BranchName = Annotated[
    str,
    AfterValidator(_branch_name),
    Field(json_schema_extra={"pattern": BRANCH_NAME, "maxLength": MAX_NAME}),
]
"""Text that a `switch` or a router can give: `Desktop Team`."""
AgentName = Annotated[Identifier, Role.ANSWERER]
CallableName = Annotated[str, AfterValidator(_callable), Field(json_schema_extra={"pattern": CALLABLE})]

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": DURATION}]}
    ),
]
"""Seconds, as a float."""

Logic = Annotated[
    str,
    Role.LOGIC,
    BeforeValidator(_logic),
    WithJsonSchema({"type": ["string", "boolean", "number"]}),
]
"""A CEL expression as it was written, or `module:callable`; A10."""

MERGES = tuple(strategy.value for strategy in MergeStrategy)


def _merge(value: str) -> str:
    if ":" in value:
        return _callable(value)
    if value not in MERGES:
        hint = f"{suggest(value.lower(), MERGES, what='strategies')} (or your own `module:callable`)"
        raise problem("wrong-value", f"unknown merge strategy {value!r}", hint)
    return value


Merge = Annotated[
    str,
    AfterValidator(_merge),
    WithJsonSchema({"anyOf": [{"enum": list(MERGES)}, {"type": "string", "pattern": CALLABLE}]}),
]
"""How the context fields that branches write are merged: a strategy's name, or `module:callable`."""


def _who(value: str) -> str:
    return _callable(value) if ":" in value else _identifier(value)


Who = Annotated[
    str,
    Role.ANSWERER,
    AfterValidator(_who),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": IDENTIFIER, "maxLength": MAX_NAME},
                {"type": "string", "pattern": CALLABLE},
            ]
        }
    ),
]
"""An agent's name, or `module:callable`."""

Value = Annotated[Any, Role.VALUE]
"""JSON data in which every text is filled in once: `{{ expression }}`; A9."""

Output = Annotated[Value, Site(Sees.AFTER)]
"""The output of a composite; its texts see the scope after the composite's steps."""

VERSION = "1"
"""The version of the language that this Flujo reads."""


def _version(value: Any) -> Any:
    """Return the version that a number or `1.0` means."""
    is_first = value == "1.0" or (isinstance(value, int | float) and value == 1 and value is not True)
    return VERSION if is_first else value


Version = Annotated[
    Literal["1"], BeforeValidator(_version), WithJsonSchema({"enum": [VERSION, "1.0", 1], "default": VERSION})
]
"""`"1"`; also the number 1, and `1.0`."""

JsonSchema = dict[str, Any]
"""A JSON Schema (2020-12), checked by `flujo.blueprint.schemas.checks`."""

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


def _given(value: Any) -> Any:
    """Reject null: a key without a value, such as `call:`, is a mistake."""
    if value is None:
        raise problem("wrong-type", "the key has no value", "write one, or remove the key")
    return value


T = TypeVar("T")
Maybe = Annotated[T | None, BeforeValidator(_given)]
"""An optional key. Defaults are not validated, so None always means "not set"."""
