"""A TOML file with line numbers and `${NAME}` substitution."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flujo.domain.commands import command
from flujo.domain.text import NotUtf8, decoded
from flujo.domain.variables import VARIABLE
from flujo.exceptions import SettingsError
from flujo.governance.redactor import user_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Key = tuple[str, ...]
"""A key with the tables around it: `("lockfile", "enabled")`."""

_FILLED_WHEN_USED = (("mcp",), ("notify",), ("providers",), ("telemetry",), ("serve", "hooks"))
"""Tables that stay as written until a server is used: a check of blueprints must not need their keys."""
_HEADER = re.compile(r"\s*\[+\s*(?P<key>.+?)\s*\]+\s*(?:#.*)?$")
_NAME = r"""(?:[A-Za-z0-9_\-]+|"[^"]*"|'[^']*')"""
_ENTRY = re.compile(rf"\s*(?P<key>{_NAME}(?:\s*\.\s*{_NAME})*)\s*=")


@dataclass(frozen=True)
class TomlFile:
    """The contents of a TOML file; empty for a missing file."""

    path: Path | None = None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    layer: Key = ()
    """The table that overrides the rest, if any."""
    _over: Mapping[str, Any] = field(default_factory=dict)
    _written: Mapping[str, Any] | None = None
    """The data before variables were filled in."""

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read the file at `path`; substitutes no variables.

        Raises:
            SettingsError: the file cannot be read or is not TOML; with the line.
        """
        return cls.of(path, text_of(path))

    @classmethod
    def of(cls, path: Path, text: str) -> TomlFile:
        """Return the file at `path` with the text that it has.

        Raises:
            SettingsError: it is not TOML; with the line.
        """
        return cls(path, text, _parsed(text, path))

    def layered(self, layer: Key) -> TomlFile:
        """Return the file with the table `layer` merged over the rest."""
        over: Any = self.data
        for name in layer:
            over = over[name]
        return replace(self, data=_merged(self.data, over), layer=layer, _over=over)

    def without(self, name: str) -> TomlFile:
        """Return the file without one of its tables."""
        return replace(self, data={key: value for key, value in self.data.items() if key != name})

    def only(self, *names: str) -> TomlFile:
        """Return the file with only these tables."""
        return replace(self, data={key: value for key, value in self.data.items() if key in names})

    def filled(self, environment: Mapping[str, str]) -> TomlFile:
        """Return the file with each `${NAME}` in its texts replaced from `environment`.

        In the user part of a URL, `${NAME}@` or `:${NAME}@`, the value is percent-encoded. The tables
        `mcp`, `notify`, `providers`, `telemetry` and `serve.hooks` stay as written.

        Raises:
            SettingsError: it asks for a variable that is not set; with the line.
        """
        return replace(self, data=self._filled(self.data, (), environment), _written=self.data)

    def filled_at(self, key: Key, environment: Mapping[str, str]) -> Any:
        """Return the value of one key, filled like `filled`.

        Raises:
            SettingsError: it asks for a variable that is not set; with the line.
        """
        value: Any = self.data
        for name in key:
            value = value[name]
        return self._filled(value, key, environment)

    def with_variables(self) -> dict[Key, Any]:
        """Return the values with variables as written, by key."""
        written = self.data if self._written is None else self._written
        return {key: value for key, value in leaves(written) if VARIABLE.search(str(value))}

    def place(self, key: Key) -> str:
        """Return `file:line` of `key` or the nearest key around it; only the file if no line is known."""
        lines = (self.line(key[:end]) for end in range(len(key), 0, -1))
        line = next(filter(None, lines), None)
        return f"{self.path}:{line}" if line else str(self.path)

    def line(self, key: Key) -> int | None:
        """Return the line that sets `key` or opens it as a table."""
        if self._is_in_layer(key) and (*self.layer, *key) in self._lines:
            return self._lines[(*self.layer, *key)]
        return self._lines.get(key)

    def _is_in_layer(self, key: Key) -> bool:
        value: Any = self._over
        for name in key:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return bool(self.layer)

    # Neither `tomllib` nor `tomlkit` keeps the lines of keys, so they are found in the text (ADR 5).
    @cached_property
    def _lines(self) -> dict[Key, int]:
        found: dict[Key, int] = {}
        table: Key = ()
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                table = _parts(header["key"])
                found.setdefault(table, number)
                if line.lstrip().startswith("[["):  # one of several: its number belongs to its key
                    place = next(n for n in count() if (*table, str(n)) not in found)
                    table = (*table, str(place))
                    found[table] = number
            elif entry := _ENTRY.match(line):
                key = (*table, *_parts(entry["key"]))
                for end in range(len(table) + 1, len(key) + 1):
                    found.setdefault(key[:end], number)
        return found

    def _filled(self, value: Any, key: Key, environment: Mapping[str, str]) -> Any:
        if key in _FILLED_WHEN_USED:
            return value
        if isinstance(value, dict):
            return {name: self._filled(item, (*key, name), environment) for name, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, key, environment) for item in value]
        if not isinstance(value, str):
            return value

        def variable(match: re.Match[str]) -> str:
            name = match[1]
            if name not in environment:
                uses = f"`{'.'.join(key)}` uses ${{{name}}}"
                raise SettingsError(
                    f"{self.place(key)}: {uses}, which is not set in the environment",
                    hint=f"set it: `{command('export', f'{name}=VALUE')}`",
                    file=str(self.path),
                )
            text = environment[name]
            if match.start() not in user:
                return text
            # A variable alone holds the user and the password.
            parts = text.split(":", 1) if len(user) == len(match[0]) else [text]
            return ":".join(quote(part, "") for part in parts)

        user = user_part(value)
        return VARIABLE.sub(variable, value)


def leaves(data: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield each value that is not a table, with its key."""
    for name, value in data.items():
        key = (*above, name)
        if isinstance(value, dict):
            yield from leaves(value, key)
        else:
            yield key, value


def _merged(below: Any, over: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(over, dict):
        return over
    return {**below, **{name: _merged(below.get(name), value) for name, value in over.items()}}


def _parts(text: str) -> Key:
    """Return the parts of a dotted key: `env.dev.agents."*"` has four."""
    try:
        value: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return (text,)  # not a key, but a line of a multi-line text
    parts = []
    while isinstance(value, dict):
        [(name, value)] = value.items()
        parts.append(name)
    return tuple(parts)


def text_of(path: Path) -> str:
    """Return the text of the file at `path`.

    Raises:
        SettingsError: it cannot be read; with the line that is not UTF-8.
    """
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", file=str(path)) from error
    except NotUtf8 as error:
        raise SettingsError(
            f"{path}:{error.line}: {error}", hint=error.hint, file=str(path), line=error.line
        ) from None


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = re.sub(r" \(at .*\)$", "", str(error))
        found = re.search(r"at line (\d+)", str(error))
        line = (
            int(found[1]) if found else max(1, text.count("\n"))
        )  # otherwise the error is at the end of the file
        raise SettingsError(
            f"{path}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}",
            hint="text needs quotes; a table is written as [name]",
            file=str(path),
            line=line,
        ) from None
