"""Rules about cached steps and tree searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, one_of, rule
from flujo.blueprint.language import models as doc
from flujo.blueprint.rules.callables import named_in_step, signature_of
from flujo.blueprint.schemas.algebra import types
from flujo.domain.wording import IS_NOT_CACHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

_CACHE = "steps:\n  - kind: cache\n    name: known\n    "
NOT_CACHEABLE = rule(
    "FLJ261",
    "not-cacheable",
    "A cached step that does more than return an output",
    finds="A question to a human, a `save:`, or a second cache inside a cached step; "
    "`when:` on the step of a `kind: cache`.",
    why="The cache keeps only the output: on a hit there is no question to the human, and no field is saved.",
    example=_CACHE + "step: {name: sort, agent: sorter, save: {label: output}}",
    instead=_CACHE + "step: {name: sort, agent: sorter}\n    save: {label: output}",
)
NEVER_CACHED = rule(
    "FLJ262",
    "never-cached",
    "A cached step whose key cannot be computed",
    finds="A cached step whose callable takes `context` and that has no `key:`, or whose callable takes "
    "`resources` of a class without `cache_key`. With `flujo validate --import`, also a callable that "
    "depends on an object which cannot be compared by value: a client, an open file, a bound method of such "
    "an object.",
    why="Two calls with equal input may give different answers, so the step is executed every time. Give "
    "the object, or the class of the resources, an attribute or a method `cache_key` with what decides the "
    "answers, such as the tenant and the address of the server.",
    example="# def score(data, context): …\n"
    "steps:\n  - {name: score, call: skills.risk:score, cache: {ttl_s: 1h}}",
    instead="# def score(data, context): …\n"
    "steps:\n  - {name: score, call: skills.risk:score, cache: {ttl_s: 1h, key: context.country}}",
)
SEARCH_ANSWER = rule(
    "FLJ263",
    "search-answer",
    "An agent of a tree search with the wrong output type",
    finds="An agent under `propose:` whose output schema is not a list, or one under `evaluate:` whose "
    "output schema is neither a number nor an object with a `score`.",
    why="A search continues from a list of candidates and sorts them by a number.",
    example="agents: {thinker: {model: a:b, output_schema: {type: string}}}\n"
    "steps:\n  - {kind: tree_search, name: solve, propose: thinker, evaluate: skills.solve:score}",
    instead="agents: {thinker: {model: a:b, output_schema: {type: array, items: {type: string}}}}\n"
    "steps:\n  - {kind: tree_search, name: solve, propose: thinker, evaluate: skills.solve:score}",
)


def _below(unit: Unit, visit: Visit) -> Iterator[Visit]:
    """Yield the steps inside a step."""
    depth = len(visit.path)
    yield from (one for one in unit.visits if len(one.path) > depth and one.path[:depth] == visit.path)


def never_cached(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of callables that may read any field of the context, or resources that declare no key."""
    policy = visit.step.policy
    if policy is None:
        return
    name = getattr(visit.step, "step", visit.step).name  # of the step inside a `kind: cache`
    for inner in (visit, *_below(unit, visit)):
        named = [(one.target, one.path) for one in named_in_step(inner)]
        named += [
            (place.source.strip(), place.path) for place in unit.places[inner.path] if place.names_callable
        ]
        for target, path in named:
            if path[: len(inner.path) + 1] != (*inner.path, "save"):
                for why, hint in _obstacles(unit, target, has_key=policy.key is not None):
                    yield NEVER_CACHED.at(
                        unit.span(*path),
                        f"step {name!r}{IS_NOT_CACHED}`{target}` {why}",
                        hint=hint,
                        severity=Severity.WARNING,
                    )


def _obstacles(unit: Unit, target: str, *, has_key: bool) -> Iterator[tuple[str, str]]:
    """Yield why the answers of a callable have no key, each with a hint, as far as its source tells."""
    signature = signature_of(unit, target)
    takes = () if signature is None else signature.parameters
    if "context" in takes and not has_key:
        yield "takes `context`", "name the fields that it reads: `key: context.…`"
    if "resources" in takes and (kind := unit.unkeyed_resources) is not None:
        yield (
            f"takes `resources`, and {kind} has no `cache_key`",
            f"give {kind} an attribute or a method `cache_key` with what decides the answers, for instance "
            "the tenant and the address of the database",
        )


def search_answers(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report agents whose output does not fit `propose` or `evaluate`."""
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
                f"agent {name!r} answers with {one_of(sorted(given))}, but `{key}` needs {what}",
                hint=f"remove its `output_schema`: Flujo then requests {what}",
                related=((unit.span("agents", name, "output_schema", key=True), "its output schema"),),
            )
