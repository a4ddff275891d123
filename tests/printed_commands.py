"""Finds the commands in what Flujo prints, and checks that a shell runs each as it is meant.

Every output of the command line in these tests is checked: `cli/conftest.py` and `warm.py` pass it to `check`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("flujo", "pip", "python", "export", "chmod", "git", "sqlite3", "psql", "make", "cd")

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_NEXT = re.compile(r"^next: (.+?)(?:   \(.*\))?$", re.MULTILINE)
_SPAN = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`\n]*|--[a-z][^`\n]*)`")
_CHOICE = re.compile(r"[|…]|\.\.\.|<[^>]*>")


def check(output: str) -> None:
    """Fail when a command in this output is not safe to paste."""
    for each in commands(output):
        assert (why := danger(each)) is None, f"printed command {each!r}: {why}"


def commands(output: str) -> Iterator[str]:
    """Yield the commands of an output: after `next:`, and in backticks."""
    text = _STYLE.sub("", output)
    yield from _NEXT.findall(text)
    yield from _SPAN.findall(text)


@cache
def danger(command: str) -> str | None:
    """Return why a command is not safe to paste, or None."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        return f"a shell waits for more: {error}"
    if shlex.join(words) != command:
        return f"a shell needs quotes: {shlex.join(words)}"
    unquoted = [word for word in command.split() if word == shlex.quote(word)]
    if choice := next(filter(_CHOICE.search, unquoted), None):
        return f"{choice!r} is a choice or stands for one"
    if words[0] in PROGRAMS:
        return None  # no word of the shell: what follows are its arguments, each plain or in quotes
    parsed = subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True, check=False)
    return parsed.stderr or None
