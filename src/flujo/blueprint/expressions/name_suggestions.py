"""Messages and hints about unknown names and functions, with the most likely intended name.

Each function returns the message, the hint, and the slug of the finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.expressions.cel_lexicon import FUNCTIONS
from flujo.blueprint.expressions.error_messages import did_you_mean
from flujo.blueprint.schemas.shapes import NoField, follow

if TYPE_CHECKING:
    from flujo.blueprint.expressions.cel_ast import Node
    from flujo.domain.ports import Chain

Words = tuple[str, str | None, str]

_NOT_REPRODUCIBLE = {
    "env",
    "environ",
    "os",
    "now",
    "today",
    "time",
    "random",
    "uuid",
    "secret",
    "secrets",
    "getenv",
}
_NO_WORLD = (
    "expressions have no access to the environment, the clock or randomness, so that replays are exact"
)
_ALTERNATIVES = (
    "pass it as `input`, read `run.started_at`, or compute it in a step with `call: module:function`"
)
_SECRETS = {"env", "environ", "os", "secret", "secrets", "getenv"}
_FOR_SECRETS = (
    "bind it to a tool, `with: {api_key: {secret: NAME}}`, or read it in a callable or your resources: a "
    "text would be stored and sent to the model"
)
_LITERALS = {"True": "true", "False": "false", "None": "null", "nil": "null", "undefined": "null"}


def unknown_name(one: Chain, at: int, found: NoField) -> Words:
    """Return message, hint and slug for the part of a chain that cannot be read."""
    name, before = one[at], ".".join(one[:at])
    if name.startswith("__"):
        return (
            f"`{name}` is not a field: expressions read JSON data, not attributes of objects",
            None,
            "unknown-name",
        )
    if at == 0:
        return _unknown_root(one, found)
    if one[0] == "steps" and at == 1:
        close = did_you_mean(name, found.known) or "no step runs before this one"
        return f"step `{name}` is not in scope here", close, "unknown-name"
    if found.shape.kind != "object":
        items = "write `[0]` for an item, or `.map(item, …)`" if found.shape.kind == "array" else None
        return f"`{before}` is {found.shape.words}, so it has no `{name}`", items, "unknown-name"
    is_of_step = one[0] == "steps" and at == 2
    hint = f"write `{before}.output.{name}`" if is_of_step else did_you_mean(name, found.known)
    return f"`{before}` has no `{name}`", hint, "unknown-name"


def _instead_of(name: str) -> str:
    return _FOR_SECRETS if name in _SECRETS else _ALTERNATIVES


def _unknown_root(one: Chain, found: NoField) -> Words:
    name = one[0]
    if name in _LITERALS:
        return f"`{name}` is not in scope here", f"write `{_LITERALS[name]}`", "unknown-name"
    if name in _NOT_REPRODUCIBLE:
        return f"there is no `{name}`: {_NO_WORLD}", _instead_of(name), "not-reproducible"
    steps = follow(found.shape, ("steps",)) if "steps" in found.known else None
    if (
        steps
        and not isinstance(steps, NoField)
        and name in ((steps.end.schema or {}).get("properties") or {})
    ):
        rest = ".".join(one[1:]) or "output"
        said = rest if rest.split(".")[0] in {"output", "exhausted", "failed"} else f"output.{rest}"
        return f"`{name}` is a step, not a name", f"write `steps.{name}.{said}`", "unknown-name"
    return f"`{name}` is not in scope here", did_you_mean(name, found.known), "unknown-name"


_RENAMED = {
    "len": "size",
    "length": "size",
    "count": "size",
    "upper": "upperAscii",
    "lower": "lowerAscii",
    "toUpperCase": "upperAscii",
    "toLowerCase": "lowerAscii",
    "strip": "trim",
    "str": "string",
    "float": "double",
    "any": "exists",
    "includes": "contains",
    "find": "indexOf",
    "default": "get",
}


def unknown_function(node: Node, *, is_value: bool) -> Words:
    """Return message, hint and slug for an unknown function."""
    name = node.name
    if name in _NOT_REPRODUCIBLE:
        return f"there is no `{name}()`: {_NO_WORLD}", _instead_of(name), "not-reproducible"
    if is_value:
        return f"`{name}` is a value, not a function", "remove the parentheses", "unknown-function"
    if name.startswith("__"):
        return f"`{name}` is not a function: expressions only read JSON data", None, "unknown-function"
    close = _RENAMED.get(name)
    hint = f"did you mean `{close}`?" if close else did_you_mean(name, FUNCTIONS)
    if hint is None or not hint.startswith("did"):
        hint = "compute it in a step with `call: module:function`"
    return f"there is no function `{name}`", hint, "unknown-function"
