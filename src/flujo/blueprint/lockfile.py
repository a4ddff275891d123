"""`flujo.lock`: what was tested, as TOML that a reviewer can read; and what differs from it, in words.

The same blueprints give the same bytes: there are no times, no machines and no run results in it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flujo.blueprint.signatures import read_module
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, ImportStep
from flujo.exceptions import BlueprintError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.compiler import Compiled
    from flujo.blueprint.resolver import Source
    from flujo.domain.steps import BaseStep

VERSION = 1
_HEAD = "# Written by `flujo lock`; review its changes like code. `flujo lock verify` says what differs.\n"
_AGAIN = "write it again with `flujo lock`"
_Contents = dict[str, Any]


def lock(compiled: Sequence[Compiled], source: Source) -> str:
    """Return the text of `flujo.lock` for these blueprints.

    Args:
        compiled: blueprints without errors, in any order.
        source: where the source of callables is read from; nothing is imported.

    Raises:
        BlueprintError: one of them has errors, so there is nothing to lock.
    """
    return _HEAD + to_toml(_contents(compiled, source))


def verify(text: str, compiled: Sequence[Compiled], source: Source) -> list[str]:
    """Return what differs between a lock and these blueprints, one sentence each; nothing when they agree.

    Args:
        text: the text of `flujo.lock`.
        compiled: the blueprints as they are now.
        source: where the source of callables is read from.

    Raises:
        SettingsError: the text is no lock that this version can read.
        BlueprintError: a blueprint has errors.
    """
    return list(_differences(_parse(text), _contents(compiled, source)))


def locked(text: str) -> dict[str, str]:
    """Return the closure's digest of each blueprint that a lock holds, by its path.

    Raises:
        SettingsError: the text is no lock that this version can read.
    """
    held = _parse(text).get("blueprints", {})
    return {path: one["closure"] for path, one in held.items() if isinstance(one, dict) and "closure" in one}


# What a lock holds ---------------------------------------------------------------------------------------


def _contents(compiled: Sequence[Compiled], source: Source) -> _Contents:
    blueprints: _Contents = {}
    agents: _Contents = {}
    callables: _Contents = {}
    for one in compiled:
        if one.pipeline is None:
            raise BlueprintError(
                f"{one.closure.entry!r} has errors, so there is nothing to lock",
                hint="see them with `flujo validate`",
                diagnostics=one.diagnostics,
            )
        files = {path: canonical.digest(data) for path, data in one.closure.files.items()}
        blueprints[one.closure.entry] = {
            "name": one.pipeline.name,
            "closure": one.closure.digest,
            "overrides": dict(one.closure.overrides),
            "files": files,
        }
        for file, pipeline in _files(one.closure.entry, one.pipeline):
            for agent in _agents(pipeline):
                agents.setdefault(file, {})[agent.name] = _agent(agent)
            for target in _targets(pipeline):
                callables[target] = _source_digest(target, source)
    return {"version": VERSION, "blueprints": blueprints, "agents": agents, "callables": callables}


def _files(file: str, pipeline: Pipeline) -> Iterator[tuple[str, Pipeline]]:
    """Yield every blueprint of a closure once, with the file that it stands in."""
    seen: dict[str, Pipeline] = {}
    waiting = [(file, pipeline)]
    while waiting:
        here, one = waiting.pop()
        if here not in seen:
            seen[here] = one
            waiting += [(s.blueprint, s.pipeline) for s in _steps(one) if isinstance(s, ImportStep)]
    yield from seen.items()


def _steps(pipeline: Pipeline) -> Iterator[BaseStep]:
    """Yield the steps of one file: those of imported blueprints are not among them."""
    for step in pipeline.steps:
        yield step
        if not isinstance(step, ImportStep):
            for body in step.bodies().values():
                yield from _steps(body)


def _agents(pipeline: Pipeline) -> Iterator[AgentSpec]:
    yield from (leaf for leaf in _leaves(_steps(pipeline)) if isinstance(leaf, AgentSpec))


def _leaves(part: Any) -> Iterator[AgentSpec | CallableRef]:
    """Yield who is named in a part of the tree; the bodies of a step are none of its parts."""
    match part:
        case AgentSpec() | CallableRef():
            yield part
        case Pipeline() | str():
            return
        case Mapping():
            yield from _leaves(part.values())
        case Iterable():
            for item in part:
                yield from _leaves(item)
        case _ if dataclasses.is_dataclass(part):
            yield from _leaves(getattr(part, each.name) for each in dataclasses.fields(part))
        case _:
            return


def _agent(agent: AgentSpec) -> _Contents:
    held: _Contents = {"model": agent.model}
    if agent.instructions is not None:
        held["instructions"] = agent.instructions.source
        held["instructions_sha256"] = canonical.digest(agent.instructions.source.encode())
    if agent.output_schema is not None:
        held["output_schema_sha256"] = canonical.digest(canonical.encode(agent.output_schema))
    if agent.output_type is not None:
        held["output_type"] = agent.output_type.target
    if agent.tools:
        held["tools"] = [tool.target for tool in agent.tools]
    settings = dict(agent.model_settings) | {
        key: value
        for key, value in (("retries", agent.retries), ("tool_timeout", agent.tool_timeout))
        if value is not None
    }
    if settings:
        held["settings"] = canonical.encode(settings).decode()
    return held


def _targets(pipeline: Pipeline) -> Iterator[str]:
    """Yield the callables that one file names."""
    named = [pipeline.context_type, *_leaves(_steps(pipeline))]
    for agent in _agents(pipeline):
        named += [agent.output_type, *agent.tools]
    yield from (one.target for one in named if isinstance(one, CallableRef))


def _source_digest(target: str, source: Source) -> str:
    module = read_module(target.partition(":")[0], source)
    return module.digest if module is not None else "not in this project"


# What differs --------------------------------------------------------------------------------------------


def _parse(text: str) -> _Contents:
    try:
        held = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"flujo.lock is not TOML: {error}", hint=_AGAIN) from error
    if held.get("version") != VERSION:
        raise SettingsError(
            f"flujo.lock has version {held.get('version')!r}, and this Flujo reads {VERSION}",
            hint="write it again with `flujo lock`, or use the Flujo that wrote it",
        )
    sections = ("blueprints", "agents", "callables")
    if not all(isinstance(held.get(section, {}), dict) for section in sections):
        raise SettingsError("flujo.lock is not what `flujo lock` writes", hint=_AGAIN)
    return held


def _differences(held: _Contents, now: _Contents) -> Iterator[str]:
    for path, was, there in _pairs(held.get("blueprints"), now["blueprints"]):
        yield from _blueprint(path, was, there)
    for file, were, are in _pairs(held.get("agents"), now["agents"]):
        for name, was, there in _pairs(were, are):
            yield from _agent_difference(f"agent {name!r} of {file}", was, there)
    for target, was, there in _pairs(held.get("callables"), now["callables"]):
        if was is None:
            yield f"callable {target} is not in the lock"
        elif there is None:
            yield f"callable {target} is in the lock and is not called any more"
        elif was != there:
            yield f"callable {target}: the source of its module has changed"


def _pairs(held: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key of two mappings, in order, with its value in each, or None."""
    before, after = (one if isinstance(one, dict) else {} for one in (held, now))
    for key in sorted({*before, *after}):
        yield key, before.get(key), after.get(key)


def _blueprint(path: str, was: Any, there: Any) -> Iterator[str]:
    if not isinstance(was, dict):
        yield f"blueprint {path} is not in the lock"
    elif there is None:
        yield f"blueprint {path} is in the lock and not in the project"
    elif was.get("closure") != there["closure"]:
        changes = [*_changed_files(path, was.get("files"), there["files"])]
        overrides = was.get("overrides") or {}
        if overrides != there["overrides"]:
            changes.append(f"blueprint {path} was locked with {_shown(overrides or None)} as overrides")
        yield from changes or [f"blueprint {path}: its closure in the lock was edited by hand"]


def _changed_files(path: str, was: Any, there: Mapping[str, str]) -> Iterator[str]:
    for file, before, after in _pairs(was, there):
        if before is None:
            yield f"blueprint {path}: {file} is new"
        elif after is None:
            yield f"blueprint {path}: {file} is not part of it any more"
        elif before != after:
            yield f"blueprint {path}: {file} has changed"


def _agent_difference(who: str, was: Any, there: Any) -> Iterator[str]:
    if was is None:
        yield f"{who} is not in the lock"
        return
    if there is None:
        yield f"{who} is in the lock and is not asked any more"
        return
    for key, before, after in _pairs(was, there):
        if before == after or key == "instructions_sha256":
            continue
        if key == "instructions" and isinstance(before, str) and isinstance(after, str):
            yield f"{who}: the instructions have changed\n{_changed_lines(before, after)}"
        elif key.endswith("_sha256"):
            yield f"{who}: the {key.removesuffix('_sha256').replace('_', ' ')} has changed"
        else:
            yield f"{who}: {key} was {_shown(before)} and is {_shown(after)}"


def _changed_lines(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(f"  {line}" for line in lines if not line.startswith(("---", "+++", "@@")))


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)


# TOML ----------------------------------------------------------------------------------------------------

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"\\]")
_UNSAFE_IN_BLOCK = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\\]|(?<=\"\")\"|\"\Z")


def to_toml(contents: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return a mapping as TOML: its plain values, then a table for each mapping in it."""
    plain = {key: value for key, value in sorted(contents.items()) if not isinstance(value, dict)}
    tables = {key: value for key, value in sorted(contents.items()) if isinstance(value, dict) and value}
    lines = [f"{_key(key)} = {_literal(value)}\n" for key, value in plain.items()]
    if lines and path:
        lines.insert(0, f"\n[{'.'.join(map(_key, path))}]\n")
    return "".join(lines) + "".join(to_toml(table, (*path, key)) for key, table in tables.items())


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


def _literal(value: Any) -> str:
    match value:
        case str() if "\n" in value:
            return f'"""\n{_UNSAFE_IN_BLOCK.sub(_escape, value)}"""'
        case str():
            return _quoted(value)
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + _UNSAFE.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}"
