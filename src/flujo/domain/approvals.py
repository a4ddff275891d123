"""The approval of a tool call: its declaration, the question to a human, and the answer.

    answer: {"approved": bool, "reason"?: text, "arguments"?: the changed arguments, "digest": text}

The digest stands for what the human saw: an answer with another digest is refused.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

from flujo.domain import canonical, values
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.values import Expr, Text, TimeLimit, TimeLimited
from flujo.exceptions import PipelineError

_DIGITS = 15
"""How many digits of the digest are kept: few enough to type, too many to meet by chance."""


def _condition(given: Expr | str, where: str) -> Expr:
    found = values.logic(given, where)
    if not isinstance(found, Expr):
        raise PipelineError(
            f"{where} is {given!r}; expected an expression", hint="for instance `args.amount > 100`"
        )
    return found


def _text(given: Text | str, _where: str) -> Text:
    return Text(given) if isinstance(given, str) else given


@node
class Approval(Node):
    """A human approves or denies a tool call before it is made."""

    owner: ClassVar[str] = "`approve`: "

    _: KW_ONLY
    when: Takes[Expr | str | None, Expr | None] = takes(_condition, default=None)
    """The calls that need an approval, as an expression over `args`; by default all."""
    message: Takes[Text | str | None, Text | None] = takes(_text, default=None)
    """The question; placeholders may read `args`, the arguments of the call."""
    deadline_s: Takes[TimeLimited | None, float | TimeLimit | None] = takes(values.time_limit, default=None)
    """Seconds to wait for the answer, by the database's clock; `{"value": "{{ … }}", "max": 600}` takes them
    from data, in which `args` are the arguments of the call."""
    on_deadline: Literal["fail", "deny"] = takes(values.one_of("fail", "deny"), default="fail")
    """The action at the deadline: fail the step, or deny the call."""
    editable: bool = False
    """Whether the human may change the arguments."""

    def __str__(self) -> str:
        """Return which calls need an approval, for display."""
        return (
            "a human approves each call" if self.when is None else f"a human approves calls with {self.when}"
        )


def approval(given: Approval | Literal[True], where: str) -> Approval:
    """Return an approval; True stands for one of every call.

    Raises:
        PipelineError: it is neither.
    """
    if given is True:
        return Approval()
    if not isinstance(given, Approval):
        raise PipelineError(f"{where} is {given!r}; expected True or an `Approval`")
    return given


ARGUMENTS, DIGEST = "arguments: ", "digest:    "
"""The beginnings of the last two lines of a question."""


# The question --------------------------------------------------------------------------------------------


def digest(**seen: Any) -> str:
    """Return the digest of everything that an answer depends on."""
    whole = canonical.digest(canonical.encode(seen)).removeprefix("sha256:")
    return f"d{whole[:_DIGITS]}"  # a letter first: `--field digest=…` reads digits as a number


def answer_schema(bound_to: str, arguments: Any, parameters: Any, *, editable: bool) -> bytes:
    """Return the schema of the answer.

    Args:
        bound_to: the digest of the question.
        arguments: the arguments of the call.
        parameters: the schema of the arguments.
        editable: whether an answer may change them.
    """
    fields: dict[str, Any] = {
        "approved": {"type": "boolean"},
        "reason": {"type": "string"},
        "digest": {"type": "string", "examples": [bound_to]},
    }
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["approved", "digest"],
        "properties": fields,
        "additionalProperties": False,
    }
    if editable:
        inner = dict(parameters)
        if (named := inner.pop("$defs", None)) is not None:
            schema["$defs"] = named  # references in a schema begin at its root
        fields["arguments"] = {**inner, "default": arguments}
    return canonical.encode(schema)


def arguments_shown(message: str) -> tuple[str, Any]:
    """Return the text of a question before its last two lines, and the arguments of the call in these.

    Raises:
        ValueError: the message does not end with the arguments and the digest.
    """
    text, _, last = message.rpartition(f"\n{ARGUMENTS}")
    written, _, bound_to = last.rpartition(f"\n{DIGEST}")
    if not written or "\n" in written or "\n" in bound_to:
        raise ValueError("the message has no arguments")
    return text, canonical.decode(written.encode())


def digest_in(schema: bytes | None) -> str:
    """Return the digest that an answer of this schema must have."""
    return str(_fields(schema)["digest"]["examples"][0])


def arguments_in(schema: bytes | None) -> Any:
    """Return the arguments that an answer of this schema may change; None when it may change none."""
    return _fields(schema).get("arguments", {}).get("default")


def _fields(schema: bytes | None) -> Any:
    return canonical.decode(schema or b"{}")["properties"]
