"""A blueprint's story in words: what it takes and gives, does and touches, where it waits, what bounds it."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flujo.domain.agents import AgentSpec
from flujo.domain.paths import shown
from flujo.domain.personal_data import pii_of
from flujo.domain.pipeline import FALLBACK
from flujo.domain.steps import cached_step
from flujo.domain.tools import CalledTool, called_tools
from flujo.domain.values import CallableRef, TimeLimit, one_line
from flujo.domain.wording import IS_NOT_CACHED, plural, span
from flujo.engine.failed_calls import harmless_names
from flujo.engine.idempotent_calls import REPEATABLE
from flujo.exceptions import SettingsError
from flujo.services.inspection.inventory import inventory
from flujo.services.inspection.tool_effects import declared_effects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.domain.schedules import Schedule
    from flujo.services.inspection.tool_effects import Effects
    from flujo.services.project.project import Project
    from flujo.settings_tables import QueueTable

_INDENT = "   "
_KINDS = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "yes or no"}
_LONG = 100
"""How much of a prompt a story quotes, in characters."""


def story(project: Project, path: str, pipeline: Pipeline, findings: Iterable[Diagnostic] = ()) -> str:
    """Return the story of the blueprint at `path` as plain text; nothing that it names is imported."""
    head = f"{pipeline.name}: {pipeline.description}" if pipeline.description else pipeline.name
    parts = [
        [head, *_ends(pipeline)],
        ["What it does, in order:", *_body(pipeline, _INDENT)],
        *_at_the_end(pipeline),
        ["What it touches:", *_listed(_touches(path, pipeline, declared_effects(project)))],
        ["Where it waits:", *_listed(_waits(pipeline))],
        *_cached(pipeline, findings),
        *_doubts(pipeline, declared_effects(project)),
        ["What bounds it:", *_listed([*_bounds(pipeline), *_project_bounds(project, pipeline)])],
        *_personal(project, pipeline),
        *_operated(project, path, pipeline),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def shape(schema: Any) -> str:
    """Return what a JSON Schema allows, in a few words."""
    if not isinstance(schema, dict):
        return "anything"
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    match schema.get("type"):
        case "object":
            names = ", ".join(schema.get("properties", ()))
            return f"an object with {names}" if names else "an object"
        case "array":
            return f"a list, each item {shape(schema.get('items'))}"
        case str() as kind:
            return _KINDS.get(kind, kind)
        case _:
            return "anything"


def _ends(pipeline: Pipeline) -> Iterator[str]:
    yield f"It takes {shape(pipeline.input_schema)}."
    gives = (
        f"gives `{one_line(pipeline.output)}`"
        if pipeline.output is not None
        else "gives what its last step gives"
    )
    yield f"It {gives}."
    if pipeline.context_type is not None:
        yield f"It keeps a context of the class {pipeline.context_type.target}."
    elif pipeline.context_schema is not None:
        yield f"It keeps a context: {shape(pipeline.context_schema)}."


def _at_the_end(pipeline: Pipeline) -> Iterator[list[str]]:
    if pipeline.on_failure is not None:
        yield ["What it does when it fails, before it ends as failed:", *_body(pipeline.on_failure, _INDENT)]
    if pipeline.finally_ is not None:
        head = "What it does when it has completed, failed or been cancelled, before it ends:"
        yield [head, *_body(pipeline.finally_, _INDENT)]


def _body(body: Pipeline, indent: str) -> Iterator[str]:
    for number, step in enumerate(body.steps, 1):
        yield f"{indent}{number}. {step.name} {_sentence(step)}"
        yield from _arms(step, indent + _INDENT)


def _arms(step: BaseStep, indent: str) -> Iterator[str]:
    for name, body in step.bodies().items():
        if step.names_bodies:
            yield f"{indent}{name}{_ways(step, name)}:"
        elif name == FALLBACK:
            yield f"{indent}when that fails:"
        elif step.is_tool(name):
            yield f"{indent}as a tool:"
        is_labelled = step.names_bodies or name == FALLBACK or step.is_tool(name)
        yield from _body(body, indent + _INDENT if is_labelled else indent)


def _ways(step: BaseStep, name: str) -> str:
    """Return where a state leads; nothing for a branch."""
    flow = step.flow()
    if flow is None:
        return ""
    ways = [to if when is None else f"{to} when {when}" for to, when in flow.ways[name]]
    said = f"then {', else '.join(ways)}" if ways else "final"
    failed = f"; {flow.failures[name]} on error" if name in flow.failures else ""
    return f" ({said}{failed})"


def _sentence(step: BaseStep) -> str:
    """Return one step as a sentence that begins with its verb."""
    said = step.verb + step.summary()
    if (given := getattr(step, "input", None)) is not None:
        said += f" with {textwrap.shorten(one_line(given), _LONG, placeholder=' …')}"
    if step.sends is not None:
        said += f", and sends {textwrap.shorten(one_line(step.sends), _LONG, placeholder=' …')}"
    if step.save:
        said += f", and keeps {', '.join(step.save)} in the context"
    said += _instead(step) + step.config.launch
    if step.when is not None:
        said += f"; only when {step.when}"
    return said + "."


def _instead(step: BaseStep) -> str:
    """Return what a step gives when it fails, in words that follow its sentence."""
    match step.instead:
        case "fail":
            return ""
        case "skip":
            return "; when it fails, passes on what it got"
        case other:
            given = textwrap.shorten(one_line(other["output"]), _LONG, placeholder=" …")
            return f"; when it fails, gives {given}"


def _touches(path: str, pipeline: Pipeline, effects: Effects) -> Iterator[str]:
    words = {"agent": "the model {} as {}", "callable": "the callable {1}", "import": "the blueprint {1}"}
    tools = [(agent, tool) for agent in _agents(pipeline) for tool in agent.tools]
    called = {
        call.target for _, step in pipeline.walk() for call in step.names() if isinstance(call, CallableRef)
    }
    only_tools = {name.target for _, tool in tools for name in tool.names()} - called
    for item in inventory(path, pipeline):
        if item.what in words and item.name not in only_tools:
            yield words[item.what].format(item.detail, item.name)
    for agent, tool in tools:
        yield f"the tool {tool}, which {agent.name} may call; effect: {effects(tool)}"


def _agents(pipeline: Pipeline) -> Iterable[AgentSpec]:
    named = (one for _, step in pipeline.walk() for one in step.names())
    return {one.name: one for one in named if isinstance(one, AgentSpec)}.values()


def _waits(pipeline: Pipeline) -> Iterator[str]:
    for path, step in pipeline.walk():
        if (question := step.question) is not None:
            limit = _until(question.deadline_s)
            answer = shape(question.answer_schema)
            if question.event is None:
                yield f"at {shown(path)} for a human, {limit}; the answer is {answer}"
            else:
                yield f"at {shown(path)}: {step.summary()}, {limit}; the payload is {answer}"
        elif step.only_waits:
            yield f"at {shown(path)}: {step.summary()}"
        for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
            for tool in called_tools(agent.tools):
                if (asked := tool.approve) is not None:
                    limit = _until(asked.deadline_s)
                    yield f"at {shown(path)} before it calls `{tool.name}`, {limit}: {asked}"
        if getattr(step, "on_limit", None) == "pause":
            turns = plural(getattr(step, "max_turns", 0), "turn")
            yield f"at {shown(path)} for a human, when there is no answer after {turns}"


def _until(deadline_s: float | TimeLimit | None) -> str:
    return "without a deadline" if deadline_s is None else f"at most {_duration(deadline_s)}"


def _duration(limit: float | TimeLimit) -> str:
    return str(limit) if isinstance(limit, TimeLimit) else span(limit)


_IN_DOUBT = {
    "pause": "asks a human how its call ended",
    "retry_same_key": "is called again with the same key, as often as it is retried",
    "reconcile": "asks {} whether its call was made",
    "fail": "fails",
}


def _doubts(pipeline: Pipeline, effects: Effects) -> Iterator[list[str]]:
    """Yield a section about the calls that can be in doubt, if there are any."""
    steps: list[tuple[str, Any]] = [
        (path, step)
        for path, step in pipeline.walk()
        if getattr(step, "enforce_idempotency", False)
        and (step.kind == "granular" or getattr(step, "call", None) is not None)
    ]
    of_tools = [line for path, step in pipeline.walk() for line in _doubts_of_tools(path, step, effects)]
    if not steps and not of_tools:
        return
    lines = []
    for path, step in steps:
        effect, does = getattr(step, "effect", "unsafe"), _in_doubt(step, step.in_doubt)
        when = "after a crash" if effect in REPEATABLE else "after a crash and after a failure"
        which = ", for each tool call" if step.kind == "granular" else ""
        lines.append(
            f"{shown(path)} (`enforce_idempotency`, `in_doubt: {step.in_doubt}`) {does}{which}: {when}"
        )
    yield ["What happens when it is unknown whether a call took effect:", *_listed([*lines, *of_tools])]
    if of_tools or any(getattr(step, "effect", "unsafe") not in REPEATABLE for _, step in steps):
        yield ["A failure is not a doubt when it is one of these:", *_listed(harmless_names())]


def _doubts_of_tools(path: str, step: BaseStep, effects: Effects) -> Iterator[str]:
    """Yield what happens to the recorded calls of tools for which the step's own line does not hold."""
    if step.kind != "granular":
        return
    is_enforced, policy = getattr(step, "enforce_idempotency", False), getattr(step, "in_doubt", "pause")
    for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
        for tool in (each for each in agent.tools if isinstance(each, CalledTool)):
            is_other = tool.in_doubt is not None if is_enforced else tool.is_recorded
            if is_other and not effects(tool).startswith((*REPEATABLE, "transactional")):
                does = _in_doubt(step, tool.in_doubt or policy)
                which = f"for each call of `{tool.name}`: after a crash and after a failure"
                yield f"{shown(path)} {does}, {which}"


def _in_doubt(step: BaseStep, policy: str) -> str:
    reconcile = getattr(step, "reconcile", None)
    return _IN_DOUBT[policy].format(reconcile.target if reconcile else "a human")


def _cached(pipeline: Pipeline, findings: Iterable[Diagnostic]) -> Iterator[list[str]]:
    """Yield a section about the cached steps, if there are any."""
    refused = dict(each.message.split(IS_NOT_CACHED, 1) for each in findings if each.code == "FLJ262")
    lines = []
    for path, outer in pipeline.walk():
        step, policy = cached_step(outer)
        if policy is not None and (why := refused.get(f"step {step.name!r}")) is not None:
            lines.append(f"{shown(path)} is not cached, because {why}")
        elif policy is not None:
            kept = "until it is evicted" if policy.ttl_s is None else f"for {span(policy.ttl_s)}"
            lines.append(f"{shown(path)}: its answer to equal input, {kept}")
    if lines:
        yield ["What it answers from the cache:", *_listed(lines)]


def _bounds(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.deadline_s is not None:
        yield f"deadline: a run fails {_duration(pipeline.deadline_s)} after its acceptance"
    for name, limit in pipeline.budget.given() if pipeline.budget else ():
        yield f"budget: {name} {_amount(name, limit)}"
    for path, step in pipeline.walk():
        for bound in step.limits():
            yield f"{shown(path)}: {bound}"
        if step.config.timeout_s is not None:
            yield f"{shown(path)}: {_duration(step.config.timeout_s)} an attempt"
        if step.config.max_retries:
            yield f"{shown(path)}: {_times(step.config.max_retries)} more when it fails"
    if not pipeline.budget and any(_agents(pipeline)):
        yield "no budget of its own: nothing limits what its models may cost"


def _amount(name: str, limit: float) -> str:
    return span(limit) if name.endswith("_s_limit") else f"{limit:g}"


def _personal(project: Project, pipeline: Pipeline) -> Iterator[list[str]]:
    """Yield a section about personal data, if it is masked or declared."""
    governance = project.settings.governance
    lines = [governance.summary] if governance.pii_scrub else []
    for fields, of in ((pipeline.input_schema, "input"), (pipeline.context_schema, "context")):
        for name, choice in pii_of(fields).items():
            lines.append(f"{of}.{name} is {_MASKING[choice]}")
    masked = ((path, step.masking) for path, step in pipeline.walk() if step.masking)
    lines += [f"{shown(path)} has it {_MASKING[choice]}" for path, choice in masked]
    if lines:
        yield ["Personal data:", *_listed(lines)]


_MASKING = {"scrub": "masked", "tokenise": "tokenised in requests to models", "keep": "kept"}


def _operated(project: Project, path: str, pipeline: Pipeline) -> Iterator[list[str]]:
    """Yield a section about what workers do with its runs, if the blueprint or the settings say anything."""
    settings = project.settings
    lines = [_scheduled(one, pipeline.name) for one in (*pipeline.schedules, *_tables(project, path))]
    for step_path, step in pipeline.walk():
        if (queue := step.config.queue) is not None:
            limits = _limits_of(settings.queues.get(queue))
            what = "each batch" if step.config.is_spread else "the task"
            lines.append(f"{what} of {shown(step_path)} waits for a worker of the queue {queue}{limits}")
    for status, age_s in settings.retention.ages.items():
        lines.append(f"a {status} run is deleted {span(age_s)} after its last change")
    if lines:
        yield ["What workers do with it:", *_listed(lines)]


def _scheduled(schedule: Schedule, pipeline: str) -> str:
    name, times = schedule.name or pipeline, f"`{schedule.cron}` in {schedule.timezone}"
    said = f"schedule {name}: runs are started at {times}"
    return said if schedule.queue is None else f"{said}, through the queue {schedule.queue}"


def _tables(project: Project, path: str) -> Iterator[Schedule]:
    """Yield the schedules of flujo.toml that run the blueprint at `path`."""
    for name, table in project.settings.schedules.items():
        with suppress(SettingsError):  # `flujo validate` reports a table that names no blueprint
            if project.locate(table.blueprint, project.root) == path:
                yield table.named(name)


def _project_bounds(project: Project, pipeline: Pipeline) -> Iterator[str]:
    """Yield what flujo.toml says about tools, and about budgets that runs of this pipeline may count in."""
    tools = project.settings.governance.tools
    if tools is not None:
        yield f"tools that models may call in this project: {', '.join(tools) or 'none'}"
    for rule in project.settings.budgets.rules:
        if rule.match.blueprint in (None, pipeline.name):
            limits = ", ".join(f"{name} {_amount(name, limit)}" for name, limit in rule.limits.given())
            yield f"budget `{rule.name}` of several runs: {limits} (window: {rule.window.span})"


def _limits_of(queue: QueueTable | None) -> str:
    """Return the limits of a queue, in words that follow its name."""
    if queue is None:
        return ""
    said = [f"at most {queue.concurrency} at once"] if queue.concurrency is not None else []
    said += [f"at most {queue.rate}"] if queue.rate is not None else []
    said += [f"one at a time for each `{queue.per_key}`"] if queue.per_key is not None else []
    return f": {', '.join(said)}" if said else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"{_INDENT}- {line}" for line in lines] or [f"{_INDENT}- nothing"]
