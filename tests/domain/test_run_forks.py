"""How a run began as a fork is recorded in the acts of both runs."""

from __future__ import annotations

from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run_forks import Forked, Stub, forks_of

ADA = Actor("ada", Via.CLI)
STUB = Stub(
    path=StepPath("send"), tool="mail:send", arguments="sha256:1", output={"id": 7}, patch=[["set", ["a"], 1]]
)


def test_the_acts_of_both_runs_tell_how_a_fork_began() -> None:
    forked = Forked(
        parent=RunId("old"),
        at=StepPath("loop[2]/send"),
        copied=4,
        changes={"models": {"writer": "a:b"}},
        stubs=(STUB,),
    )
    mine, of_parent = forked.acts(RunId("new"), ADA)
    assert (mine.run_id, of_parent.run_id) == ("new", "old")
    other = Act(verb=Verb.CANCEL, actor=ADA, run_id=RunId("new"))
    assert Forked.of([other, mine]) == forked
    assert Forked.of([of_parent, other]) is None
    assert forks_of([of_parent, other]) == [("new", "loop[2]/send")]
    assert forks_of([mine]) == []


def test_a_fork_of_a_fork_knows_its_own_parent() -> None:
    first = Forked(parent=RunId("a"), at=StepPath("x"), copied=1).acts(RunId("b"), ADA)
    second = Forked(parent=RunId("b"), at=StepPath("y"), copied=2).acts(RunId("c"), ADA)
    acts_on_b = [first[0], second[1]]
    found = Forked.of(acts_on_b)
    assert found is not None
    assert (found.parent, found.stubs, forks_of(acts_on_b)) == ("a", None, [("c", "y")])


def test_a_stub_replaces_only_the_same_call() -> None:
    assert STUB.key == ("send", "mail:send", "sha256:1")
