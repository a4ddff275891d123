"""Rules about instructions: what others wrote does not belong into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, rule
from flujo.blueprint.rules.expressions import located
from flujo.blueprint.schemas.shapes import NoField, follow, shape, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.expression_sites import ExpressionSite
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.domain.ports import Chain

_AGENT = "agents: {helper: {model: a:b, instructions: %s}}\nsteps:\n  - {name: help, agent: helper%s}"
UNTRUSTED_INSTRUCTIONS = rule(
    "FLJ158",
    "untrusted-instructions",
    "Instructions that contain what others wrote",
    finds="`instructions` of an agent with text from the run's input, from an item, or from the output of a "
    "step. Numbers, booleans and texts from a fixed list are fine. `trust: true` on the agent says that the "
    "text is trusted.",
    why="A model follows its instructions, and a text of the input may contain instructions of its own.",
    example=_AGENT % ("'Answer {{ input.question }}'", ""),
    instead=_AGENT % ("Answer the question.", ", input: '{{ input.question }}'"),
)
_OF_THE_RUN = frozenset({"input", "item", "previous", "steps"})
_HARMLESS = frozenset({"boolean", "integer", "null", "number"})


def untrusted_instructions(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of instructions that contain the input of a run or the answers of others."""
    for sites in unit.places.values():
        for site in sites:
            match site.path:
                case ("agents", str(name), "instructions") if not unit.blueprint.agents[name].trust:
                    yield from _untrusted(unit, site, name)
                case _:
                    pass


def _untrusted(unit: Unit, site: ExpressionSite, name: str) -> Iterator[Diagnostic]:
    for chain in site.checked.reads:
        if chain[0] in _OF_THE_RUN and _may_be_any_text(site, chain):
            said = ".".join(chain)
            start = max(site.source.find(said), 0)
            yield UNTRUSTED_INSTRUCTIONS.at(
                located(unit, site, start, start + len(said)),
                f"the instructions of agent {name!r} contain `{said}`, which others may have written",
                hint="write it in the `input` of the step, or write `trust: true` on the agent",
                severity=Severity.WARNING,
            )


def _may_be_any_text(site: ExpressionSite, chain: Chain) -> bool:
    found = follow(shape(site.tree), chain, certain=len(chain))
    return not (isinstance(found, NoField) or found.end.kind in _HARMLESS or values(found.end))
