"""Words of other tools for keys and kinds, and what to write here instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Synonym:
    """What to write instead of a word of another tool."""

    hint: str
    meant: str | None = None
    """The key that takes the same value, if there is one."""


def _renamed(key: str, more: str = "") -> Synonym:
    return Synonym(f"did you mean `{key}`?{more}", key)


_ORDER = Synonym(
    "remove it: steps run in the order of their list and read earlier outputs; `kind: parallel` runs "
    "branches at once"
)
_ENVIRONMENT = Synonym(
    "write `{secret: NAME}` in the `with` of a tool, or read the variable in a callable or in your resources"
)
_ITEMS = Synonym("write a step with `kind: map`, `over: input.items`, and the steps for each item in `steps`")
_ASKED = Synonym("write a step with `kind: hitl` and `message` before it")
OF_STEPS = {
    "prompt": _renamed("input", " The agent's own prompt is `instructions` below `agents:`"),
    "id": _renamed("name"),
    "if": _renamed("when", " For other steps if it is false, write `kind: conditional`"),
    "condition": _renamed("when"),
    "uses": _renamed("call"),
    "run": _renamed("call"),
    "function": _renamed("call"),
    "args": _renamed("with"),
    "type": _renamed("kind"),
    "timeout": Synonym("write it below `config:` as `timeout_s`"),
    "retries": Synonym("write it below `config:` as `max_retries`"),
    "needs": _ORDER,
    "depends_on": _ORDER,
    "dependencies": _ORDER,
    "env": _ENVIRONMENT,
    "secrets": _ENVIRONMENT,
    "foreach": _ITEMS,
    "for_each": _ITEMS,
    "human": _ASKED,
    "approval": _ASKED,
    "while": Synonym("`kind: loop` ends where `until` is true: write the opposite condition there"),
}
"""Keys of steps."""

OF_CONDITIONALS = {**OF_STEPS, "condition": _renamed("if")}
"""Keys of `kind: conditional`."""

OF_AGENTS = {
    "prompt": _renamed("instructions"),
    "system_prompt": _renamed("instructions"),
    "system": _renamed("instructions"),
    "response_format": _renamed("output_schema"),
    "timeout": Synonym("write it at the step, below `config:` as `timeout_s`"),
    "env": _ENVIRONMENT,
    "type": Synonym("remove it: an agent has no kinds"),
}
"""Keys of agents."""

OF_CONFIG = {"timeout": _renamed("timeout_s"), "retries": _renamed("max_retries")}
"""Keys of `config:`."""

OF_BLUEPRINTS = {
    "env": _ENVIRONMENT,
    "secrets": _ENVIRONMENT,
    "inputs": Synonym("describe the input as a JSON Schema in `input_schema`"),
    "jobs": Synonym("write the steps as a list in `steps`"),
    "tasks": _renamed("steps"),
}
"""Keys of blueprints."""

KINDS = {
    "human": "hitl", "approval": "hitl", "ask": "hitl", "foreach": "map", "for_each": "map", "for": "map",
    "if": "conditional", "switch": "conditional", "condition": "conditional", "while": "loop",
    "repeat": "loop", "agent": "step", "llm": "step", "task": "step", "call": "step", "function": "step",
    "wait": "sleep", "delay": "sleep", "workflow": "import", "subworkflow": "import",
    "graph": "state_machine",
}  # fmt: skip
"""Kinds of steps of other tools → the kind here."""
