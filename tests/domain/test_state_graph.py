"""A machine as a graph: its reachable states, and the states on every path to a state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.state_graph import Graph
from flujo.domain.steps import State, StateMachineStep, Transition

NAMES = "abcde"


@st.composite
def machines(draw: st.DrawFn) -> StateMachineStep:
    """Return a machine of up to five states, some of whose transitions lead nowhere."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    to = st.sampled_from(f"{names}x")
    transition = st.builds(Transition, to=to) | st.builds(Transition, to=to, when=st.just("true"))
    states = {name: State(transitions=draw(st.lists(transition, max_size=3))) for name in names}
    final = draw(st.lists(st.sampled_from(f"{names}x"), min_size=1, max_size=2))
    initial = draw(st.sampled_from(f"{names}x"))
    return StateMachineStep("m", initial=initial, states=states, final=final)


def graph_of(step: StateMachineStep) -> Graph:
    """Return the graph of a machine."""
    ways = {
        name: [(each.to, each.when is None) for each in state.transitions]
        for name, state in step.states.items()
    }
    return Graph(step.initial, step.final, ways, step.failures())


def found(graph: Graph, start: str, *, without: str = "") -> set[str]:
    """Return the states reachable from `start` without entering `without`."""
    waiting, seen = [start], {start}
    while waiting:
        for target in graph.ways_out(waiting.pop()):
            if target not in seen and target != without:
                seen.add(target)
                waiting.append(target)
    return seen


@given(machines())
def test_a_state_is_reachable_when_a_path_leads_to_it(step: StateMachineStep) -> None:
    graph = graph_of(step)
    wanted = found(graph, step.initial) if step.initial in step.states else set()
    assert set(graph.reached) == wanted


@given(machines())
def test_a_state_dominates_another_when_every_path_passes_it(step: StateMachineStep) -> None:
    graph = graph_of(step)
    for name in graph.reached:
        needed = {
            other
            for other in graph.reached
            if other != name
            and (other == step.initial or name not in found(graph, step.initial, without=other))
        }
        assert set(graph.before(name)) == needed


@given(machines())
def test_an_unreachable_state_has_no_predecessors(step: StateMachineStep) -> None:
    graph = graph_of(step)
    for name in set(step.states) - set(graph.reached):
        assert set(graph.before(name)) == set()


@given(machines())
def test_the_states_passed_by_one_of_several_are_passed_by_each(step: StateMachineStep) -> None:
    graph = graph_of(step)
    names = [name for name in step.final if name in graph.reached]
    passed = [{*graph.before(name), name} for name in names]
    assert set(graph.by(names)) == (set.intersection(*passed) if passed else set())
    assert len(graph.by(names)) == len(set(graph.by(names)))
