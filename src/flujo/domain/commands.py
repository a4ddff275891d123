"""Commands in messages: each can be pasted into a shell, where it does what it says and nothing else."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def either(choices: Iterable[Any]) -> str:
    """Return the values to choose from, in words: `approve, amend or reject`."""
    *rest, last = [_plain(choice) for choice in choices]
    return f"{', '.join(rest)} or {last}" if rest else last


def _plain(value: Any) -> str:
    simple = isinstance(value, str) and shlex.quote(value) == value
    return str(value) if simple else json.dumps(value, ensure_ascii=False)
