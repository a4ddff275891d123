"""Writes plain data as readable TOML: sorted, with a block for each long text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"\\]")
_UNSAFE_IN_BLOCK = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\\]|(?<=\"\")\"|\"\Z")


def to_toml(contents: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return a mapping as TOML: its plain values, then a table for each non-empty mapping in it."""
    plain = {key: value for key, value in sorted(contents.items()) if not isinstance(value, dict)}
    tables = {key: value for key, value in sorted(contents.items()) if isinstance(value, dict) and value}
    lines = [f"{_key(key)} = {_literal(value)}\n" for key, value in plain.items()]
    if lines and path:
        lines.insert(0, f"\n[{'.'.join(map(_key, path))}]\n")
    return "".join(lines) + "".join(to_toml(table, (*path, key)) for key, table in tables.items())


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


def _literal(value: Any) -> str:
    match value:
        case str() if "\n" in value:
            return f'"""\n{_UNSAFE_IN_BLOCK.sub(_escape, value)}"""'
        case str() if '"' in value and "'" in value and _fits_between_three(value):
            return f"'''{value}'''"
        case str():
            return _quoted(value)
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            return str(value)


def _fits_between_three(text: str) -> bool:
    return text.isprintable() and "'''" not in text and not text.startswith("'") and not text.endswith("'")


def _quoted(text: str) -> str:
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + _UNSAFE.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}"
