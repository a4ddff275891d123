"""Checks of state machines: their states exist, can be reached, and lead to a final one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.state_graph import Graph
from flujo.domain.steps import StateMachineStep
from flujo.domain.tree_checks.findings import Field, Finding, Site
from flujo.domain.wording import listed, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator


def machine_states(site: Site) -> Iterator[Finding]:
    """Check that the states of a machine exist, can be reached, and lead to a final state."""
    step = site.step
    if not isinstance(step, StateMachineStep) or not step.states or not step.final:
        return
    unknown = list(_unknown_states(site, step))
    yield from unknown
    yield from _never_taken(site, step)
    if not unknown:  # a missing state may be the one that leads further
        yield from _ends(site, step)


def _unknown_states(site: Site, step: StateMachineStep) -> Iterator[Finding]:
    named: list[tuple[Field, str]] = [(("initial",), step.initial)]
    named += [(("final", index), name) for index, name in enumerate(step.final)]
    named += [
        (("states", name, "transitions", index, "to"), transition.to)
        for name, state in step.states.items()
        for index, transition in enumerate(state.transitions)
    ]
    named += [(("on_error",), step.on_error)] if step.on_error is not None else []
    named += [
        (("states", name, "on_error"), state.on_error)
        for name, state in step.states.items()
        if state.on_error is not None
    ]
    for keys, name in named:
        if name not in step.states:
            message = f"state machine {site.path!r} has no state {name!r}"
            hint = suggest(name, step.states, what="its states")
            yield Finding("FLJ231", site.place, message, hint, keys)


def _never_taken(site: Site, step: StateMachineStep) -> Iterator[Finding]:
    where = f"state machine {site.path!r}"
    for name, state in step.states.items():
        is_final = name in step.final
        always = [index for index, each in enumerate(state.transitions) if each.when is None]
        first = 0 if is_final else (always or [len(state.transitions)])[0] + 1
        if first < len(state.transitions):
            why = "a final state ends the machine" if is_final else "the transition before it is always taken"
            yield Finding(
                "FLJ234",
                site.place,
                f"{where}: transition {first + 1} of state {name!r} is never taken: {why}",
                f"remove {name!r} from `final`, or remove the transition"
                if is_final
                else "move the transition without `when` to the end",
                ("states", name, "transitions", first, "to"),
                is_warning=True,
            )


def _ends(site: Site, step: StateMachineStep) -> Iterator[Finding]:
    where, transitions = (
        f"state machine {site.path!r}",
        {
            name: [(each.to, each.when is None) for each in state.transitions]
            for name, state in step.states.items()
        },
    )
    reached = Graph(step.initial, step.final, transitions, step.failures()).reached
    stuck = [name for name, state in step.states.items() if name not in step.final and not state.transitions]
    for name in stuck:
        yield Finding(
            "FLJ233",
            site.place,
            f"{where}: state {name!r} is not final and has no transitions",
            "add a transition, or add the state to `final`",
            ("states", name),
            at_key=True,
        )
    if stuck:
        return
    if not any(name in reached for name in step.final):
        message = f"{where}: there is no path from {step.initial!r} to {listed(step.final, 'or')}"
        yield Finding("FLJ233", site.place, message, "add the transition that ends the machine", ("final",))
        return
    for name in step.states:
        if name not in reached:
            message = f"{where}: there is no path from {step.initial!r} to state {name!r}"
            hint = "add a transition to it, or remove it"
            keys = ("states", name)
            yield Finding("FLJ232", site.place, message, hint, keys, at_key=True, is_warning=True)
