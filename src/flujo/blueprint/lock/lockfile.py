"""Reads and writes `flujo.lock`: the tested state of blueprints, as TOML.

The same blueprints give the same bytes: the file has no times, machine names or run results.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flujo.blueprint.lock.toml_writer import to_toml
from flujo.domain import canonical
from flujo.exceptions import LockUnreadable

if TYPE_CHECKING:
    from flujo.blueprint.lock.snapshot import Contents

VERSION = 2
# Version 1 had digests of files, which change with a comment; see ADR 5.

_HEAD = "# Written by `flujo lock`; review its changes like code. `flujo lock diff` says what they mean.\n"
_END = "# This is the end of the lock."
_SECTIONS = ("blueprints", "agents", "callables", "mcp", "settings", "libraries")
_AGAIN = "write it again with `flujo lock`"

_PRETTY = frozenset({"input_schema", "context_schema", "output_schema", "parameters"})
_COMPACT = frozenset({"output", "budget"})
_Code = Callable[[str, Any], Any]
"""Converts the value of a key to its form in the text, or back."""


def write(held: Contents) -> str:
    """Return the text of a lock with these contents."""
    return f"{_HEAD}{to_toml({'version': VERSION, **_coded(held, _encoded)})}\n{_END}\n"


def read(text: str) -> Contents:
    """Return the contents of a lock.

    Raises:
        LockUnreadable: it is malformed, truncated, or of another version; with the line if known.
    """
    held = _parsed(text)
    if held.pop("version", None) != VERSION:
        raise _of_another_version(text)
    if not text.rstrip().endswith(_END):
        raise _unreadable(_last_line(text), "the file is truncated: its last line is missing")
    unknown = sorted(held.keys() - set(_SECTIONS))
    if unknown:
        raise _strange(text, unknown[0], f"unknown key `{unknown[0]}`")
    for section in _SECTIONS:
        if not isinstance(held.setdefault(section, {}), dict):
            raise _strange(text, section, f"`{section}` is not a table")

    def decoded(key: str, value: Any) -> Any:
        try:
            return json.loads(value)
        except (TypeError, ValueError):
            raise _strange(text, key, f"`{key}` has a malformed value") from None

    return _coded(held, decoded)


def digest(held: Contents) -> str:
    """Return the SHA-256 of a lock's contents, which runs record."""
    return canonical.digest(canonical.encode(held))


# Values that TOML cannot represent are JSON in a string --------------------------------------------------


def _encoded(key: str, value: Any) -> str:
    indent = 2 if key in _PRETTY else None
    separators = None if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, separators=separators)
    return f"{text}\n" if indent else text


def _coded(held: Contents, code: _Code) -> Contents:
    """Return the contents with `code` applied to every value that is stored as JSON."""
    agents = {
        file: _each(some, lambda one: _keys(one, _PRETTY | {"settings"}, code))
        for file, some in _tables(held["agents"])
    }
    blueprints = {
        file: _keys(one, _PRETTY | _COMPACT, code)
        | ({"steps": {path: code(path, step) for path, step in _tables(one.get("steps", {}))}})
        for file, one in _tables(held["blueprints"])
    }
    servers = {
        name: dict(_tables(server))
        | {"tools": _each(server.get("tools"), lambda one: _keys(one, _PRETTY, code))}
        for name, server in _tables(held["mcp"])
        if isinstance(server, Mapping)
    }
    return held | {"agents": agents, "blueprints": blueprints, "mcp": servers}


def _keys(one: Any, keys: frozenset[str], code: _Code) -> Any:
    return {key: code(key, value) if key in keys else value for key, value in _tables(one)}


def _each(some: Any, change: Callable[[Any], Any]) -> Any:
    return {name: change(one) for name, one in _tables(some)}


def _tables(value: Any) -> list[tuple[str, Any]]:
    """Return the items of a table; no items if the value is not a table."""
    return list(value.items()) if isinstance(value, Mapping) else []


# Errors of a malformed text ------------------------------------------------------------------------------

_MERGE = re.compile(r"^(<{7} |>{7} |\|{7} |={7}$)", re.MULTILINE)
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_VERSION = re.compile(r"^version\s*=", re.MULTILINE)


def _parsed(text: str) -> Contents:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if merging := _MERGE.search(text):
            raise _unreadable(
                _line(text, merging.start()),
                "unresolved merge conflict",
                "check out either side with git, then run `flujo lock`; do not merge the file by hand",
            ) from None
        found = _AT.search(str(error))
        reason = _AT.sub("", str(error))
        line = int(found[1]) if found and found[1] else _last_line(text)
        raise _unreadable(line, f"not TOML: {reason[:1].lower()}{reason[1:]}") from None


def _of_another_version(text: str) -> LockUnreadable:
    found = tomllib.loads(text).get("version")
    newer = isinstance(found, int) and found > VERSION
    place = _VERSION.search(text)
    return _unreadable(
        _line(text, place.start()) if place else 1,
        f"the lock has version {found!r}, but this Flujo reads version {VERSION}",
        "upgrade Flujo to at least the version that wrote it" if newer else _AGAIN,
    )


def _strange(text: str, key: str, words: str) -> LockUnreadable:
    place = re.search(rf"^\[?\"?{re.escape(key)}\b", text, re.MULTILINE)
    return _unreadable(_line(text, place.start()) if place else 1, words)


def _unreadable(line: int, words: str, hint: str = _AGAIN) -> LockUnreadable:
    return LockUnreadable(f"flujo.lock:{line}: {words}", hint=hint, line=line)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _last_line(text: str) -> int:
    return max(1, text.count("\n") + (not text.endswith("\n")))
