"""Who may do what: roles and their rights, principals, API tokens and sessions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.reach import EVERYWHERE, Reach
from flujo.exceptions import AccessDenied, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.run import RunRecord


class Right(StrEnum):
    """What a role may do."""

    READ = "read"
    """List and show runs, questions, queues, workers, schedules and scores."""
    ANSWER = "answer"
    """Claim and answer questions, decide about approvals and calls in doubt, and rate outputs."""
    OPERATE = "operate"
    """Start, resume, retry, cancel and fork runs, send events, redeliver messages, move schedules."""
    ADMINISTER = "administer"
    """Create and revoke tokens, see masked values, and purge."""


class Role(StrEnum):
    """The roles, from the one with the fewest rights to the one with all of them."""

    VIEWER = "viewer"
    ANSWERER = "answerer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rights(self) -> frozenset[Right]:
        """The rights of the role: each has those of the roles before it."""
        return frozenset(list(Right)[: list(Role).index(self) + 1])


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a program whose name is known, with a role."""

    name: str
    role: Role
    reach: Reach = EVERYWHERE
    via: Via = Via.API

    @property
    def actor(self) -> Actor:
        """Who is recorded for its acts."""
        return Actor(self.name, self.via)

    def require(self, right: Right, record: RunRecord | None = None) -> None:
        """Return if the role has a right, and the reach has the run.

        Raises:
            AccessDenied: the role does not have the right.
            RunNotFound: the run is out of reach. The error is that for a run that does not exist.
        """
        if right not in self.role.rights:
            needed = next(role for role in Role if right in role.rights)
            raise AccessDenied(
                f"{self.name} has the role `{self.role}`, which may not {right}",
                hint=f"the role `{needed}` may: ask an administrator for it",
                principal=self.name,
                right=str(right),
            )
        if record is not None:
            queue = None if record.queued is None else record.queued.queue
            if not self.reach.has(record.pipeline, queue, record.metadata):
                raise RunNotFound(f"there is no run {record.run_id!r} in this database", run_id=record.run_id)

    def require_new(self, pipeline: str, queue: str, metadata: Mapping[str, Any]) -> None:
        """Return if it may start a run of this pipeline, in this queue and with this metadata.

        Raises:
            AccessDenied: otherwise.
        """
        self.require(Right.OPERATE)
        if not self.reach.has(pipeline, queue, metadata):
            raise AccessDenied(
                f"{self.name} is limited to some runs, and this one would not be among them",
                hint=f"start a run with {canonical.encode(self.reach.to_json()).decode()}",
                principal=self.name,
                right=str(Right.OPERATE),
            )

    def require_everywhere(self, right: Right) -> None:
        """Return if the role has a right, and the principal is not limited to some runs.

        Raises:
            AccessDenied: otherwise.
        """
        self.require(right)
        if self.reach:
            raise AccessDenied(
                f"{self.name} is limited to some runs, and this is about all of them",
                hint="name a run, or use a principal without limits",
                principal=self.name,
                right=str(right),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The login of a person, without the secret of its cookie."""

    name: str
    """The user."""
    digest: bytes
    """SHA-256 of the secret."""
    proof: bytes
    """SHA-256 of the password's hash at the login: another password ends the session."""
    created_at: float = 0.0
    """Seconds since the epoch, by the store's clock."""
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An API token, without its secret."""

    name: str
    """The name under which its acts are recorded."""
    digest: bytes
    """SHA-256 of the secret. A secret of 256 random bits needs no slow digest: it cannot be guessed."""
    role: Role
    reach: Reach = EVERYWHERE
    created_at: float = 0.0
    """Seconds since the epoch, by the store's clock."""
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def principal(self) -> Principal:
        """Who acts with it."""
        return Principal(self.name, self.role, self.reach)

    def is_valid(self, now: float) -> bool:
        """Return whether it is neither revoked nor expired at a time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
