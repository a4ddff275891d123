"""Rules about cached steps, whose answers have to stand for running them, and about searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, one_of, rule
from flujo.blueprint.language import models as doc
from flujo.blueprint.rules.callables import named_in_step, signature_of
from flujo.blueprint.schemas.algebra import types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.language.traversal import Path

_CACHE = "steps:\n  - kind: cache\n    name: known\n    "
NOT_CACHEABLE = rule(
    "FLJ261",
    "not-cacheable",
    "A cached step that does more than give an answer",
    finds="A question to a human, a `save:`, or a second cache inside a step whose answers are cached; "
    "`when:` on the step of a `kind: cache`.",
    why="A kept answer is the output and nothing else: the human would not be asked, and nothing be saved.",
    example=_CACHE + "step: {name: sort, agent: sorter, save: {label: output}}",
    instead=_CACHE + "step: {name: sort, agent: sorter}\n    save: {label: output}",
)
NEVER_CACHED = rule(
    "FLJ262",
    "never-cached",
    "A cached step whose key cannot be known",
    finds="A callable with a parameter `context` in a step whose answers are cached without a `key:`.",
    why="It may read anything of the context, so no two runs are known to ask the same: it is run each time.",
    example="# def score(data, context): …\n"
    "steps:\n  - {name: score, call: skills.risk:score, cache: {ttl_s: 1h}}",
    instead="# def score(data, context): …\n"
    "steps:\n  - {name: score, call: skills.risk:score, cache: {ttl_s: 1h, key: context.country}}",
)
SEARCH_ANSWER = rule(
    "FLJ263",
    "search-answer",
    "An agent of a tree search that answers with the wrong thing",
    finds="An agent under `propose:` whose output schema is no list, or one under `evaluate:` whose output "
    "schema is neither a number nor an object with a `score`.",
    why="A search goes on from a list of candidates, and sorts them by a number.",
    example="agents: {thinker: {model: a:b, output_schema: {type: string}}}\n"
    "steps:\n  - {kind: tree_search, name: solve, propose: thinker, evaluate: skills.solve:score}",
    instead="agents: {thinker: {model: a:b, output_schema: {type: array, items: {type: string}}}}\n"
    "steps:\n  - {kind: tree_search, name: solve, propose: thinker, evaluate: skills.solve:score}",
)


def cached_step(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse what a kept answer could not stand for."""
    step, here = visit.step, visit.path
    if isinstance(step, doc.CacheStep):
        yield from _twice(unit, step, here)
    elif step.cache is None:
        return
    elif isinstance(step, doc.HitlStep):
        yield NOT_CACHEABLE.at(
            unit.span(*here, "cache", key=True),
            f"step {step.name!r} asks a human, and a cached answer would answer for the human",
            hint="take `cache` out",
        )
    yield from _inside(unit, visit)
    yield from _imported(unit, visit)


def _twice(unit: Unit, step: doc.CacheStep, here: Path) -> Iterator[Diagnostic]:
    if step.cache is not None:
        yield NOT_CACHEABLE.at(
            unit.span(*here, "cache", key=True), f"step {step.name!r} is a cache already", hint="take it out"
        )
    for key, hint in (("when", f"write it on {step.name!r}"), ("cache", "one cache is enough")):
        if getattr(step.step, key) is not None:
            yield NOT_CACHEABLE.at(
                unit.span(*here, "step", key, key=True),
                f"step {step.step.name!r} has `{key}` and is inside the cache {step.name!r}",
                hint=hint,
            )


def _inside(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse questions and writes anywhere inside a step."""
    step, here = visit.step, visit.path
    for inner in _below(unit, visit):
        if isinstance(inner.step, doc.HitlStep):
            yield NOT_CACHEABLE.at(
                unit.span(*inner.path, "kind"),
                f"step {inner.step.name!r} asks a human, inside {step.name!r}, whose answers are cached",
                hint="ask before or after it: a cached answer would answer for the human",
                related=((unit.span(*here, "name"), "cached here"),),
            )
        for name in inner.step.save:
            yield NOT_CACHEABLE.at(
                unit.span(*inner.path, "save", name, key=True),
                f"step {inner.step.name!r} saves {name!r}, inside {step.name!r}, whose answers are cached",
                hint=f"write `save` on {step.name!r}: it is done for a cached answer too",
                related=((unit.span(*here, "name"), "cached here"),),
            )


def _imported(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse imports of blueprints that ask a human."""
    for one in (visit, *_below(unit, visit)):
        child = unit.imports.get(one.step.blueprint) if isinstance(one.step, doc.ImportStep) else None
        if child is not None and (question := _question(child)) is not None:
            yield NOT_CACHEABLE.at(
                unit.span(*one.path, "blueprint"),
                f"the blueprint of {one.step.name!r} asks a human, inside {visit.step.name!r} that is cached",
                hint="ask before or after it: a cached answer would answer for the human",
                related=((question, "asked here"),),
            )


def _question(unit: Unit) -> Span | None:
    """Return where a blueprint, or one that it imports, asks a human."""
    for visit in unit.visits:
        if isinstance(visit.step, doc.HitlStep):
            return unit.span(*visit.path, "kind")
    return next(filter(None, map(_question, unit.imports.values())), None)


def _below(unit: Unit, visit: Visit) -> Iterator[Visit]:
    """Yield the steps inside a step."""
    depth = len(visit.path)
    yield from (one for one in unit.visits if len(one.path) > depth and one.path[:depth] == visit.path)


def never_cached(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of callables that may read anything of the context."""
    policy = visit.step if isinstance(visit.step, doc.CacheStep) else visit.step.cache
    if policy is None or policy.key is not None:
        return
    for inner in (visit, *_below(unit, visit)):
        named = [(one.target, one.path) for one in named_in_step(inner)]
        named += [
            (place.source.strip(), place.path) for place in unit.places[inner.path] if place.names_callable
        ]
        for target, path in named:
            if path[: len(inner.path) + 1] != (*inner.path, "save") and _takes_context(unit, target):
                yield NEVER_CACHED.at(
                    unit.span(*path),
                    f"`{target}` takes `context`, so {visit.step.name!r} is never answered from the cache",
                    hint="say what it reads of the context: `key: context.…`",
                    severity=Severity.WARNING,
                )


def _takes_context(unit: Unit, target: str) -> bool:
    signature = signature_of(unit, target)
    return signature is not None and "context" in signature.parameters


def search_answers(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse agents that cannot propose, or cannot evaluate."""
    if not isinstance(visit.step, doc.TreeSearchStep):
        return
    wanted = {
        "propose": ({"array"}, "a list of candidates"),
        "evaluate": ({"number", "integer", "object"}, "a score"),
    }
    for key, (kinds, what) in wanted.items():
        name = getattr(visit.step, key)
        agent = unit.blueprint.agents.get(name)
        given = types(agent.output_schema) if agent is not None else frozenset()
        if given and not given <= kinds:
            yield SEARCH_ANSWER.at(
                unit.span(*visit.path, key),
                f"agent {name!r} answers with {one_of(sorted(given))}, and `{key}` gives {what}",
                hint=f"take its `output_schema` out: without one it is asked for {what}",
                related=((unit.span("agents", name, "output_schema", key=True), "it answers with this"),),
            )
