"""Commands in messages: each can be pasted into a shell, where it does what it says and nothing else."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ShellCommand = NewType("ShellCommand", str)
"""A command as a shell reads it, made by `command` alone."""


def command(*words: str) -> ShellCommand:
    """Return a command whose words are quoted where a shell needs that.

    A word to replace is in capitals: `command("flujo", "trace", "RUN")`. Its choices stand beside the
    command.
    """
    return ShellCommand(shlex.join(words))


def placeholder(name: str) -> str:
    """Return the word that stands for the value of a field: its name in capitals, or `VALUE`."""
    return name.upper() if name.isascii() and name.isidentifier() else "VALUE"


def filled(text: str, **words: str) -> str:
    """Return a text whose commands have values in place of their words in capitals.

    Args:
        text: its commands stand in backticks.
        words: the values by word; an empty one leaves its word out.
    """

    def with_values(found: re.Match[str]) -> str:
        return _CAPITALS.sub(lambda word: _value_of(word, words), found[0])

    return _IN_BACKTICKS.sub(with_values, text)


def _value_of(word: re.Match[str], words: Mapping[str, str]) -> str:
    if (value := words.get(word[1])) is None:
        return word[0]
    return f" {shlex.quote(value)}" if value else ""


_IN_BACKTICKS = re.compile("`[^`]+`")
_CAPITALS = re.compile(r" ([A-Z]+)\b(?!=)")


def either(choices: Iterable[Any]) -> str:
    """Return the values to choose from, in words: `approve, amend or reject`."""
    *rest, last = [_plain(choice) for choice in choices]
    return f"{', '.join(rest)} or {last}" if rest else last


def _plain(value: Any) -> str:
    simple = isinstance(value, str) and shlex.quote(value) == value
    return str(value) if simple else json.dumps(value, ensure_ascii=False)
