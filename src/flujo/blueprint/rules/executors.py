"""Rules about steps that name an executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, rule
from flujo.blueprint.language import models as doc
from flujo.blueprint.rules.callables import signature_of
from flujo.domain.executor import DEFAULT_EXECUTOR, only_here, without_secrets
from flujo.domain.pipeline import QUEUE_EXECUTOR
from flujo.domain.wording import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path
    from flujo.exceptions import PipelineError

_CALL = "steps:\n  - {name: parse, call: skills.a:parse, config: {executor: cores}}"

NOTHING_TO_EXECUTE = rule(
    "FLJ321",
    "executor-without-a-callable",
    "An executor of a step that calls no callable",
    finds="`executor` in the `config` of a step that asks an agent, of a kind without `call`, or of a `map` "
    "in which no step has `call`.",
    why="Executors execute callables. A request to a model waits, and stays in the process of the run.",
    example="steps:\n  - {name: draft, agent: writer, config: {executor: cores}}",
    instead=_CALL,
)
RESOURCES_ALONE = rule(
    "FLJ322",
    "resources-without-an-executor",
    "Resources without an executor",
    finds="`resources` of a step or a tool that names no `executor`.",
    why="The amounts are compared with what an executor of flujo.toml has. Without one, nothing reads them.",
    example="steps:\n  - {name: parse, call: skills.a:parse, config: {resources: {cpu: 4}}}",
    instead="steps:\n  - {name: parse, call: skills.a:parse, config: {executor: cores, resources: {cpu: 4}}}",
)
UNKNOWN_EXECUTOR = rule(
    "FLJ323",
    "unknown-executor",
    "An executor that flujo.toml does not have",
    finds="An `executor` that is neither `threads` nor `queue`, and has no table `[executors.NAME]` in "
    "flujo.toml.",
    why="The run could not execute the step.",
    example='# flujo.toml: [executors.cores] kind = "processes"\n' + _CALL.replace("cores", "core"),
    instead='# flujo.toml: [executors.cores] kind = "processes"\n' + _CALL,
)


_CORES = '# flujo.toml: [executors.cores] kind = "processes"\n'
_TOOL = _CORES + "agents: {clerk: {model: a:b, tools: [{call: skills.a:parse, executor: cores%s}]}}\n"
_CLERK = "steps:\n  - {kind: granular, name: serve, agent: clerk}"

CONTEXT_ELSEWHERE = rule(
    "FLJ324",
    "context-elsewhere",
    "A callable with `context` that another process would execute",
    finds='A parameter `context` of a callable, or of a tool, whose executor is not of `kind = "threads"`.',
    why="The context is an object of the process of the run. A worker gets data: the input, or `with:`.",
    example=f"# skills/a.py: def parse(data, context): …\n{_CORES}{_CALL}",
    instead=f"# skills/a.py: def parse(data): …\n{_CORES}{_CALL}",
)
TRANSACTION_ELSEWHERE = rule(
    "FLJ325",
    "transaction-elsewhere",
    "A transactional tool with an executor",
    finds="`executor` of a tool with the effect `transactional`.",
    why="What it writes is committed together with the entry of its call, on a connection of the process of "
    "the run.",
    example=_TOOL % ", effect: transactional" + _CLERK,
    instead=_TOOL % "" + _CLERK,
)
SECRET_ELSEWHERE = rule(
    "FLJ326",
    "secret-elsewhere",
    "A secret that would leave the process of the run",
    finds='`{secret: NAME}` in `with:` of a tool whose executor is not of `kind = "threads"`.',
    why="The value would travel to the worker with each call, and over a network to a cluster.",
    example=_TOOL % ", with: {key: {secret: BANK_KEY}}" + _CLERK,
    instead="# skills/a.py: def parse(data, resources): … resources.bank_key\n" + _TOOL % "" + _CLERK,
)


def _tools(unit: Unit) -> Iterator[tuple[Path, doc.Tool]]:
    """Yield the tools with an executor, each with the keys to it."""
    for name, agent in unit.blueprint.agents.items():
        for path, tool in doc.callable_tools(agent):
            if tool.executor is not None:
                yield ("agents", name, *path[:2]), tool


def unknown_executors(unit: Unit) -> Iterator[Diagnostic]:
    """Report executors that the settings do not have."""
    if unit.project.executors is None:
        return
    known = [DEFAULT_EXECUTOR, QUEUE_EXECUTOR, *unit.project.executors]
    steps = (
        (f"step {visit.step.name!r}", (*visit.path, "config"), visit.step.config.executor)
        for visit in unit.visits
    )
    tools = ((f"tool `{tool.call}`", path, tool.executor) for path, tool in _tools(unit))
    for where, path, name in (*steps, *tools):
        if name is not None and name not in known:
            meant = suggest(name, known, what="there are", cutoff=0.6)
            yield UNKNOWN_EXECUTOR.at(
                unit.span(*path, "executor"),
                f"{where}: there is no [executors.{name}] in flujo.toml",
                hint=f"write a table [executors.{name}]; {meant}",
            )


def left_behind(unit: Unit) -> Iterator[Diagnostic]:
    """Report what an executor outside the process of the run cannot have: the context, and secrets."""
    for visit in unit.visits:
        call, name = getattr(visit.step, "call", None), _executor_of(unit, visit)
        if isinstance(call, str) and _leaves(unit, name) and _takes_context(unit, call):
            where = f"step {visit.step.name!r} runs on executor {name!r}"
            yield _refused(unit, (*visit.path, "call"), only_here(where, call))
    for path, tool in _tools(unit):
        if not _leaves(unit, tool.executor):
            continue
        where = f"tool `{tool.call}` runs on executor {tool.executor!r}"
        if _takes_context(unit, tool.call or ""):
            yield _refused(unit, (*path, "call"), only_here(where, tool.call or ""))
        if any(True for _ in doc.references(tool.with_)):
            yield _refused(unit, (*path, "with"), without_secrets(where))


def _executor_of(unit: Unit, visit: Visit) -> str | None:
    """Return the executor of a step: its own, or that of the next step around it which has one."""
    for length in range(len(visit.path), 0, -1):
        around = unit.visit_at.get(visit.path[:length])
        if around is not None and (name := around.step.config.executor) not in (None, QUEUE_EXECUTOR):
            return name
    return None


def _leaves(unit: Unit, executor: str | None) -> bool:
    """Return whether an executor is known to execute callables in other processes."""
    kind = (unit.project.executors or {}).get(executor or DEFAULT_EXECUTOR, DEFAULT_EXECUTOR)
    return kind != DEFAULT_EXECUTOR


def _takes_context(unit: Unit, target: str) -> bool:
    signature = signature_of(unit, target)
    return signature is not None and "context" in signature.parameters


def _refused(unit: Unit, path: Path, error: PipelineError) -> Diagnostic:
    return RULES[error.code].at(unit.span(*path), error.message, hint=error.hint)
