"""Rules about the flow of data: unread outputs, unwritten fields, conditions that never change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.analysis.scopes import context_schema, fields_there
from flujo.blueprint.diagnostics import Severity, rule
from flujo.blueprint.language import models as doc
from flujo.blueprint.rules.callables import named_in_step, signature_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.analysis.expression_sites import ExpressionSite
    from flujo.blueprint.analysis.scope import Scope
    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path
    from flujo.domain.ports import Chain

# Outputs -------------------------------------------------------------------------------------------------

UNREAD_OUTPUT = rule(
    "FLJ268",
    "unread-output",
    "An output that is never read",
    finds="An agent without tools, a call with `effect: read`, or a question with an `answer_schema`, whose "
    "output no expression and no later step reads, and which is not part of the final output.",
    why="The call is paid for, or a human spends time on an answer, without any effect.",
    example="steps:\n  - {name: sort, agent: sorter}\n"
    "  - {name: answer, agent: writer, input: '{{ input.text }}'}",
    instead="steps:\n  - {name: sort, agent: sorter}\n"
    "  - {name: answer, agent: writer, input: '{{ steps.sort.output.label }}: {{ input.text }}'}",
)


def unread_outputs(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of steps whose only effect is an output that is never read."""
    read = _Readers(unit).read
    for visit in unit.visits:
        in_a_list = isinstance(visit.path[-1], int)
        if in_a_list and visit.path not in read and (what := _only_an_answer(unit, visit.step)):
            yield UNREAD_OUTPUT.at(
                unit.span(*visit.path, "name"),
                f"{what} {visit.step.name!r} is never read",
                hint=f"read `steps.{visit.step.name}.output` in a later step, or remove the step",
                severity=Severity.WARNING,
            )


def _only_an_answer(unit: Unit, step: doc.BaseStep) -> str | None:
    """Return a name for the step's output, if the output is the step's only effect."""
    if (wrapped := getattr(step, "step", None)) is not None:
        return _only_an_answer(unit, wrapped)
    if step.is_background:
        return None  # an `await` or a reader of the task may read its result
    match step:
        case doc.HitlStep(answer_schema=dict()):
            return "the human's answer to"
        case doc.Step(validators=[_, *_]):
            return None  # a failed validation stops the run
        case doc.Step(thread=str()):
            return None  # the agents of later steps hear it
        case doc.Step(agent=str(name)):
            agent = unit.blueprint.agents.get(name)
            return None if agent is None or agent.tools else "the answer of"
        case doc.Step(effect="read"):
            return "the output of"
        case _:
            return None


class _Readers:
    """The places of the steps whose outputs are read, by an expression or by the next step."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._last = self._ends()
        self.read: set[Path] = set()
        for visit in unit.visits:
            if visit.step.takes_previous():
                self._previous(visit.path)
            for place in unit.places[visit.path]:
                self._place(visit, place)
        self._at_the_end()

    def _ends(self) -> dict[Path, int]:
        """Return the index of the last step of each list."""
        last: dict[Path, int] = {}
        for visit in self._unit.visits:
            *around, index = visit.path
            if isinstance(index, int):
                last[tuple(around)] = max(index, last.get(tuple(around), 0))
        return last

    def _at_the_end(self) -> None:
        """Mark the output of each list: its last step's, unless the blueprint declares another."""
        for around, index in self._last.items():
            if around != ("steps",) or self._unit.blueprint.output is None:
                self.read.add((*around, index))
        for place in self._unit.places[()]:
            for chain in place.checked.reads:
                if chain[0] == "previous":
                    self.read.add(("steps", self._last[("steps",)]))
                self._named(chain, (self._unit.end,))

    def _place(self, visit: Visit, place: ExpressionSite) -> None:
        if place.names_callable:
            return
        bodies = [visit.bodies[place.body]] if place.body in visit.bodies else visit.bodies.values()
        scopes = (visit.scope, visit.end, *(body.end for body in bodies))
        for chain in place.checked.reads:
            if chain[0] == "output":
                self.read.add(visit.path)
            if chain[0] == "previous":
                self._previous(visit.path)
            self._named(chain, scopes)

    def _named(self, chain: Chain, scopes: Sequence[Scope]) -> None:
        if chain[0] != "steps" or len(chain) < 2:
            return
        for scope in scopes:
            for known in (scope.places, scope.perhaps):
                if (place := known.get(chain[1])) is not None:
                    self.read.add(place)

    def _previous(self, path: Path) -> None:
        """Mark the step whose output is `previous` at a place; at the start of a body, the composite's."""
        *around, index = path
        if isinstance(index, int) and index > 0:
            self.read.add((*around, index - 1))
            return
        for length in range(len(path) - 1, 1, -1):
            if path[:length] in self._unit.visit_at:
                self._previous(path[:length])
                return


# The context ---------------------------------------------------------------------------------------------

UNWRITTEN_FIELD = rule(
    "FLJ269",
    "unwritten-field",
    "An expression reads a field of the context that no step writes",
    finds="A field that has no default, is not required at the start, and that no `save:` of the blueprint "
    "writes, read without `has()` or `get()`.",
    why="Unless the caller sets it at the start, the run fails at this expression.",
    example="context_schema: {properties: {total: {type: integer}}}\n"
    "steps:\n  - {name: say, agent: a, input: '{{ context.total }}'}",
    instead="context_schema: {properties: {total: {type: integer, default: 0}}}\n"
    "steps:\n  - {name: say, agent: a, input: '{{ context.total }}'}",
)


def unwritten_fields(unit: Unit) -> frozenset[str]:
    """Return the fields of the context that have no value at the start and get none."""
    schema = unit.blueprint.context_schema
    if schema is None or any(_may_write_anything(unit, visit) for visit in unit.visits):
        return frozenset()
    saved = {name for visit in unit.visits for name in visit.step.writes}
    there = fields_there(context_schema(unit.blueprint, unit.typed))
    return frozenset(schema.get("properties") or ()) - saved - there


def _may_write_anything(unit: Unit, visit: Visit) -> bool:
    """Return whether a step passes the context to code or to a blueprint that may write to it."""
    if visit.step.inherits:
        return True
    targets = [named.target for named in named_in_step(visit)]
    targets += [place.source.strip() for place in unit.places[visit.path] if place.names_callable]
    signatures = [signature_of(unit, target) for target in targets]
    return any(one is None or "context" in one.parameters for one in signatures)


# Loops ---------------------------------------------------------------------------------------------------

STANDING_CONDITION = rule(
    "FLJ264",
    "standing-condition",
    "A loop condition that never changes",
    finds="An `until:` that reads only values that no step of the loop changes: the input, steps before the "
    "loop, fields of the context that the loop does not write.",
    why="The loop ends after the first iteration, or runs and pays for all `max_iterations`.",
    example="steps:\n  - {name: check, agent: judge}\n"
    "  - {kind: loop, name: again, until: steps.check.output.ok, steps: [{name: try, agent: writer}]}",
    instead="steps:\n  - {kind: loop, name: again, until: steps.check.output.ok,\n"
    "     steps: [{name: try, agent: writer}, {name: check, agent: judge}]}",
)


def standing_condition(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of a loop whose condition none of its steps can change."""
    if not isinstance(visit.step, doc.LoopStep):
        return
    until = next((one for one in unit.places[visit.path] if one.path[-1] == "until"), None)
    if until is None or until.names_callable or not until.checked.reads or until.checked.problems:
        return
    if not any(_changes(unit, visit, chain) for chain in until.checked.reads):
        yield STANDING_CONDITION.at(
            unit.span(*until.path),
            f"no step of loop {visit.step.name!r} changes the values that `until` reads",
            hint="read the output of one of its steps, `loop.index`, or a field that it saves",
            severity=Severity.WARNING,
        )


def _changes(unit: Unit, loop: Visit, chain: Chain) -> bool:
    """Return whether a name may have another value after each iteration."""
    match chain:
        case ("input" | "run", *_):
            return False
        case ("steps", str(name), *_):
            return name not in loop.scope.places
        case ("context", str(name), *_):
            # A field that does not exist has a finding of its own, and may be this one misspelt.
            others = ((loop.scope.context or {}).get("properties") or {}).keys() - {name}
            inside = unit.inside[loop.path]
            return any(one.step.writes.keys() - others or _may_write_anything(unit, one) for one in inside)
        case (name, *_):
            return name not in loop.scope.names or name == "loop"
        case _:
            return True


ENDLESS_LOOP = rule(
    "FLJ216",
    "loop-without-until",
    "A loop without a condition that ends it",
    finds="A loop without `until:`.",
    why="It would always run to `max_iterations` and then fail.",
    example="steps:\n  - {kind: loop, name: draft, steps: [{name: write, agent: writer}]}",
    instead="steps:\n  - {kind: loop, name: draft, steps: [{name: write, agent: writer}],\n"
    '     until: "steps.write.output.ok"}',
)


def endless_loop(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report a loop without `until`."""
    if isinstance(visit.step, doc.LoopStep) and visit.step.until is None:
        yield ENDLESS_LOOP.at(
            unit.span(*visit.path, "name"),
            f"loop {visit.step.name!r} has no `until`",
            hint="add the condition that ends it; `until: false` always runs `max_iterations` times",
        )
