"""Messages about changes of a lock, and the steps that they affect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.wording import json_short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flujo.blueprint.lock.diff import Change


def sentence(change: Change) -> str:
    """Return a change in one line."""
    who = _who(change)
    if change.how != "changed":
        return f"{who} {_HOW[change.what, change.how]}"
    if change.what == "callable":
        was, now = str(change.before)[:12], str(change.after)[:12]
        return f"{who}: the source of its module has changed ({was} → {now})"
    if change.what in ("setting", "library"):
        return f"{who} was {_shown(change.before)} and is {_shown(change.after)}"
    if change.key == "instructions_sha256":
        return f"{who}: the lock was edited by hand: its instructions do not match their digest"
    if change.key == "description":
        return f"{who}: the description has changed"
    if change.key == "instructions":
        return f"{who}: the instructions have changed"
    if change.details:
        return f"{who}: `{change.key}`: {'; '.join(change.details)}"
    return f"{who}: {_keyword(change.key)} was {_shown(change.before)} and is {_shown(change.after)}"


def _who(change: Change) -> str:
    where = f" in [env.{change.environment}]" if change.environment else ""
    of = f" of {change.file}" if change.file else ""
    name = repr(change.name) if change.what in ("agent", "step") else change.name
    return f"{change.what} {name}{of}{where}"


_HOW: Mapping[tuple[str, str], str] = {
    ("blueprint", "added"): "is not in the lock",
    ("blueprint", "removed"): "is in the lock but not in the project",
    ("step", "added"): "is new",
    ("step", "removed"): "was removed",
    ("agent", "added"): "is not in the lock",
    ("agent", "removed"): "is in the lock but no longer used",
    ("callable", "added"): "is not in the lock",
    ("callable", "removed"): "is in the lock but no longer called",
    ("setting", "added"): "is not in the lock",
    ("setting", "removed"): "is in the lock but no longer set",
    ("MCP server", "added"): "is not in the lock",
    ("MCP server", "removed"): "is in the lock but no longer used",
    ("MCP tool", "added"): "is new",
    ("MCP tool", "removed"): "was removed",
    ("library", "added"): "is not in the lock",
    ("library", "removed"): "is in the lock but not installed",
}


def _keyword(key: str) -> str:
    word, _, name = key.partition(" ")
    return f"{word} `{name}`" if name else f"`{key}`"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return json_short(value, _LONG)


_LONG = 100


def affected(changed: Iterable[Change]) -> dict[str, list[str]]:
    """Return the affected blueprints, and the affected steps of each."""
    found: dict[str, dict[str, None]] = {}
    for change in changed:
        for one in change.affects:
            steps = found.setdefault(one.blueprint, {})
            steps |= {one.step: None} if one.step else {}
    return {blueprint: list(steps) for blueprint, steps in sorted(found.items())}
