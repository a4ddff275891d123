"""Acts: who changed a run, how, and through which interface."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.domain.journal import RunId


class Via(StrEnum):
    """The interface through which an act came."""

    CLI = "cli"
    API = "api"
    WEB = "web"
    LINK = "link"
    WORKER = "worker"


class Verb(StrEnum):
    """The kind of change."""

    ANSWER = "answer"
    RESOLVE = "resolve"
    CANCEL = "cancel"
    RETRY = "retry"
    SET = "set"
    ACCEPT_CHANGES = "accept_changes"
    PURGE = "purge"
    ERASE = "erase"
    SEND = "send"
    FORK = "fork"
    AFTER_RESTORE = "after_restore"
    ROTATE_KEYS = "rotate_keys"
    PULL = "pull"
    RATE = "rate"
    SCHEDULE_APPLY = "schedule_apply"
    SCHEDULE_REMOVE = "schedule_remove"
    SCHEDULE_PAUSE = "schedule_pause"
    SCHEDULE_RESUME = "schedule_resume"
    SCHEDULE_TRIGGER = "schedule_trigger"
    ISSUE = "issue"
    REVOKE = "revoke"
    LOG_IN = "log_in"
    LOG_OUT = "log_out"
    LOGIN_REFUSED = "login_refused"
    REVEAL = "reveal"


OF_SCHEDULES = tuple(verb for verb in Verb if verb.startswith("schedule_"))
"""The acts whose object is a schedule."""

OF_LOGINS = (Verb.LOG_IN, Verb.LOG_OUT, Verb.LOGIN_REFUSED)
"""The acts whose object is the name of a user; a purge deletes old ones."""

STEERING = (Verb.FORK, Verb.SET)
"""The acts that an execution of a run reads before it begins."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or program that acts, as the interface knows it."""

    by: str
    via: Via


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act, recorded in the transaction of its change. Values are canonical JSON bytes."""

    verb: Verb
    actor: Actor
    run_id: RunId | None = None
    """None for an act on several runs."""
    object: str = ""
    """The object of the act: the id of a question that is answered or shown unmasked, the changed files, the
    purged statuses, a schedule, a token, the source of a pulled run, the digest of an erased person, the id
    of a key, a user who logs in or out."""
    before: bytes | None = None
    after: bytes | None = None
    at: float | None = None
    """Seconds since the epoch, by the store's clock once it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActQuery:
    """A filter for acts: all given conditions must match."""

    run_id: RunId | None = None
    object: str | None = None
    verbs: tuple[Verb, ...] = ()
    """One of which it must have; none for any."""
    by: str | None = None
    since: float | None = None
    """The earliest time, in seconds since the epoch."""
    until: float | None = None
    """The time before which it must be."""
    limit: int = 100

    def fits(self, act: Act) -> bool:
        """Return whether an act that is stored matches."""
        at = act.at or 0.0
        return (
            self.run_id in (None, act.run_id)
            and self.object in (None, act.object)
            and (not self.verbs or act.verb in self.verbs)
            and self.by in (None, act.actor.by)
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
        )
