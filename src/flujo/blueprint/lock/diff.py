"""Compares two locks: which prompt, model, tool or step differs, and which steps that affects."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from flujo.blueprint.lock.snapshot import Contents, imports_of, table
from flujo.blueprint.schemas import diff

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

What = Literal["blueprint", "step", "agent", "callable", "setting", "library", "MCP server", "MCP tool"]
How = Literal["added", "removed", "changed"]
Counts = Literal["always", "strict", "never"]
"""Whether a change is a mismatch: always, only in strict mode, or never (only reported)."""


@dataclass(frozen=True, slots=True)
class Affected:
    """A step that a change affects; no step for a change of a whole blueprint."""

    blueprint: str
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between the lock and the project."""

    what: What
    name: str
    """A file, a step's path, an agent's name, `module:callable`, a setting's key, a library."""
    how: How
    file: str = ""
    """The blueprint of a step or an agent."""
    key: str = ""
    """For a change: the key that changed."""
    environment: str = ""
    """The environment, if only that one is affected."""
    before: Any = None
    after: Any = None
    details: tuple[str, ...] = ()
    """For a schema: its changes, one sentence per field."""
    affects: tuple[Affected, ...] = ()
    counts: Counts = "always"

    @property
    def is_text(self) -> bool:
        """Whether it is a change of prose, which is shown word by word."""
        texts = isinstance(self.before, str) and isinstance(self.after, str)
        return texts and (self.key in _TEXTS or self.key.startswith("tool "))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        affects = [{"blueprint": one.blueprint, "step": one.step} for one in self.affects]
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "details": list(self.details),
            "affects": affects,
        }


_PLAIN = ("what", "name", "how", "file", "key", "environment", "before", "after", "counts")
_TEXTS = ("instructions", "message", "input", "description")
_SCHEMAS = ("input_schema", "context_schema", "output_schema", "answer_schema", "event_schema", "parameters")


def changes(held: Contents, now: Contents) -> list[Change]:
    """Return the differences, in a fixed order: blueprints and their steps, agents, callables, settings.

    Args:
        held: the contents of the lock.
        now: the contents of the project.
    """
    return list(_Comparison(held, now).all())


@dataclass(frozen=True)
class _Comparison:
    held: Contents
    now: Contents
    users: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    """File → the blueprints that include it, before or after → the paths of the imports to it."""

    def __post_init__(self) -> None:
        for side in (self.held, self.now):
            for entry in side["blueprints"]:
                for file, path in imports_of(side, entry):
                    self.users.setdefault(file, {}).setdefault(entry, {})[path] = None

    def all(self) -> Iterator[Change]:
        for file, was, there in _pairs(self.held["blueprints"], self.now["blueprints"]):
            yield from self._blueprint(file, was, there)
        for file, were, are in _pairs(self.held["agents"], self.now["agents"]):
            if (file in self.held["blueprints"]) != (file in self.now["blueprints"]):
                continue  # already reported: the whole file was added or removed
            for name, was, there in _pairs(were, are):
                yield from self._agent(file, name, was, there)
        for name, was, there in _pairs(self.held["mcp"], self.now["mcp"]):
            yield from self._server(name, was, there)
        for section, what in _FLAT.items():
            yield from self._flat(section, what)

    def _blueprint(self, file: str, was: Any, there: Any) -> Iterator[Change]:
        affects = tuple(Affected(user) for user in sorted(self.users.get(file, [file])))
        if not isinstance(was, dict) or not isinstance(there, dict):
            how: How = "added" if there is not None else "removed"
            yield Change(what="blueprint", name=file, how=how, affects=affects, counts="strict")
            return
        for key, before, after in _pairs(was, there):
            if key == "steps":
                for path, own, own_now in _pairs(before, after):
                    yield from self._step(file, path, own, own_now)
            elif before != after:
                yield _keyed("blueprint", file, key, before, after, affects)

    def _step(self, file: str, path: str, was: Any, there: Any) -> Iterator[Change]:
        affects = tuple(self._at(file, [path]))
        if not isinstance(was, dict) or not isinstance(there, dict):
            how: How = "added" if there is not None else "removed"
            yield Change(what="step", name=path, how=how, file=file, affects=affects)
            return
        for key, before, after in _pairs(was, there):
            if before != after:
                yield _keyed("step", path, key, before, after, affects, file=file)

    def _agent(self, file: str, name: str, was: Any, there: Any) -> Iterator[Change]:
        affects = self._asking(file, name)
        if not isinstance(was, dict) or not isinstance(there, dict):
            how: How = "added" if there is not None else "removed"
            yield Change(what="agent", name=name, how=how, file=file, affects=affects)
            return
        for key, before, after, environment in _agent_keys(was, there):
            yield _keyed("agent", name, key, before, after, affects, file=file, environment=environment)

    def _server(self, name: str, was: Any, there: Any) -> Iterator[Change]:
        affects = self._calling_server(name)
        if was is None or there is None:
            how: How = "added" if was is None else "removed"
            yield Change(what="MCP server", name=name, how=how, affects=affects)
            return
        for tool, before, after in _pairs(table(was).get("tools"), table(there).get("tools")):
            if not isinstance(before, dict) or not isinstance(after, dict):
                how = "added" if after is not None else "removed"
                yield Change(what="MCP tool", name=f"{name}/{tool}", how=how, affects=affects)
                continue
            for key in ("description", "parameters"):
                if before.get(key) != after.get(key):
                    yield _keyed("MCP tool", f"{name}/{tool}", key, before.get(key), after.get(key), affects)

    def _flat(self, section: str, what: What) -> Iterator[Change]:
        for name, before, after, environment in _differing(self.held[section], self.now[section]):
            how: How = "added" if before is None else "removed" if after is None else "changed"
            affects = self._calling(name) if what == "callable" else ()
            yield Change(
                what=what,
                name=name,
                how=how,
                before=before,
                after=after,
                environment=environment,
                affects=affects,
                counts="never" if what == "library" else "strict",
            )

    def _asking(self, file: str, agent: str) -> tuple[Affected, ...]:
        return tuple(self._using(file, lambda own: agent in (own.get(key) for key in _ASKS)))

    def _calling(self, target: str) -> tuple[Affected, ...]:
        found: dict[Affected, None] = {}
        for file in sorted({*self.held["blueprints"], *self.now["blueprints"]}):
            answerers = {target, *self._having(file, target)}
            found |= dict.fromkeys(self._using(file, partial(_names, names=answerers)))
        return tuple(found)

    def _calling_server(self, server: str) -> tuple[Affected, ...]:
        found: dict[Affected, None] = {}
        for side in (self.held, self.now):
            for file, agents in sorted(side["agents"].items()):
                for name, agent in agents.items():
                    if server in (table(one).get("server") for one in table(agent.get("mcp")).values()):
                        found |= dict.fromkeys(self._asking(file, name))
        return tuple(found)

    def _having(self, file: str, target: str) -> Iterator[str]:
        """Yield the agents of a file that have a callable as a tool or as `output_type`."""
        for side in (self.held, self.now):
            for name, agent in side["agents"].get(file, {}).items():
                if target in table(agent.get("tools")) or agent.get("output_type") == target:
                    yield name

    def _using(self, file: str, uses: Callable[[Mapping[str, Any]], bool]) -> Iterator[Affected]:
        """Yield the steps of a file for which `uses` is true, before or after, in every blueprint."""
        paths = {
            path: None
            for side in (self.held, self.now)
            for path, own in table(table(side["blueprints"].get(file)).get("steps")).items()
            if isinstance(own, dict) and uses(own)
        }
        yield from self._at(file, sorted(paths))

    def _at(self, file: str, paths: Iterable[str]) -> Iterator[Affected]:
        """Yield steps of a file by their paths in each blueprint that includes it."""
        for user, around in sorted(self.users.get(file, {}).items()):
            yield from (Affected(user, f"{above}{path}") for above in around for path in paths)


_FLAT: Mapping[str, What] = {"callables": "callable", "settings": "setting", "libraries": "library"}
_ASKS = ("agent", "router", "propose", "evaluate")


def _agent_keys(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield each key of an agent that differs; settings, tools and environments one by one."""
    for key, before, after, environment in _differing(was, now):
        if key in _PARTS:
            for inner, one, other in _pairs(before, after):
                if one != other:
                    yield f"{_PARTS[key]} {inner}", one, other, environment
        elif key != "instructions_sha256" or was.get("instructions") == now.get("instructions"):
            yield key, before, after, environment


_PARTS = {
    "settings": "setting",
    "tools": "tool",
    "tool_rules": "rules",
    "provider": "provider",
    "mcp": "tools of",
}


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield each key that differs, then, under `env`, those that differ in only one environment."""
    for key, before, after in _pairs(was, now):
        if key != "env" and before != after:
            yield key, before, after, ""
    for name, own, own_now in _pairs(was.get("env"), now.get("env")):
        for key, one, other in _pairs(own, own_now):
            before, after = was.get(key) if one is None else one, now.get(key) if other is None else other
            if before != after:
                yield key, before, after, name


def _keyed(
    what: What,
    name: str,
    key: str,
    before: Any,
    after: Any,
    affects: tuple[Affected, ...],
    *,
    file: str = "",
    environment: str = "",
) -> Change:
    schemas = key in _SCHEMAS and before is not None and after is not None
    return Change(
        what=what,
        name=name,
        how="changed",
        file=file,
        key=key,
        environment=environment,
        before=before,
        after=after,
        details=tuple(diff.changes(before, after)) if schemas else (),
        affects=affects,
    )


def _names(own: Any, names: Collection[str]) -> bool:
    """Return whether a step uses one of these agents or callables, at any depth."""
    if isinstance(own, dict):
        return any(_names(one, names) for one in own.values())
    if isinstance(own, list):
        return any(_names(one, names) for one in own)
    return isinstance(own, str) and own in names


def _pairs(held: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key of two tables, in order, with its value in each, or None."""
    before, after = table(held), table(now)
    for key in sorted({*before, *after}):
        yield key, before.get(key), after.get(key)
