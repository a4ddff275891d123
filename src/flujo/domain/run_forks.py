"""Forks: a run that has its beginning in common with another one, which is its parent.

The acts of both runs tell the family, and are recorded in the commit that accepts the fork. That of the fork
also has the results that replace calls with effects, and the answers to questions that the fork will ask, so
that any process finds them, even when the parent is purged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.acts import Act, Actor, Verb
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STUBBED = "stubbed"
"""The key of an entry's `detail` for a call that was not made: `recorded`, or a human's `answer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """A recorded result, which replaces the same call in a fork."""

    path: StepPath
    tool: str
    """`module:callable` of a step, the name of a tool."""
    arguments: str
    """The digest of its arguments."""
    output: Any = None
    outcome: str = "result"
    """What the model of a tool got: `result`, `error` or `retry`."""
    patch: Any = None
    """What the call and its step wrote to the context; None for nothing."""

    @property
    def key(self) -> tuple[str, str, str]:
        """The facts that a call must have in common with it."""
        return self.path, self.tool, self.arguments

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """How a run began as a fork."""

    parent: RunId
    at: StepPath
    """The path before which both have the same journal."""
    copied: int
    """The number of entries that both have in common."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """The changes that the caller wanted, by the name of the option."""
    stubs: tuple[Stub, ...] | None = None
    """The results that replace calls with effects; None when the fork makes such calls."""
    answers: Mapping[str, Any] = field(default_factory=dict)
    """The answers to questions that the fork will ask, by the paths of their steps as they were given."""

    def acts(self, fork: RunId, actor: Actor) -> tuple[Act, Act]:
        """Return the act of the fork, and that of its parent."""
        stubs = None if self.stubs is None else [each.to_json() for each in self.stubs]
        said = {"copied": self.copied, "changes": dict(self.changes), "stubs": stubs}
        said |= {"answers": dict(self.answers)} if self.answers else {}
        return (
            Act(
                verb=Verb.FORK,
                actor=actor,
                run_id=fork,
                object=self.at,
                before=canonical.encode({"parent": self.parent}),
                after=canonical.encode(said),
            ),
            Act(
                verb=Verb.FORK,
                actor=actor,
                run_id=self.parent,
                object=self.at,
                after=canonical.encode({"fork": fork}),
            ),
        )

    @classmethod
    def of(cls, acts: Iterable[Act]) -> Forked | None:
        """Return how a run began, from the acts on it; None when it is not a fork."""
        for act in acts:
            if act.verb is Verb.FORK and act.before is not None:
                said = canonical.decode(act.after or b"{}")
                stubs = said["stubs"]
                return cls(
                    parent=RunId(canonical.decode(act.before)["parent"]),
                    at=StepPath(act.object),
                    copied=said["copied"],
                    changes=said["changes"],
                    stubs=None if stubs is None else tuple(Stub(**each) for each in stubs),
                    answers=said.get("answers", {}),
                )
        return None


@dataclass(frozen=True, slots=True)
class WaitingAnswer:
    """An answer that was given when a run was forked, and the open question that it is for."""

    pause_id: StepPath
    value: Any
    actor: Actor


def waiting_answer(acts: Sequence[Act], questions: Iterable[StepPath]) -> WaitingAnswer | None:
    """Return an answer that waits for one of the open questions of a fork; each answer counts once.

    Args:
        acts: the acts on the fork.
        questions: the ids of its open questions.
    """
    forked = Forked.of(acts)
    if forked is None:
        return None
    answered = {act.object for act in acts if act.verb is Verb.ANSWER}
    actor = next(act.actor for act in acts if act.verb is Verb.FORK and act.before is not None)
    for pause_id in questions:
        for typed, value in forked.answers.items():
            if pause_id not in answered and paths.find(typed, [pause_id]) is not None:
                return WaitingAnswer(pause_id, value, actor)
    return None


def forks_of(acts: Iterable[Act]) -> list[tuple[RunId, StepPath]]:
    """Return the forks of a run from the acts on it, each with its point."""
    return [
        (RunId(canonical.decode(act.after or b"{}")["fork"]), StepPath(act.object))
        for act in acts
        if act.verb is Verb.FORK and act.before is None
    ]
