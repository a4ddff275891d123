"""Serialises a tree to blueprints: reading the files gives an equal tree."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import ValidationError

from flujo.blueprint.language import models as doc
from flujo.blueprint.sources.package_files import PACKAGED
from flujo.blueprint.yaml_writer import to_yaml
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.approvals import Approval
from flujo.domain.pipeline import BaseStep, Imported, Migration, Pipeline, Save
from flujo.domain.schedules import Schedule
from flujo.domain.secrets import named
from flujo.domain.steps import State
from flujo.domain.steps.tools import BlueprintTool
from flujo.domain.tools import CallableTool, McpTools
from flujo.domain.values import CallableRef, Expr, Text
from flujo.domain.wording import repr_short
from flujo.exceptions import PipelineError


def write_blueprint(pipeline: Pipeline, entry: str) -> dict[str, str]:
    """Return the files of a pipeline, by their paths in the project.

    Args:
        pipeline: any tree whose callables can be imported by their names.
        entry: the path of its own file; imported pipelines and prompt files have separate ones.

    Raises:
        PipelineError: a blueprint cannot express it: it has a lambda, or two agents or imported
            pipelines of the same name. Or an argument is of the wrong type.
    """
    if not isinstance(pipeline, Pipeline):
        raise PipelineError(f"`pipeline` is {repr_short(pipeline)}, not a pipeline", hint="pass a `Pipeline`")
    if not entry or not isinstance(entry, str):
        raise PipelineError(
            f"`entry` is {repr_short(entry)}, not a path", hint='write "blueprints/order.yaml"'
        )
    files: dict[str, str] = {}
    _File(entry, files, {}).write(pipeline)
    return files


@dataclass
class _File:
    """One blueprint under construction."""

    path: str
    files: dict[str, str]
    trees: dict[str, Pipeline]
    """The imported pipelines, by file."""
    agents: dict[str, AgentSpec] = field(default_factory=dict)

    def write(self, pipeline: Pipeline) -> None:
        self.trees[self.path] = pipeline
        said = {
            "version": "1",
            **self.keys(doc.Blueprint.from_tree(_fields(pipeline))),
            "agents": self.all_agents(),
        }
        self.files[self.path] = _dumped(self.path, said)

    def all_agents(self) -> dict[str, Any]:
        """Return the agents of the file, and those that they have as tools."""
        said: dict[str, Any] = {}
        while len(said) < len(self.agents):
            said |= {name: self.agent(spec) for name, spec in [*self.agents.items()] if name not in said}
        return said

    def plain(self, value: Any) -> Any:
        """Return the document's value for a value of the tree."""
        match value:
            case Expr() | Text():
                return value.source
            case CallableRef():
                return _target(value)
            case AgentSpec():
                return self.named(value)
            case CallableTool():
                said = self.keys(doc.Tool.from_tree(_fields(value)))
                said |= {"with": named(value.with_)}
                del said["with_"]
                return said["call"] if value == CallableTool(value.call) else said
            case OneOf():
                return {
                    "one_of": [self.plain(each) for each in value.one_of.values()],
                    "by": self.plain(value.by),
                }
            case BaseStep():
                return self.step(value)
            case Pipeline():
                return [self.step(step) for step in value.steps]
            case Save():
                return {"append": self.plain(value.value)} if value.append else self.plain(value.value)
            case Schedule() | State():
                model = doc.State if isinstance(value, State) else doc.Schedule
                return self.keys(model.from_tree(_fields(value)))
            case _:
                return self.data(value)

    def data(self, value: Any) -> Any:
        """Return the document's value for a value without a name."""
        match value:
            case Mapping():
                return {key: self.plain(one) for key, one in value.items()}
            case list() | tuple():
                return [self.plain(one) for one in value]
            case Enum():
                return value.value
            case Migration():
                return {"from": value.old, "to": value.new}
            case Approval() if value == Approval():
                return True
            case McpTools():
                return self.keys(doc.Tool.from_tree(_fields(value) | {"mcp": value.server}))
            case BlueprintTool():
                file = self.imported(value.name, Imported(value.blueprint, value.pipeline, inherits=False))
                return self.keys(_fields(value) | {"pipeline": None, "blueprint": file})
            case _:
                return self.keys(_fields(value)) if is_dataclass(value) else value

    def keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys that have a value: a blueprint must not have keys without one."""
        return {key: self.plain(value) for key, value in values.items() if value is not None}

    def step(self, step: BaseStep) -> dict[str, Any]:
        """Return the keys of a step of any kind: the fields of its class, by the names in its model."""
        model = doc.KINDS[step.kind]
        keys = model.from_tree(_fields(step))
        if step.imported is not None:
            keys["blueprint"] = self.imported(step.name, step.imported)
        said = {model.model_fields[name].alias or name: one for name, one in self.keys(keys).items()}
        if "fallback" in said:
            del said["fallback"]["name"]  # a fallback has no name of its own
        return {"kind": step.kind, **said}

    def imported(self, name: str, child: Imported) -> str:
        """Return the path of an imported file, which is written too unless it is in an installed package."""
        folder = posixpath.dirname(self.path)
        if child.blueprint.startswith(PACKAGED):
            return child.blueprint
        path = child.blueprint or posixpath.join(folder, f"{child.pipeline.name or name}.yaml")
        known = self.trees.get(path)
        if known is None:
            _File(path, self.files, self.trees).write(child.pipeline)
        elif known != child.pipeline:
            raise PipelineError(
                f"step {name!r}: another pipeline is already written to {path!r}",
                hint="give the pipelines different names",
            )
        beside = posixpath.relpath(path, folder or ".")
        return beside if beside.startswith("../") else f"./{beside}"

    def named(self, agent: AgentSpec) -> str:
        """Return the name of an agent, which this file declares."""
        if self.agents.setdefault(agent.name, agent) != agent:
            raise PipelineError(f"two agents are named {agent.name!r}", hint="rename one of them")
        return agent.name

    def agent(self, spec: AgentSpec) -> dict[str, Any]:
        text = spec.instructions
        keys = doc.Agent.from_tree(_fields(spec)) | {"instructions_file": None}
        if spec.instructions_file is not None and text is not None:
            self.files[spec.instructions_file] = text.source
            beside = posixpath.relpath(spec.instructions_file, posixpath.dirname(self.path) or ".")
            keys |= {"instructions_file": beside, "instructions": None}
        return self.keys({**keys, "template": not (text is not None and text.literal)})


def _fields(thing: Any) -> dict[str, Any]:
    return {each.name: getattr(thing, each.name) for each in fields(thing)}


def _target(ref: CallableRef) -> str:
    if "<" in ref.target:
        raise PipelineError(
            f"`{ref.target}` cannot be imported by its name",
            hint="define it as a function at the top level of a module",
        )
    return ref.target


def _dumped(path: str, said: dict[str, Any]) -> str:
    """Return a blueprint's text, without keys that have their default value."""
    try:
        blueprint = doc.Blueprint.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if "\0" not in str(part))
        raise PipelineError(
            f"{path} cannot be written: `{where}`: {first['msg']}",
            hint="give the pipeline a name, and use identifiers as names",
        ) from None
    return to_yaml(_in_order(blueprint.model_dump(by_alias=True, exclude_defaults=True)))


def _in_order(data: Any) -> Any:
    """Return a step's keys with `name` and `kind` first."""
    if isinstance(data, list):
        return [_in_order(each) for each in data]
    if not isinstance(data, dict):
        return data
    first = [key for key in ("version", "kind", "name") if isinstance(data.get(key), str)]
    return {key: _in_order(data[key]) for key in [*first, *(key for key in data if key not in first)]}
