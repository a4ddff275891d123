"""The contents of a lock: steps, agents and callables of blueprints, as plain data.

They are built from the tree, so comments, line ends, the order of keys and files of prompts do not matter.
Only the branches of a parallel step or a router keep their order, which decides which write is the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from flujo.blueprint.sources.project_imports import imported_files
from flujo.blueprint.sources.signatures import declaration
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.paths import ROOT, StepPath, branch, child
from flujo.domain.pipeline import BaseStep, Pipeline
from flujo.domain.secrets import named
from flujo.domain.tools import CallableTool, ComposedTool, McpTools
from flujo.domain.values import CallableRef, Expr, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.sources.source_files import Source
    from flujo.domain.mcp import ListedTools

Contents = dict[str, Any]

NOT_LISTED: Contents = {"sha256": ""}
"""The entry of an MCP server that no lock has: only `flujo lock` and a run start it."""

NOT_HERE = "not in this project"
"""The entry of a callable whose source is in an installed package."""

BUILT_IN = "built in"
"""The provider of an agent in an environment where, unlike in the default, the project does not name it."""

DEFAULT = ""
"""The environment that applies if none is selected."""


@dataclasses.dataclass(frozen=True, slots=True)
class Environment:
    """The effect of one `[env.NAME]` on agents, and the settings that change the behaviour of runs."""

    models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Agent → model; `*` stands for all agents that are not named."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    providers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Provider of the project → what decides its answers, without secrets."""


def contents(
    trees: Mapping[str, Pipeline],
    source: Source,
    environments: Mapping[str, Environment] | None = None,
    libraries: Mapping[str, str] | None = None,
    servers: Mapping[str, Contents] | None = None,
    evaluators: Iterable[str] = (),
) -> Contents:
    """Return the contents of a lock of these blueprints.

    Args:
        trees: blueprints by their project paths, compiled without overrides of models.
        source: the source files of callables, which are not imported.
        environments: by name; `DEFAULT` has none.
        libraries: versions of libraries that affect behaviour.
        servers: the entries of MCP servers, by name; those that no agent uses are left out.
        evaluators: the callables of evaluators, which no blueprint names.
    """
    environments = environments or {}
    held: Contents = {"blueprints": {}, "agents": {}, "callables": {}}
    for file, pipeline in _files(trees):
        held["blueprints"][file] = _blueprint(pipeline)
        for agent in _agents(pipeline):
            held["agents"].setdefault(file, {})[agent.name] = _everywhere(agent, source, environments)
        for target in _targets(pipeline):
            held["callables"][target] = _source(target.partition(":")[0], source)
    for target in evaluators:
        held["callables"][target] = _source(target.partition(":")[0], source)
    used = servers_of(trees)
    held["mcp"] = {name: (servers or {}).get(name, NOT_LISTED) for name in used}
    settings = _settings(environments)
    return held | {"settings": settings, "libraries": dict(libraries or {})}


def servers_of(trees: Mapping[str, Pipeline]) -> list[str]:
    """Return the names of the MCP servers whose tools the agents of blueprints may call."""
    agents = (agent for _, pipeline in _files(trees) for agent in _agents(pipeline))
    return sorted({tool.server for agent in agents for tool in agent.tools if isinstance(tool, McpTools)})


def server_entry(tools: ListedTools) -> Contents:
    """Return the entry of an MCP server."""
    listed = {name: tool.to_json() for name, tool in sorted(tools.items())}
    digests = {name: tool["sha256"] for name, tool in listed.items()}
    return {"sha256": canonical.digest(canonical.encode(digests)), "tools": listed}


def _source(module: str, source: Source) -> str:
    """Return the digest of a module and of the project's modules that it imports."""
    files = imported_files(module, source)
    own = files.get(f"{module.replace('.', '/')}.py") or files.get(f"{module.replace('.', '/')}/__init__.py")
    if own is None:
        return NOT_HERE
    return own if len(files) == 1 else canonical.digest(canonical.encode(files))


def seen_from(held: Contents, environment: str) -> Contents:
    """Return the contents for one environment, without the agents of others."""

    def seen(one: Contents) -> Contents:
        own = table(table(one.get("env")).get(environment))
        merged = {key: value for key, value in one.items() if key != "env"} | dict(own)
        return {key: value for key, value in merged.items() if (key, value) != ("provider", BUILT_IN)}

    agents = {file: {name: seen(one) for name, one in some.items()} for file, some in held["agents"].items()}
    return held | {"agents": agents, "settings": seen(held["settings"])}


def about(held: Contents, files: Iterable[str]) -> Contents:
    """Return the part of the contents about the steps and agents of these files."""
    kept = set(files)
    parts = {
        section: {file: one for file, one in held[section].items() if file in kept}
        for section in ("blueprints", "agents")
    }
    return {section: {} for section in held} | parts


def imports_of(held: Contents, entry: str) -> Iterator[tuple[str, str]]:
    """Yield each file that a blueprint consists of, itself first, and the path of the imports to it.

    The path ends in `/`, so that a step's path can be appended; a file that is imported twice occurs twice.
    """
    waiting: list[tuple[str, str, tuple[str, ...]]] = [(entry, "", ())]
    for _ in range(_MOST):
        if not waiting:
            return
        file, above, chain = waiting.pop()
        if file in chain or file not in held["blueprints"]:
            continue  # only a lock that was edited by hand has cycles
        yield file, above
        for path, own in table(held["blueprints"][file].get("steps")).items():
            if isinstance(own, dict) and own.get("kind") == "import":
                waiting.append((str(own.get("blueprint")), f"{above}{path}/", (*chain, file)))


_MOST = 20_000
"""The maximum number of imports to follow: the maximum number of steps of a blueprint."""


def table(value: Any) -> Mapping[str, Any]:
    """Return a value if it is a table, else an empty table: a hand-edited lock may have any value."""
    return value if isinstance(value, dict) else {}


# Walking -------------------------------------------------------------------------------------------------


def _files(trees: Mapping[str, Pipeline]) -> Iterator[tuple[str, Pipeline]]:
    """Yield every blueprint of the closures once, with its file."""
    seen: set[str] = set()
    waiting = list(trees.items())
    while waiting:
        here, one = waiting.pop()
        if here not in seen:
            seen.add(here)
            yield here, one
            imports = [step.imported for _, step in _steps(one)]
            waiting += [(each.blueprint, each.pipeline) for each in imports if each is not None]


def _steps(pipeline: Pipeline, path: StepPath = ROOT) -> Iterator[tuple[StepPath, BaseStep]]:
    """Yield the steps of one file by their paths, without those of imported blueprints."""
    for step in pipeline.steps:
        here = child(path, step.name)
        yield here, step
        if step.imported is None:
            for name, body in step.bodies().items():
                yield from _steps(body, branch(here, name) if step.names_bodies else here)
    for name, body in pipeline.endings().items():
        yield from _steps(body, branch(path, name))


def _agents(pipeline: Pipeline) -> Iterator[AgentSpec]:
    yield from (one for _, step in _steps(pipeline) for one in step.names() if isinstance(one, AgentSpec))


def _targets(pipeline: Pipeline) -> Iterator[str]:
    """Yield the callables that one file names."""
    named = [pipeline.context_type, *(one for _, step in _steps(pipeline) for one in step.names())]
    for agent in _agents(pipeline):
        named += agent.names()
    yield from (one.target for one in named if isinstance(one, CallableRef))


# Agents --------------------------------------------------------------------------------------------------


def _everywhere(agent: AgentSpec, source: Source, environments: Mapping[str, Environment]) -> Contents:
    """Return an agent without an environment, and its differences in others under `env`."""
    default = _answered_by(agent, environments.get(DEFAULT, Environment()))
    other = {
        name: {key: value for key, value in _answered_by(agent, one).items() if value != default[key]}
        for name, one in environments.items()
        if name != DEFAULT
    }
    differing = {name: one for name, one in other.items() if one}
    held = _agent(agent, source) | {key: value for key, value in default.items() if value != BUILT_IN}
    return held | ({"env": differing} if differing else {})


def _answered_by(agent: AgentSpec, environment: Environment) -> Contents:
    """Return the model of an agent in an environment, and its provider."""
    model = _model(agent, environment.models)
    return {"model": model, "provider": _json(environment.providers.get(model.partition(":")[0], BUILT_IN))}


def _model(agent: AgentSpec, models: Mapping[str, str]) -> str:
    return models.get(agent.name) or models.get("*") or agent.model


def _agent(agent: AgentSpec, source: Source) -> Contents:
    held: Contents = {"model": agent.model}
    if agent.instructions is not None:
        text = agent.instructions.source.replace("\r\n", "\n")
        held |= {"instructions": text, "instructions_sha256": canonical.digest(text.encode())}
        held |= {"template": False} if agent.instructions.literal else {}
    if agent.output_type is not None:
        held["output_type"] = agent.output_type.target
    served = {str(one): _said(one) for one in agent.tools if isinstance(one, McpTools)}
    held |= {"mcp": served} if served else {}
    others = [one for one in agent.tools if not isinstance(one, McpTools)]
    if others:
        held["tools"] = {str(one): _declared(one, source) for one in others}
        rules = {str(one): own for one in others if (own := _rules(one))}
        held |= {"tool_rules": rules} if rules else {}
    settings = dict(agent.model_settings) | {
        key: value
        for key, value in (("retries", agent.retries), ("tool_timeout", agent.tool_timeout))
        if value is not None
    }
    held |= {"settings": _json(settings)} if settings else {}
    return held | ({} if agent.output_schema is None else {"output_schema": _json(agent.output_schema)})


def _declared(tool: CallableTool | ComposedTool, source: Source) -> str:
    """Return the declaration of a callable; of another tool, what it runs, which has entries of its own."""
    if isinstance(tool, CallableTool):
        return declaration(tool.call.target, source) or NOT_HERE
    return tool.runs


_RUN = ("call", "pipeline", "agent", "name")
"""The fields of a tool that say what it runs."""


def _rules(tool: CallableTool | ComposedTool) -> Contents:
    """Return the rules of a tool's calls that differ from their defaults."""
    own = {key: value for key, value in _said(tool).items() if key not in _RUN}
    if isinstance(tool, CallableTool) and tool.with_:
        del own["with_"]
        own["with"] = named(tool.with_)
    return own


def _settings(environments: Mapping[str, Environment]) -> Contents:
    base: Contents = _json(dict(environments.get(DEFAULT, Environment()).settings))
    other = {
        name: {key: value for key, value in _json(dict(one.settings)).items() if value != base.get(key)}
        for name, one in environments.items()
        if name != DEFAULT
    }
    differing = {name: one for name, one in other.items() if one}
    return base | ({"env": differing} if differing else {})


# Steps ---------------------------------------------------------------------------------------------------


def _blueprint(pipeline: Pipeline) -> Contents:
    steps = list(_steps(pipeline))
    held: Contents = {
        "name": pipeline.name,
        "order": _plain(pipeline),
        "steps": {path: _json(_own(step)) for path, step in steps},
    }
    whole = {
        "input_schema": pipeline.input_schema,
        "context_schema": pipeline.context_schema,
        "context": pipeline.context_type,
        "output": pipeline.output,
        "budget": pipeline.budget,
        "deadline_s": pipeline.deadline_s,
    }
    return held | {key: _json(_plain(value)) for key, value in whole.items() if value is not None}


def _own(step: BaseStep) -> Contents:
    """Return a step's own fields; for the steps inside it, only their names."""
    own = {"kind": step.kind, **_said(step)}
    own.pop("name")
    if step.is_ordered:
        own["order"] = list(step.bodies())
    if step.imported is not None:
        own.pop("pipeline")  # has an entry of its own
    return own


def _said(thing: Any) -> Contents:
    """Return the fields of a part of the tree that differ from their defaults."""
    usual = _usual(type(thing))  # type: ignore[arg-type]  # classes are hashable
    fields = {each.name: getattr(thing, each.name) for each in dataclasses.fields(thing)}
    said = {
        name: _plain(value) for name, value in fields.items() if name not in usual or value != usual[name]
    }
    return {name: value for name, value in said.items() if name not in usual or value != {}}


@cache
def _usual(kind: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the defaults of a class's fields."""
    fields = dataclasses.fields(cast("Any", kind))
    made = {each.name: each.default_factory() for each in fields if callable(each.default_factory)}
    given = {each.name: each.default for each in fields if each.default is not dataclasses.MISSING}
    return {**made, **given}


def _plain(value: Any) -> Any:
    """Return a part of a step as JSON data."""
    match value:
        case Pipeline(steps=steps):
            return [step.name for step in steps]
        case BaseStep(name=name):
            return name
        case Expr(source=text) | Text(source=text):
            return text
        case CallableRef(target=target):
            return target
        case AgentSpec(name=name):
            return name
        case Enum():
            return value.value
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return _said(value)
        case _:
            return value


def _json(data: Any) -> Any:
    """Return JSON data in canonical form: no tuples, keys in order."""
    return canonical.decode(canonical.encode(data))
