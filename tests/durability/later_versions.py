"""Later versions of random pipelines: other names of steps, branches and states, and steps in new composites."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain.paths import StepPath, branch, child
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import (
    CallableRef,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Text,
    Transition,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from flujo.domain.steps import BaseStep


def later_version(tree: Pipeline, chance: Random, context_schema: Any) -> Pipeline:
    """Return a pipeline that does the same, with migrations from the paths of `tree`.

    Args:
        tree: a random program, whose steps read the output before them as `previous`.
        chance: chooses the parts that are renamed and the steps that move.
        context_schema: the schema of its context.
    """
    changing = _Changing(chance, context_schema)
    steps = changing.body(tree, StepPath(""), StepPath("")).steps
    return replace(tree, steps=steps, migrations=changing.migrations)


class _Changing:
    def __init__(self, chance: Random, context_schema: Any) -> None:
        self._chance = chance
        self._schema = context_schema
        self.migrations: dict[str, str] = {}

    def body(self, body: Pipeline, old: StepPath, new: StepPath) -> Pipeline:
        return replace(body, steps=tuple(self._step(each, old, new) for each in body.steps))

    def _step(self, step: BaseStep, old: StepPath, new: StepPath) -> BaseStep:
        name = f"later_{step.name}" if self._chance.random() < 0.4 else step.name
        around = self._chance.choice(("parallel", "import", "if", *[None] * 6))
        inner = {"parallel": f"for_{name}:in", "import": f"for_{name}", "if": f"for_{name}:then"}
        here = StepPath("/".join(filter(None, (new, inner[around])))) if around else new
        mine, now = child(old, step.name), child(here, name)
        if around or name != step.name:
            self.migrations[mine] = now
        changed = replace(self._inside(step, mine, now), name=name)
        match around:
            case "parallel":
                outer = Text("{{ previous['in'] }}")
                return ParallelStep(f"for_{name}", {"in": changed}, output=outer)
            case "import":
                pipeline = Pipeline(
                    changed, f"for_{name}", context_schema=self._schema, output="{{ previous }}"
                )
                return ImportStep(f"for_{name}", pipeline, context="inherit")
            case "if":
                return ConditionalStep(f"for_{name}", condition=Expr("true"), then=changed)
            case _:
                return changed

    def _inside(self, step: BaseStep, old: StepPath, new: StepPath) -> BaseStep:
        match step:
            case DynamicParallelRouterStep():
                names, bodies = self._named(step.branches, old, new)
                assert isinstance(step.router, CallableRef)
                answers = _renaming(step.router, names)
                return replace(step, branches=bodies, router=answers, output=_read(step.output, names))
            case ParallelStep():
                names, bodies = self._named(step.branches, old, new)
                return replace(step, branches=bodies, output=_read(step.output, names))
            case StateMachineStep():
                bodies = {name: state.body for name, state in step.states.items()}
                names, bodies = self._named(bodies, old, new)
                states = {
                    names[name]: State(
                        bodies[names[name]],
                        tuple(Transition(names[way.to], way.when) for way in state.transitions),
                    )
                    for name, state in step.states.items()
                }
                final = tuple(names[name] for name in step.final)
                return replace(step, initial=names[step.initial], states=states, final=final)
            case ConditionalStep():
                bodies = {
                    name: self.body(each, branch(old, name), branch(new, name))
                    for name, each in step.branches.items()
                }
                return replace(step, branches=bodies)
            case LoopStep() | MapStep():
                return replace(step, body=self.body(step.body, old, new))
            case ImportStep():
                return replace(step, pipeline=self.body(step.pipeline, old, new))
            case _:
                return step

    def _named(
        self, bodies: Mapping[str, Pipeline], old: StepPath, new: StepPath
    ) -> tuple[dict[str, str], dict[str, Pipeline]]:
        """Return the new names of branches or states, and their bodies by these."""
        names = {name: f"later_{name}" if self._chance.random() < 0.4 else name for name in bodies}
        for name, now in names.items():
            if now != name:
                self.migrations[branch(old, name)] = branch(new, now)
        return names, {
            names[name]: self.body(each, branch(old, name), branch(new, names[name]))
            for name, each in bodies.items()
        }


def _renaming(router: CallableRef, names: Mapping[str, str]) -> CallableRef:
    choose: Any = router.live

    async def chosen(data: int) -> list[str]:
        return [names[name] for name in await choose(data)]

    return CallableRef(router.target, chosen)


def _read(output: Any, names: Mapping[str, str]) -> Any:
    """Return the output of a composite, which reads its branches by their new names."""
    source = output.source
    for name, now in names.items():
        source = re.sub(rf"previous\.{name}\b", f"previous.{now}", source)
        source = source.replace(f"get(previous, '{name}'", f"get(previous, '{now}'")
    return Text(source)
