"""The work of a command grows with the size of a blueprint, not with its square.

Calls of functions are counted: their number is the same on every machine. Twice the steps may add a little more than
twice the work, since look-ups in larger structures take longer.
"""

from __future__ import annotations

import cProfile
import gc
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.conftest import Flujo, Project

    Shape = Callable[[int], Iterator[str]]

SIZES = (60, 120, 240) if os.environ.get("FLUJO_CORPUS_STRIDE") == "1" else (15, 30, 60)
"""Numbers of steps, four times as many in `make soak`."""
AT_MOST = 2.15
"""The work of the last half of the steps, divided by that of the quarter before them; 2 is linear, a square is 4."""

HEAD = """\
version: "1"
name: long
input_schema: {type: object, required: [names], properties: {names: {type: array, items: {type: string}}}}
"""


def chain(steps: int) -> Iterator[str]:
    """Return steps that each read the one before, under a condition."""
    yield 'steps:\n  - {name: s0, call: "skills.greet:greet", with: {name: "{{ input.names[0] }}"}}\n'
    for number in range(1, steps):
        read = f"steps.s{number - 1}.output"
        yield f"  - name: s{number}\n    call: skills.greet:greet\n    when: size({read}) > {number}\n"
        yield f'    with: {{name: "{{{{ {read} }}}}"}}\n    output_schema: {{type: string}}\n'


def readers(steps: int) -> Iterator[str]:
    """Return steps that each read up to ten earlier ones."""
    yield 'steps:\n  - {name: s0, call: "skills.greet:greet", with: {name: "{{ input.names[0] }}"}}\n'
    for number in range(1, steps):
        read = " ".join(f"{{{{ steps.s{at}.output }}}}" for at in range(0, number, number // 10 + 1))
        yield f'  - {{name: s{number}, call: "skills.greet:greet", with: {{name: "{read}"}}}}\n'


def parallel(steps: int) -> Iterator[str]:
    """Return one parallel step with a branch for each step."""
    yield "steps:\n  - kind: parallel\n    name: wide\n    branches:\n"
    for number in range(steps):
        yield f'      b{number}: [{{name: once, call: "skills.greet:greet", with: {{name: "{number}"}}}}]\n'
    yield 'output: "{{ steps.wide.output }}"\n'


def maps(steps: int) -> Iterator[str]:
    """Return maps in maps, four steps each."""
    yield "steps:\n"
    for number in range(steps // 4):
        yield f"  - kind: map\n    name: m{number}\n    over: input.names\n    as: person\n    steps:\n"
        yield f"      - kind: map\n        name: inner{number}\n        over: input.names\n        as: other\n"
        yield '        steps:\n          - {name: one, call: "skills.greet:greet", with: {name: "{{ person }}"}}\n'
        yield '          - {name: two, call: "skills.greet:greet", with: {name: "{{ steps.one.output }}"}}\n'


def loops(steps: int) -> Iterator[str]:
    """Return loops of one step each."""
    yield "steps:\n"
    for number in range(steps // 2):
        yield f"  - kind: loop\n    name: l{number}\n    max_iterations: 3\n    steps:\n"
        yield f'      - {{name: s{number}, call: "skills.greet:greet", with: {{name: "{{{{ loop.index }}}}"}}}}\n'
        yield f"    until: size(steps.s{number}.output) > {number}\n"


def machine(steps: int) -> Iterator[str]:
    """Return a state machine in which each state reads the one before."""
    yield f"steps:\n  - kind: state_machine\n    name: long\n    initial: q0\n    final: [q{steps}]\n    states:\n"
    for number in range(steps):
        read = f"steps.s{number - 1}.output" if number else "input.names[0]"
        yield f"      q{number}:\n        steps:\n"
        yield f'          - {{name: s{number}, call: "skills.greet:greet", with: {{name: "{{{{ {read} }}}}"}}}}\n'
        yield f"        transitions: [{{to: q{max(number - 1, 0)}, when: size(steps.s{number}.output) > 2}}, "
        yield f"{{to: q{number + 1}}}]\n"
    yield f"      q{steps}: {{}}\n"


def context(steps: int) -> Iterator[str]:
    """Return steps that each write a field of the context."""
    yield "context_schema:\n  properties:\n"
    yield from (f'    f{number}: {{type: string, default: ""}}\n' for number in range(steps))
    yield "steps:\n"
    for number in range(steps):
        yield f'  - {{name: s{number}, call: "skills.greet:greet", with: {{name: "{{{{ context.f{number} }}}}"}}, '
        yield f"save: {{f{number}: output}}}}\n"


SHAPES = (chain, readers, parallel, maps, loops, machine, context)


def growth(work: Callable[[int], int]) -> float:
    """Return how the work grows from size to size."""
    few, more, many = (work(size) for size in SIZES)
    return (many - more) / (more - few)


def calls(flujo: Flujo, *words: str) -> int:
    """Return how many functions a command calls."""
    profile = cProfile.Profile()
    gc.disable()  # it would call finalizers at other moments each time
    try:
        result = profile.runcall(flujo, *words)
    finally:
        gc.enable()
    assert result.exit_code == 0, result.output
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.parametrize("shape", SHAPES)
def test_validate_calls_twice_as_many_functions_for_twice_the_steps(
    shape: Shape, project: Project, flujo: Flujo
) -> None:
    def work(size: int) -> int:
        project.blueprint("long", HEAD + "".join(shape(size)))
        return calls(flujo, "validate", "blueprints/long.yaml")

    work(8)  # imports, and fills caches
    assert growth(work) < AT_MOST


@pytest.mark.parametrize("command", ["explain", "graph", "ls"])
@pytest.mark.parametrize("shape", [chain, machine])
def test_a_view_calls_twice_as_many_functions_for_twice_the_steps(
    shape: Shape, command: str, project: Project, flujo: Flujo
) -> None:
    def work(size: int) -> int:
        project.blueprint("long", HEAD + "".join(shape(size)))
        return calls(flujo, command, "blueprints/long.yaml")

    work(8)
    assert growth(work) < AT_MOST


@pytest.mark.parametrize("shape", [chain, machine])
def test_lock_calls_twice_as_many_functions_for_twice_the_steps(
    shape: Shape, project: Project, flujo: Flujo
) -> None:
    def work(size: int) -> int:
        project.blueprint("long", HEAD + "".join(shape(size)))
        return calls(flujo, "lock") + calls(flujo, "lock", "verify")

    work(8)
    assert growth(work) < AT_MOST
