"""What a commit survives: the settings of the database that decide it, and those that weaken it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.state.sql.database import Database

if TYPE_CHECKING:
    from flujo.state.sql.database import Synchronous

_ASKED = ("fsync", "synchronous_commit", "full_page_writes")
_LOSSES = {
    "fsync": "a power cut can destroy the whole database",
    "synchronous_commit": "a crash of the server loses the last commits: finished steps run again",
    "full_page_writes": "a power cut can leave torn pages",
}


@dataclass(frozen=True, slots=True)
class Durability:
    """How a database keeps what it has committed."""

    words: str
    """The settings that decide it, as their database names them."""
    weak: tuple[str, ...] = ()
    """What may be lost although it was committed, one sentence for each cause."""


def durability(uri: str, synchronous: Synchronous = "FULL") -> Durability:
    """Return how durable the commits of this database are; a SQLite file is not opened.

    Raises:
        StateError: Postgres does not answer.
    """
    database = Database(uri)
    try:
        if not database.is_postgres:
            return Durability(f"WAL, synchronous={synchronous}")
        with database.reading() as connection:
            columns = ", ".join(f"current_setting('{name}')" for name in _ASKED)
            values = connection.execute(sa.text(f"SELECT {columns}")).one()
    finally:
        database.dispose()
    found = dict(zip(_ASKED, values, strict=True))
    weak = tuple(f"{name}=off: {_LOSSES[name]}" for name in _ASKED if found[name] == "off")
    return Durability(", ".join(f"{name}={value}" for name, value in found.items()), weak)
