"""Runs that continue one another: the ids `NAME`, `NAME~2`, `NAME~3` are one chain.

No caller can choose an id with a `~`, so the id of a successor is never taken.
"""

from __future__ import annotations

from flujo.domain import canonical
from flujo.domain.journal import RunId

MARK = "~"
"""Stands before the number of a run in its chain."""

_KEY = "continued_as"
_BEGIN = b'{"%s":' % _KEY.encode()
"""How the canonical JSON of such an output begins."""


def first_of(run_id: str) -> RunId:
    """Return the id of the first run of the chain."""
    return RunId(run_id.partition(MARK)[0])


def number_of(run_id: str) -> int:
    """Return the place of a run in its chain; the first one has 1."""
    return int(run_id.partition(MARK)[2] or 1)


def numbered(run_id: str, number: int) -> RunId:
    """Return the id of the run of the same chain that has this number."""
    first = first_of(run_id)
    return first if number == 1 else RunId(f"{first}{MARK}{number}")


def successor_of(run_id: str) -> RunId:
    """Return the id of the run that continues this one, if one does."""
    return numbered(run_id, number_of(run_id) + 1)


def predecessor_of(run_id: str) -> RunId | None:
    """Return the id of the run that this one continues; None for the first run of a chain."""
    number = number_of(run_id)
    return None if number == 1 else numbered(run_id, number - 1)


def output_before(successor: RunId) -> bytes:
    """Return the output of the run that `successor` continues, canonical JSON."""
    return canonical.encode({_KEY: successor})


def continued_as(run_id: str, output: bytes | None) -> RunId | None:
    """Return the id of the run that continues a run with this output; None when none does."""
    if output is None or not output.startswith(_BEGIN):  # how nearly every run ends
        return None
    successor = successor_of(run_id)
    return successor if output == output_before(successor) else None
