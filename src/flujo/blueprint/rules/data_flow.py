"""Rules about what flows nowhere: outputs nobody reads, fields nobody writes, conditions that stand."""

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
    "An answer that nobody reads",
    finds="An agent without tools, a call with `effect: read`, or a question with an `answer_schema`, whose "
    "output no expression reads, no later step gets, and nothing comes out of.",
    why="It is asked and paid for, or a human takes the time to say no, and nothing is different for it.",
    example="steps:\n  - {name: sort, agent: sorter}\n"
    "  - {name: answer, agent: writer, input: '{{ input.text }}'}",
    instead="steps:\n  - {name: sort, agent: sorter}\n"
    "  - {name: answer, agent: writer, input: '{{ steps.sort.output.label }}: {{ input.text }}'}",
)


def unread_outputs(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of steps that only give an answer, when nobody takes it."""
    read = _Readers(unit).read
    for visit in unit.visits:
        in_a_list = isinstance(visit.path[-1], int)
        if in_a_list and visit.path not in read and (what := _only_an_answer(unit, visit.step)):
            yield UNREAD_OUTPUT.at(
                unit.span(*visit.path, "name"),
                f"nobody reads {what} {visit.step.name!r}",
                hint=f"read `steps.{visit.step.name}.output` in a step behind it, or take the step out",
                severity=Severity.WARNING,
            )


def _only_an_answer(unit: Unit, step: doc.BaseStep) -> str | None:
    """Return what a step gives, when giving it is all that the step does."""
    if (wrapped := getattr(step, "step", None)) is not None:
        return _only_an_answer(unit, wrapped)
    match step:
        case doc.HitlStep(answer_schema=dict()):
            return "what a human answers to"
        case doc.Step(validators=[_, *_]):
            return None  # it is judged, and stops the run when it does not stand
        case doc.Step(agent=str(name)):
            agent = unit.blueprint.agents.get(name)
            return None if agent is None or agent.tools else "the answer of"
        case doc.Step(effect="read"):
            return "the output of"
        case _:
            return None


class _Readers:
    """Which steps' outputs are read, by their places: by an expression, or as what a next step is handed."""

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
        """Mark what comes out of each list: the last step's output, where nothing else is said to."""
        for around, index in self._last.items():
            if around != ("steps",) or self._unit.blueprint.output is None:
                self.read.add((*around, index))
        for place in self._unit.places[()]:
            for chain in place.checked.reads:
                if chain[0] == "previous":
                    self.read.add(("steps", self._last[("steps",)]))
                self._named(chain, (self._unit.end,))

    def _place(self, visit: Visit, place: ExpressionSite) -> None:
        scopes = (visit.scope, visit.end, *(body.end for body in visit.bodies.values()))
        if place.names_callable:
            return
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
                if chain[1] in known:
                    self.read.add(known[chain[1]])

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
    why="Unless somebody happens to give it at the start, the run fails at this expression.",
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
    saved = {name for visit in unit.visits for name in visit.step.save}
    there = fields_there(context_schema(unit.blueprint, unit.typed))
    return frozenset(schema.get("properties") or ()) - saved - there


def _may_write_anything(unit: Unit, visit: Visit) -> bool:
    """Return whether a step hands the context to code, or to another blueprint, that may write to it."""
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
    "A loop whose condition is the same after every iteration",
    finds="An `until:` that reads only what no step of the loop changes: the input, steps before the loop, "
    "fields of the context that the loop does not write.",
    why="It ends after the first iteration or never; then all iterations up to `max_iterations` are paid.",
    example="steps:\n  - {name: check, agent: judge}\n"
    "  - {kind: loop, name: again, until: steps.check.output.ok, steps: [{name: try, agent: writer}]}",
    instead="steps:\n  - {kind: loop, name: again, until: steps.check.output.ok,\n"
    "     steps: [{name: try, agent: writer}, {name: check, agent: judge}]}",
)


def standing_condition(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of a loop that nothing inside it ends."""
    if not isinstance(visit.step, doc.LoopStep):
        return
    until = next((one for one in unit.places[visit.path] if one.path[-1] == "until"), None)
    if until is None or until.names_callable or not until.checked.reads or until.checked.problems:
        return
    if not any(_changes(unit, visit, chain) for chain in until.checked.reads):
        yield STANDING_CONDITION.at(
            unit.span(*until.path),
            f"nothing in loop {visit.step.name!r} changes what its `until` reads",
            hint="read the output of one of its steps, `loop.index`, or a field that it saves",
            severity=Severity.WARNING,
        )


def _changes(unit: Unit, loop: Visit, chain: Chain) -> bool:
    """Return whether a name may mean another value after each iteration."""
    match chain:
        case ("input" | "run", *_):
            return False
        case ("steps", str(name), *_):
            return name not in loop.scope.places
        case ("context", str(name), *_):
            inside = [one for one in unit.visits if one.path[: len(loop.path)] == loop.path]
            return any(name in one.step.save or _may_write_anything(unit, one) for one in inside)
        case (name, *_):
            return name not in loop.scope.names or name == "loop"
        case _:
            return True


ENDLESS_LOOP = rule(
    "FLJ216",
    "loop-without-until",
    "A loop that does not say when it is done",
    finds="A loop without `until:`.",
    why="It would always run to `max_iterations`, and then count as failed.",
    example="steps:\n  - {kind: loop, name: draft, steps: [{name: write, agent: writer}]}",
    instead="steps:\n  - {kind: loop, name: draft, steps: [{name: write, agent: writer}],\n"
    '     until: "steps.write.output.ok"}',
)


def endless_loop(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse a loop without `until`."""
    if isinstance(visit.step, doc.LoopStep) and visit.step.until is None:
        yield ENDLESS_LOOP.at(
            unit.span(*visit.path, "name"),
            f"loop {visit.step.name!r} has no `until`",
            hint="write the condition that ends it; `until: false` runs it `max_iterations` times",
        )
