"""Confirmation of what cannot be undone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal


class Declined(Exception):
    """The user has not confirmed, so nothing was changed. The command exits with 1."""


def require_yes(terminal: Terminal, what: str, *, yes: bool) -> None:
    """Return when `--yes` is set or the user confirms at the terminal.

    Args:
        terminal: where the question is written.
        what: what happens, as a command: `delete 12 runs`.
        yes: whether `--yes` is set.

    Raises:
        SettingsError: there is no terminal to confirm at.
        Declined: the user declines; nothing was changed.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty() or not terminal.err.isatty():
        raise SettingsError(
            f"refused to {what} without a confirmation",
            hint="`--yes` confirms it; `--dry-run` shows it and changes nothing",
        )
    terminal.say(f"{what}? Type yes to confirm:", "yellow")
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise Declined("nothing was changed")
