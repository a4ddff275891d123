"""A tree becomes blueprints again: files that, when they are read, give a tree that is equal to it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flujo.blueprint.language import models as doc
from flujo.blueprint.yaml_writer import to_yaml
from flujo.domain.steps import (
    BaseStep,
    CacheStep,
    ConditionalStep,
    DynamicParallelRouterStep,
    GranularStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    StateMachineStep,
    Step,
    TreeSearchStep,
)
from flujo.domain.values import CallableRef, Expr, Text
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from flujo.domain.agents import AgentSpec
    from flujo.domain.pipeline import Pipeline


def write_blueprint(pipeline: Pipeline, entry: str) -> dict[str, str]:
    """Return the files that say what a pipeline says, by their paths in the project.

    Args:
        pipeline: any tree whose callables can be found by their names.
        entry: the path of its own file; imported pipelines and prompt files have their own.

    Raises:
        PipelineError: there is something in it that a blueprint cannot say: a lambda, or two agents, or two
            imported pipelines, of one name.
    """
    files: dict[str, str] = {}
    _File(entry, files, {}).write(pipeline)
    return files


@dataclass
class _File:
    """One blueprint under construction."""

    path: str
    files: dict[str, str]
    trees: dict[str, Pipeline]
    """What is imported, by its file."""
    agents: dict[str, AgentSpec] = field(default_factory=dict)

    def write(self, pipeline: Pipeline) -> None:
        self.trees[self.path] = pipeline
        steps = self.steps(pipeline)
        said = {
            "version": "1",
            "name": pipeline.name,
            "description": pipeline.description,
            "input_schema": pipeline.input_schema,
            "context": pipeline.context_type and _target(pipeline.context_type),
            "context_schema": pipeline.context_schema,
            "budget": pipeline.budget and _given(asdict(pipeline.budget)),
            "agents": {name: self.agent(spec) for name, spec in self.agents.items()},
            "output": _value(pipeline.output),
            "steps": steps,
        }
        self.files[self.path] = _dumped(self.path, said)

    def steps(self, body: Pipeline) -> list[dict[str, Any]]:
        return [self.step(step) for step in body.steps]

    def step(self, step: BaseStep) -> dict[str, Any]:
        return _given({"name": step.name, "kind": step.kind, **self.own(step), **_common(step)})

    def own(self, step: BaseStep) -> dict[str, Any]:
        """Return the keys that only this kind has."""
        output = {"output": _value(getattr(step, "output", None))}
        match step:
            case Step():
                return self.asked(step)
            case ConditionalStep():
                return self.conditional(step) | output
            case LoopStep():
                return self.loop(step) | output
            case StateMachineStep():
                return self.machine(step) | output
            case MapStep():
                return self.map(step) | output
            case DynamicParallelRouterStep():
                chosen = {"router": self.who(step.router), "input": _value(step.input)}
                return chosen | self.branches(step) | output
            case ParallelStep():
                return self.branches(step) | output
            case ImportStep():
                return self.imported(step)
            case HumanInTheLoopStep():
                return _question(step)
            case _:
                return self.other(step)

    def other(self, step: BaseStep) -> dict[str, Any]:
        match step:
            case CacheStep():
                return {"step": self.step(step.step), "key": _logic(step.key), "ttl_s": step.ttl_s}
            case TreeSearchStep():
                who = {"propose": self.who(step.propose), "evaluate": self.who(step.evaluate)}
                plain = _plain(step, "beam_width", "max_depth", "max_concurrency")
                return who | {"goal": _logic(step.goal), "input": _value(step.input)} | plain
            case GranularStep():
                plain = _plain(step, "max_turns", "on_limit", "enforce_idempotency", "in_doubt", "history")
                return {"agent": self.who(step.agent), "input": _value(step.input)} | plain
            case _:
                raise PipelineError(f"step {step.name!r} is of a kind that blueprints have no word for")

    def asked(self, step: Step) -> dict[str, Any]:
        processors = step.processors
        return {
            "agent": step.agent and self.who(step.agent),
            "call": step.call and _target(step.call),
            "with": _value(step.arguments),
            "input": _value(step.input),
            "output_schema": step.output_schema,
            "processors": {
                "input": [_target(each) for each in processors.input],
                "output": [_target(each) for each in processors.output],
            },
            "validators": [_target(each) for each in step.validators],
            "fallback": step.fallback and self.fallback(step.fallback),
            "reconcile": step.reconcile and _target(step.reconcile),
            **_plain(step, "effect", "enforce_idempotency", "in_doubt"),
        }

    def fallback(self, step: Step) -> dict[str, Any]:
        said = self.step(step)
        del said["name"]  # it has its step's place
        return said

    def conditional(self, step: ConditionalStep) -> dict[str, Any]:
        bodies = {name: self.steps(body) for name, body in step.branches.items()}
        if step.form == "if":
            return {"if": _logic(step.condition), **bodies}
        default = None if step.default is None else self.steps(step.default)
        return {"switch": _logic(step.condition), "branches": bodies, "default": default}

    def loop(self, step: LoopStep) -> dict[str, Any]:
        carry = {
            name: {"initial": _value(each.initial), "next": _logic(each.next)}
            for name, each in step.carry.items()
        }
        plain = _plain(step, "max_iterations", "on_limit")
        return {"steps": self.steps(step.body), "until": _logic(step.until), "carry": carry, **plain}

    def machine(self, step: StateMachineStep) -> dict[str, Any]:
        states = {
            name: {
                "steps": self.steps(state.body),
                "transitions": [
                    _given({"to": way.to, "when": _logic(way.when)}) for way in state.transitions
                ],
            }
            for name, state in step.states.items()
        }
        return {"states": states, "final": list(step.final), **_plain(step, "initial", "max_transitions")}

    def map(self, step: MapStep) -> dict[str, Any]:
        own = {"over": _logic(step.over), "as": step.item_name, "merge": _merge(step.merge)}
        return {**own, "steps": self.steps(step.body), **_plain(step, "max_concurrency", "on_error")}

    def branches(self, step: ParallelStep) -> dict[str, Any]:
        return {
            "branches": {name: self.steps(body) for name, body in step.branches.items()},
            "merge": _merge(step.merge),
            "field_mapping": {name: list(fields) for name, fields in step.field_mapping.items()},
            **_plain(step, "on_branch_failure", "max_concurrency"),
        }

    def imported(self, step: ImportStep) -> dict[str, Any]:
        folder = posixpath.dirname(self.path)
        path = step.blueprint or posixpath.join(folder, f"{step.pipeline.name or step.name}.yaml")
        known = self.trees.get(path)
        if known is None:
            _File(path, self.files, self.trees).write(step.pipeline)
        elif known != step.pipeline:
            raise PipelineError(
                f"step {step.name!r}: another pipeline is written to {path!r} already",
                hint="give the pipelines different names",
            )
        instead = step.on_failure
        beside = posixpath.relpath(path, folder or ".")
        return {
            "blueprint": beside if beside.startswith("../") else f"./{beside}",
            "with": _value(step.arguments),
            "on_failure": instead if isinstance(instead, str) else _value(instead),
            "context": step.context,
        }

    def who(self, who: AgentSpec | CallableRef) -> str:
        """Return how somebody who answers is named in this file."""
        if isinstance(who, CallableRef):
            return _target(who)
        if self.agents.setdefault(who.name, who) != who:
            raise PipelineError(f"two agents are called {who.name!r}", hint="give one of them another name")
        return who.name

    def agent(self, spec: AgentSpec) -> dict[str, Any]:
        text = spec.instructions
        prompt: dict[str, Any] = {"instructions": None if text is None else text.source}
        if spec.instructions_file is not None and text is not None:
            self.files[spec.instructions_file] = text.source
            folder = posixpath.dirname(self.path) or "."
            prompt = {"instructions_file": posixpath.relpath(spec.instructions_file, folder)}
        return _given(
            {
                **prompt,
                "template": not (text is not None and text.literal),
                "output_type": spec.output_type and _target(spec.output_type),
                "tools": [_target(tool) for tool in spec.tools],
                "model_settings": dict(spec.model_settings),
                **_plain(spec, "model", "output_schema", "retries", "tool_timeout"),
            }
        )


def _common(step: BaseStep) -> dict[str, Any]:
    """Return the keys of every kind."""
    config = asdict(step.config)
    if step.config.retry is not None:
        config["retry"] = {**asdict(step.config.retry), "on": list(step.config.retry.on)}
    cache = step.cache and _given({"key": _logic(step.cache.key), "ttl_s": step.cache.ttl_s})
    return {
        "when": _logic(step.when),
        "save": {
            name: {"append": _logic(save.value)} if save.append else _logic(save.value)
            for name, save in step.save.items()
        },
        "cache": cache,
        "tags": list(step.tags),
        "config": _given(config),
    }


def _question(step: HumanInTheLoopStep) -> dict[str, Any]:
    late = step.on_deadline
    return {
        "message": _value(step.message),
        "on_deadline": late if isinstance(late, str) else _value(late),
        **_plain(step, "answer_schema", "deadline_s"),
    }


def _plain(thing: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _given(said: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that have a value: in a blueprint, a key without one is a mistake."""
    return {key: value for key, value in said.items() if value is not None}


def _logic(rule: Expr | CallableRef | None) -> str | None:
    if rule is None:
        return None
    return _target(rule) if isinstance(rule, CallableRef) else rule.source


def _merge(way: str | CallableRef) -> str:
    return _target(way) if isinstance(way, CallableRef) else str(way)


def _target(ref: CallableRef) -> str:
    if "<" in ref.target:
        raise PipelineError(
            f"`{ref.target}` has no name that a blueprint could say",
            hint="write it as a function at the top of a module",
        )
    return ref.target


def _value(value: Any) -> Any:
    match value:
        case Text():
            return value.source
        case tuple():
            return [_value(each) for each in value]
        case Mapping():
            return {key: _value(each) for key, each in value.items()}
        case _:
            return value


def _dumped(path: str, said: dict[str, Any]) -> str:
    """Return a blueprint's text, without the keys that say what holds anyway."""
    try:
        blueprint = doc.Blueprint.model_validate(_given(said))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if "\0" not in str(part))
        raise PipelineError(
            f"{path} cannot be written: `{where}`: {first['msg']}",
            hint="a pipeline that is written has a name, and names that expressions can say",
        ) from None
    return to_yaml(_in_order(blueprint.model_dump(by_alias=True, exclude_defaults=True)))


def _in_order(data: Any) -> Any:
    """Return what is written with `name` and `kind` first, as people write a step."""
    if isinstance(data, list):
        return [_in_order(each) for each in data]
    if not isinstance(data, dict):
        return data
    first = [key for key in ("version", "kind", "name") if isinstance(data.get(key), str)]
    return {key: _in_order(data[key]) for key in [*first, *(key for key in data if key not in first)]}
