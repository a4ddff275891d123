"""The erasure of a person: who is meant, the runs to erase, and the proof with its counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.run import AT_A_PAUSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.journal import RunId
    from flujo.domain.run import RunStatus

USER = "user_id"
METADATA = "metadata."


@dataclass(frozen=True, slots=True)
class Subject:
    """A person, by a property of the runs that belong to them."""

    field: str
    """`user_id`, or `metadata.` and the keys down to the value, with dots between them."""
    value: str

    @property
    def digest(self) -> str:
        """What names the person in the proof: the SHA-256 of the field and the value as canonical JSON.

        It is not a secret: who knows the value can compute it, and so find the proof.
        """
        return canonical.digest(canonical.encode({self.field: self.value}))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the metadata down to the value; empty for `user_id`."""
        return () if self.field == USER else tuple(self.field.removeprefix(METADATA).split("."))

    @property
    def forms(self) -> list[Any]:
        """The JSON values that are meant: the text, and the number or truth value that it can be read as.

        A run whose metadata has the number 7 belongs to `7` too, so that no type hides a run.
        """
        try:
            read = canonical.decode(self.value.encode())
        except ValueError:
            return [self.value]
        return [self.value, read] if isinstance(read, int | float) else [self.value]

    def is_in(self, properties: Any) -> bool:
        """Return whether the scope of a budget, decoded, names the person."""
        name = "user" if self.field == USER else self.field
        return isinstance(properties, dict) and any(
            properties.get(name) == form and type(properties.get(name)) is type(form) for form in self.forms
        )


@dataclass(frozen=True, slots=True)
class FamilyRun:
    """A run that belongs to the person, itself or through the run that it was launched or forked by."""

    run_id: RunId
    status: RunStatus
    is_live: bool
    """Whether a process executes it, or is about to."""


@dataclass(frozen=True, slots=True)
class Family:
    """Runs that are erased together: a run, its tasks, its chain and its forks; what descends comes later."""

    runs: tuple[FamilyRun, ...]

    @property
    def waiting(self) -> tuple[FamilyRun, ...]:
        """The runs that wait for a human, an event or a time."""
        return tuple(run for run in self.runs if run.status in AT_A_PAUSE)

    @property
    def live(self) -> tuple[FamilyRun, ...]:
        """The runs that are executed or about to be."""
        return tuple(run for run in self.runs if run.is_live)


@dataclass(frozen=True, slots=True)
class TableCount:
    """What an erasure did in one table."""

    table: str
    removed: int
    """The rows that it deleted."""
    kept: int = 0
    """The rows that it found and did not delete."""
    why: str = ""
    """Why rows stay, or can stay."""

    @property
    def looked_at(self) -> int:
        """The rows that belong to the person or name them."""
        return self.removed + self.kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What an erasure has looked at, removed and kept, without the name of the person."""

    field: str
    """The property that named the person."""
    subject: str
    """`Subject.digest`."""
    at: float
    """Seconds since the epoch, by the database's clock."""
    actor: Actor
    database: str
    """`sqlite` or `postgresql`."""
    tables: tuple[TableCount, ...]
    is_overwritten: bool
    """Whether the freed space of the database's files was overwritten."""
    out_of_reach: tuple[str, ...]
    """The places that no command of Flujo can change."""

    def count(self, table: str) -> TableCount:
        """Return the counts of a table."""
        return next(each for each in self.tables if each.table == table)

    def to_json(self) -> Mapping[str, Any]:
        """Return the proof as JSON: for a file, and for the act that stores it."""
        return {
            "field": self.field,
            "subject": self.subject,
            "at": self.at,
            "by": self.actor.by,
            "via": str(self.actor.via),
            "database": self.database,
            "tables": [{**asdict(each), "looked_at": each.looked_at} for each in self.tables],
            "is_overwritten": self.is_overwritten,
            "out_of_reach": list(self.out_of_reach),
        }


BEYOND: Sequence[str] = (
    "backups and copies of the database",
    "files that were written from it: exports, cassettes, cases, outputs that were saved",
    "logs, traces and metrics outside the database",
    "requests that model providers, tools and receivers of notifications have stored",
    "caches and state providers that are not in the database",
    "ids of runs, where callers chose them, in the acts of earlier purges",
)
BEYOND_SQLITE: Sequence[str] = ("blocks of the disk and snapshots of the file system with earlier pages",)
BEYOND_POSTGRES: Sequence[str] = (
    "the write-ahead log (`pg_wal`), its archive, and replicas, until they are recycled",
    "the server's own statistics (`pg_statistic`) and log",
)
"""What the proof names as out of reach: everywhere, and by database."""
