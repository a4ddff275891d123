"""The hint for a path that a run does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import paths
from flujo.domain.commands import command
from flujo.domain.wording import did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.domain.paths import StepPath


def unknown_step(typed: str, known: Iterable[StepPath], run: str) -> str:
    """Return the hint: the path that may be meant, if there is one, and the command that lists all of them.

    A typed word that is the name of a step means its first path, so `gist` finds `lines[0]/gist`.

    Args:
        typed: what a user has typed.
        known: the paths of the run.
        run: the id of the run.
    """
    every = [each for each in known if each]
    meant = paths.from_command_line(typed)
    near = did_you_mean(meant, map(paths.shown, every), cutoff=0.5)
    if near is None:
        named: dict[str, StepPath] = {}
        for each in every:
            named.setdefault(paths.name(each), each)
        name = nearest(paths.name(meant), named)
        near = None if name is None else f"did you mean `{paths.shown(named[name])}`?"
    lists = f"`{command('flujo', 'trace', run)}` lists all steps"
    return lists if near is None else f"{near} {lists}"
