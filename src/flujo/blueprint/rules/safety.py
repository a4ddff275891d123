"""Rules about safe operation: prompt injection, cached effects, unlimited spending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, one_of, rule
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.traversal import asked
from flujo.blueprint.rules.budgets import is_unbounded
from flujo.blueprint.rules.callables import readable_tools, signature_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

_AGENT = (
    "agents:\n  helper: {model: openai:gpt-5-mini, tools: [skills.crm:lookup, skills.mail:send]}\nsteps:\n"
)
_HELP = "  - {name: help, agent: helper, input: '{{ input.text }}'}"
RULE_OF_TWO = rule(
    "FLJ291",
    "rule-of-two",
    "Agent combines untrusted input, data access and side effects without human approval",
    finds="An agent whose prompt contains the run's input or a step's output, with a tool that may read data "
    "and another one that may have side effects, in a step that no question to a human precedes. A tool "
    "with `approve` and without `when` does not count, because a human sees each of its calls. A tool "
    'declares its effect with `@flujo.tool(effect="read")`, tools of an MCP server with `effect: read`; '
    "without a declaration any effect is possible.",
    why="An untrusted text can contain instructions for the model. An agent with all three can be tricked "
    "into sending out the data that it reads; with any two of them it cannot.",
    example=_AGENT + _HELP,
    instead=_AGENT
    + "  - {kind: hitl, name: approve, message: '{{ input.text }}', answer_schema: {type: boolean}}\n"
    + "  - {name: help, agent: helper, when: steps.approve.output, input: '{{ input.text }}'}",
)


def rule_of_two(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of an agent that a text could instruct to send data out."""
    step = visit.step
    if not isinstance(step, doc.AgentStep):
        return
    if not any(name in unit.blueprint.agents for name in doc.agents_of(step.agent)):
        return
    if not _reads_from_outside(unit, visit) or _asked_a_human(unit, visit):
        return
    for (_, *keys), name in asked(step):
        if name in unit.blueprint.agents:
            yield from _can_send_data_out(unit, (*visit.path, "agent", *keys), name)


def _can_send_data_out(unit: Unit, path: Path, name: str) -> Iterator[Diagnostic]:
    effects = _effects(unit, unit.blueprint.agents[name])
    reading = [tool for tool, effect in effects.items() if effect in (None, "read")]
    approved = _approved(unit.blueprint.agents[name])
    acting = [tool for tool, effect in effects.items() if effect != "read" and tool not in approved]
    if not reading or not acting or len({*reading, *acting}) < 2:
        return
    undeclared = [tool for tool, effect in effects.items() if effect is None]
    yield RULE_OF_TWO.at(
        unit.span(*path),
        f"agent {name!r} reads untrusted text, may read data "
        f"({one_of(reading, joined_by='and')}) and may have side effects "
        f"({one_of(acting, joined_by='and')})",
        hint='declare tools that only read: `@flujo.tool(effect="read")`, or `effect: read` with `mcp`'
        if undeclared
        else "ask a human first (`kind: hitl`), let a human approve the calls (`approve: true` on "
        "the tool of a `granular` step), or move the side effects to an agent without untrusted text",
        severity=Severity.WARNING,
    )


def _approved(agent: doc.Agent) -> set[str]:
    """Return the tools of which a human approves each call; a condition lets some calls pass."""
    return {
        tool.call or name
        for _, tool in doc.called_tools(agent)
        if tool.approve is True or (tool.approve and tool.approve.when is None)
        for name in ([f"mcp:{tool.mcp}/{each}" for each in tool.allow or ()] or [f"mcp:{tool.mcp}/*"])
    }


def _effects(unit: Unit, agent: doc.Agent) -> Mapping[str, str | None]:
    """Return the declared effect of each of an agent's tools, or None."""
    effects: dict[str, str | None] = {}
    for _, tool in doc.callable_tools(agent):
        signature = signature_of(unit, tool.call or "")
        effects[tool.call or ""] = tool.effect or (None if signature is None else signature.effect)
    for _, tool in doc.mcp_tools(agent):
        names = tool.allow or (unit.project.servers or {}).get(tool.mcp or "") or ("*",)
        effects |= dict.fromkeys((f"mcp:{tool.mcp}/{name}" for name in names), tool.effect)
    return effects


_OUTSIDE = frozenset({"input", "previous", "steps", "item", "context", "loop"})


def _reads_from_outside(unit: Unit, visit: Visit) -> bool:
    step = visit.step
    if isinstance(step, doc.AgentStep) and (step.input is None or step.files or step.thread is not None):
        # Its input is the output before; a picture can contain instructions; a thread has others' answers.
        return True
    return any(
        chain[0] in _OUTSIDE or chain[0] in visit.scope.names
        for place in unit.places[visit.path]
        if place.path[: len(visit.path) + 1] == (*visit.path, "input") or place.path[:1] == ("agents",)
        for chain in place.checked.reads
    )


def _asked_a_human(unit: Unit, visit: Visit) -> bool:
    """Return whether a question to a human always precedes this step."""
    before = (unit.visit_at.get(path) for path in visit.scope.places.values())
    return any(one is not None and one.step.asks_human for one in before)


PAUSE_INSIDE_AGENT = rule(
    "FLJ294",
    "pause-inside-agent",
    "A tool that pauses the run inside an agent",
    finds="An agent's tool that raises `PausedException`.",
    why="The human's answer becomes the output of the whole step: the model that called the tool never sees "
    "it, and the effects of earlier tool calls remain.",
    example="# skills/mail.py: def confirm(text): raise PausedException('Send it?')\n"
    "agents: {helper: {model: openai:gpt-5-mini, tools: [skills.mail:confirm, skills.mail:send]}}\n"
    "steps:\n  - {name: help, agent: helper}",
    instead="agents: {helper: {model: openai:gpt-5-mini}}\n"
    "steps:\n  - {name: draft, agent: helper}\n"
    "  - {kind: hitl, name: ok, message: 'Send {{ previous }}?', answer_schema: {type: boolean}}\n"
    "  - {name: send, call: skills.mail:send, when: steps.ok.output,\n"
    "     with: {text: '{{ steps.draft.output }}'}}",
)


def pauses_inside_agents(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of tools that raise `PausedException`, which ends the agent's step."""
    for name, path, tool, signature in readable_tools(unit):
        if signature.pauses:
            yield PAUSE_INSIDE_AGENT.at(
                unit.span("agents", name, *path),
                f"tool `{tool.call}` asks a human, and the answer becomes the output of the step of "
                f"agent {name!r}",
                hint="ask in a separate step: `kind: hitl`",
                severity=Severity.WARNING,
            )


CACHED_EFFECT = rule(
    "FLJ292",
    "cached-effect",
    "A call with an effect inside a cached step",
    finds="A call that declares an `effect` other than `read`, or has `enforce_idempotency: true`, in a "
    "step with `cache:` or in a `kind: cache`.",
    why="On a cache hit the call is not made: the second customer gets the first one's output, and no mail.",
    example="steps:\n  - {name: mail, call: skills.mail:send, effect: unsafe, cache: {ttl_s: 1h}}",
    instead="steps:\n  - {name: write, agent: writer, cache: {ttl_s: 1h}}\n"
    "  - {name: mail, call: skills.mail:send, effect: unsafe}",
)


def cached_effects(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of calls with an effect that a cache hit would skip."""
    if visit.step.policy is None:
        return
    for inner in unit.visits:
        if inner.path[: len(visit.path)] == visit.path and (effect := _declared_effect(unit, inner.step)):
            yield CACHED_EFFECT.at(
                unit.span(*inner.path, "call"),
                f"step {inner.step.name!r} has an effect ({effect}), but {visit.step.name!r} is cached: "
                "on a cache hit the call is not made",
                hint="cache only the steps before the call, and call outside the cache",
                severity=Severity.WARNING,
            )


def _declared_effect(unit: Unit, step: doc.BaseStep) -> str | None:
    """Return the effect that a call declares, or None if it has none."""
    if not isinstance(step, doc.Step) or step.call is None:
        return None
    signature = signature_of(unit, step.call)
    said = step.effect if "effect" in step.model_fields_set else signature.effect if signature else None
    if said is None:
        return "idempotency is enforced" if step.enforce_idempotency else None
    return None if said == "read" else said


RECORDED_LATE = rule(
    "FLJ295",
    "recorded-late",
    "An idempotent call that is recorded only at the end of the run",
    finds="`durability: exit` on a call with `enforce_idempotency: true`. (A run without persistence is "
    "rejected at the start.)",
    why="The start of the call is recorded at once, its result is not. A crash in between leaves a completed "
    "call in doubt.",
    example="steps:\n  - {name: pay, call: skills.bank:pay, enforce_idempotency: true,\n"
    "     config: {durability: exit}}",
    instead="steps:\n  - {name: pay, call: skills.bank:pay, enforce_idempotency: true}",
)


def recorded_late(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of idempotent calls whose results are recorded late."""
    step = visit.step
    if isinstance(step, doc.Step) and step.enforce_idempotency and step.config.durability == "exit":
        yield RECORDED_LATE.at(
            unit.span(*visit.path, "config", "durability", key=True),
            f"step {step.name!r} must not run twice, but its result is recorded only when the run ends",
            hint="remove `durability`: the result is then recorded before the next step starts",
            severity=Severity.WARNING,
        )


UNBOUNDED_LOOP = rule(
    "FLJ293",
    "unbounded-spending",
    "An agent in a loop without a budget or a token limit",
    finds="An agent inside a loop, a map, a state machine or a search, in a blueprint without `budget:` in a "
    "project without `[budgets]`, and without `max_tokens` in its `model_settings`. Local models "
    "cost nothing.",
    why="A loop that does not end multiplies the cost of a response, and a response may be long.",
    example="agents: {writer: {model: openai:gpt-5-mini}}\n"
    "steps:\n  - {kind: loop, name: again, until: steps.write.output == 'done',\n"
    "     steps: [{name: write, agent: writer}]}",
    instead="budget: {total_cost_usd_limit: 0.5}\n"
    "agents: {writer: {model: openai:gpt-5-mini, model_settings: {max_tokens: 500}}}\n"
    "steps:\n  - {kind: loop, name: again, until: steps.write.output == 'done',\n"
    "     steps: [{name: write, agent: writer}]}",
)


def unbounded_spending(unit: Unit) -> Iterator[Diagnostic]:
    """Warn once of each agent that is called repeatedly without a token limit or a budget."""
    if unit.is_bounded or unit.blueprint.budget is not None:
        return
    found: dict[str, str] = {}
    for visit in unit.visits:
        around = (unit.visit_at.get(visit.path[:length]) for length in range(2, len(visit.path)))
        repeats = any(one is not None and one.step.repeats for one in (visit, *around))
        for _, name in asked(visit.step) if repeats else ():
            found.setdefault(name, visit.step.name)
    for name, step in found.items():
        agent = unit.blueprint.agents.get(name)
        if agent is not None and is_unbounded(agent):
            yield UNBOUNDED_LOOP.at(
                unit.span("agents", name, key=True),
                f"agent {name!r} is called repeatedly (in {step!r}) without a limit on its cost",
                hint="limit the run: `budget: {total_cost_usd_limit: 1.0}`, or each response: "
                "`model_settings: {max_tokens: 1000}`",
                severity=Severity.WARNING,
            )
