"""The values that an expression could read at a moment of a run, found in the journal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.agents.messages import calls_in
from flujo.blueprint.expressions.evaluators import compile_expression, compile_text
from flujo.blueprint.schemas.validator import compile_schema
from flujo.domain import canonical, merge, paths
from flujo.domain.journal import TRANSCRIPT, EntryKind, EntryStatus
from flujo.domain.paths import ROOT, StepPath, indexed, parent
from flujo.domain.steps import Expr, Text
from flujo.engine.journal import RESULTS
from flujo.exceptions import FlujoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.pipeline import BaseStep
    from flujo.domain.ports import Chain
    from flujo.domain.run import Pause, RunRecord


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that an expression has read, and its origin."""

    name: str
    """As it stands in the expression: `steps.sort.output.label`."""
    value: Any = None
    is_known: bool = True
    """Whether the journal has the value."""
    origin: str = ""
    """Where it came from, in words."""
    path: StepPath | None = None
    """The step that it came from."""
    input: Any = None
    """The filled-in input of that step; of an agent, its prompt."""
    model: str | None = None
    by: str | None = None
    """Who answered, if it is the answer of a human."""


class RecordedScope:
    """What the expressions of a run could read, at any moment."""

    def __init__(
        self,
        record: RunRecord,
        entries: Sequence[Entry],
        pauses: Sequence[Pause],
        places: Mapping[StepPath, BaseStep],
    ) -> None:
        """Take the records of a run.

        Args:
            record: the run.
            entries: its journal.
            pauses: its questions.
            places: its steps, by their paths without counts.
        """
        self._record = record
        self._places = places
        self._answers = {pause.pause_id: pause for pause in pauses if pause.answer is not None}
        self._results: dict[StepPath, list[Entry]] = defaultdict(list)
        self._inside: dict[StepPath, list[Entry]] = defaultdict(list)
        self._written: list[Entry] = []
        self._entries = entries
        self._decided: dict[StepPath, Entry] = {}
        self._starts: dict[StepPath, int] = {}
        self._lists: dict[StepPath, Reading] = {}
        """The items of maps, computed once for all items."""
        for entry in entries:
            if entry.kind is EntryKind.DECISION and entry.attempt == 1 and not entry.fingerprint:
                self._decided[entry.path] = entry
            if entry.kind in RESULTS and entry.status is not EntryStatus.FAILED:
                self._results[entry.path].append(entry)
                self._inside[body_of(entry.path)].append(entry)
                if _is_visit(visit := parent(entry.path)):  # the states of a machine share their steps
                    self._inside[body_of(visit)].append(entry)
                if entry.patch is not None:
                    self._written.append(entry)

    def step_at(self, path: StepPath) -> BaseStep | None:
        """Return the step at a path, also inside a call of a tool that consists of steps."""
        found = self._places.get(paths.without_counts(path))
        if found is not None or _TOOL.search(path) is None:
            return found
        while (call := _TOOL.search(path)) is not None:
            # The tree has the name of the tool, and the journal the number of its call.
            name = self._call(StepPath(path[: call.end()])).get("name", "")
            path = StepPath(f"{path[: call.start()]}/{paths.encoded(name)}{path[call.end() :]}")
        return self._places.get(paths.without_counts(path))

    def _call(self, path: StepPath) -> dict[str, Any]:
        """Return the name and the arguments of a tool call, from the response that has requested it."""
        turn, place = parent(parent(path)), paths.last_count(path) or 0
        responses = [entry.output for entry in self._results.get(turn, ()) if entry.output is not None]
        calls = calls_in(canonical.decode(responses[-1])) if responses else []
        if place >= len(calls):
            return {}
        return {"name": calls[place].name, "arguments": calls[place].arguments}

    def read(self, chain: Chain, frame: StepPath, before: int, *, ends: bool = False) -> Reading:
        """Return the value of a name.

        Args:
            chain: the parts of the name.
            frame: the path of the body that the expression belongs to.
            before: the number of the entry of its decision; later entries do not count.
            ends: whether the expression is evaluated at the end of that body.
        """
        root, *rest = chain
        match root:
            case "steps" if rest:
                found = self._step(rest.pop(0), frame, before)
            case "previous":
                found = self._previous(frame, before, ends=ends)
            case "context":
                found = self._context(rest, frame, before)
            case "input":
                found = self._input(frame)
            case "loop":
                found = self._loop(rest, frame)
            case "index" if (item := self._item_body(frame)) is not None:
                found = Reading("", paths.last_count(item), origin="the number of the item")
            case _ if (item := self._item_body(frame, root)) is not None:
                found = self._item(item)
            case _:
                found = _UNKNOWN
        return self._at(chain, found, rest)

    def _at(self, chain: Chain, found: Reading, rest: Sequence[str]) -> Reading:
        value, is_known = found.value, found.is_known
        for key in rest:
            if not isinstance(value, dict) or key not in value:
                value, is_known = None, False
                break
            value = value[key]
        return Reading(
            ".".join(chain),
            value if is_known else None,
            is_known,
            found.origin,
            found.path,
            found.input,
            found.model,
            found.by,
        )

    def _step(self, name: str, frame: StepPath, before: int) -> Reading:
        """Return the facts of a step: of the innermost body around the expression that has it."""
        for body in _around(frame):
            named = [each for each in self._inside[body] if paths.name(each.path) == name]
            if earlier := [each for each in named if each.seq < before]:
                entry = max(earlier, key=lambda each: each.seq)
                return self._of(entry, self._facts(entry))
        return _UNKNOWN

    def _facts(self, entry: Entry) -> dict[str, Any]:
        if entry.status is EntryStatus.SKIPPED:
            return {"output": None, "skipped": True}
        facts = canonical.decode(entry.detail) if entry.kind is EntryKind.DONE and entry.detail else {}
        return {"output": canonical.decode(entry.output or b"null"), **facts}

    def _of(self, entry: Entry, value: Any) -> Reading:
        detail = canonical.decode(entry.detail) if entry.detail else {}
        answer = self._answers.get(entry.path) if entry.kind is EntryKind.ANSWER else None
        place = f"step `{paths.shown(entry.path)}`"
        is_agent = "model" in detail or TRANSCRIPT in detail
        given = entry.input if entry.kind is EntryKind.WORK and is_agent else None
        return Reading(
            "",
            value,
            origin=f"{place}, which was skipped" if entry.status is EntryStatus.SKIPPED else place,
            path=entry.path,
            input=None if given is None else canonical.decode(given),
            model=detail.get("model"),
            by=None if answer is None else answer.by,
        )

    def _previous(self, frame: StepPath, before: int, *, ends: bool) -> Reading:
        """Return the output of the step before, or the input of the body at its start."""
        if ends and (done := self._results.get(frame)):
            return self._of(done[-1], canonical.decode(done[-1].output or b"null"))
        earlier = [
            each
            for each in self._inside[frame]
            if each.seq < before and each.status is EntryStatus.COMPLETED and not _is_round(each.path)
        ]
        if earlier:
            entry = max(earlier, key=lambda each: each.seq)
            return self._of(entry, canonical.decode(entry.output or b"null"))
        return self._at_start(frame, before)

    def _at_start(self, frame: StepPath, before: int) -> Reading:
        if frame == ROOT:
            return Reading("", canonical.decode(self._record.input), origin="the input of the run")
        step, count = self.step_at(frame), paths.last_count(frame)
        if step is None:
            return _UNKNOWN
        if step.kind == "map" and count is not None:
            return self._item(frame)
        if step.imported is not None:
            return self._input(frame)
        if rounds := self._rounds_before(frame, before, count):
            return self._of(rounds[-1], canonical.decode(rounds[-1].output or b"null"))
        first = min((each.seq for each in self._inside[frame]), default=before)
        return self._previous(body_of(composite_of(frame)), min(first, before), ends=False)

    def _rounds_before(self, frame: StepPath, before: int, count: int | None) -> Sequence[Entry]:
        """Return the results of the iteration or the visits before this one, the latest last."""
        if _is_visit(frame):
            visits = [each for each in self._inside[body_of(frame)] if _is_visit(each.path)]
            return [each for each in visits if each.seq < before]
        return self._results.get(indexed(parent(frame), count - 1), ()) if count else ()

    def _context(self, rest: Sequence[str], frame: StepPath, before: int) -> Reading:
        """Return the fields of the context; the origin is the last step that wrote the field."""
        if self._record.parent is not None or any(
            step.imported is not None and not step.imported.inherits for _, step in self._apart(frame)
        ):
            return _UNKNOWN
        tree = canonical.decode(self._record.context)
        origin = Reading("", origin="the context at the start of the run")
        for entry in self._written:
            if entry.seq < before and paths.is_within(frame, body_of(entry.path)):
                patch = canonical.decode(entry.patch or b"[]")
                tree = merge.apply(tree, patch)
                if any(op[1][: len(rest)] == rest[: len(op[1])] for op in patch):
                    origin = self._of(entry, None)
        return Reading("", tree, True, origin.origin, origin.path, origin.input, origin.model, origin.by)

    def _loop(self, rest: Sequence[str], frame: StepPath) -> Reading:
        """Return `loop` of the innermost loop around the expression."""
        for body in _around(frame):
            step, count = self.step_at(body), paths.last_count(body)
            if step is None or step.kind != "loop" or count is None:
                continue
            loop = parent(body)
            carry: Mapping[str, Any] = getattr(step, "carry", {})
            if count == 0 and rest and rest[0] in carry:
                what = f"the initial value of `loop.{rest[0]}`"
                found = self._computed(carry[rest[0]].initial, body_of(loop), self._start_of(loop), what)
                return replace(found, value={rest[0]: found.value}) if found.is_known else found
            done = self._results.get(indexed(loop, count - 1)) if count else None
            facts = canonical.decode(done[-1].detail) if done and done[-1].detail else {}
            place = f"iteration {count} of `{paths.shown(loop)}`"
            return Reading("", {"index": count, **facts.get("carried", {})}, origin=place, path=body)
        return _UNKNOWN

    def _item_body(self, frame: StepPath, name: str = "item") -> StepPath | None:
        """Return the body of the innermost item that is visible under a name."""
        for body in _around(frame):
            step = self.step_at(body)
            if step is None or step.kind != "map" or paths.last_count(body) is None:
                continue
            if name in ("item", getattr(step, "item_name", None)):
                return body
        return None

    def _item(self, body: StepPath) -> Reading:
        """Return an item: as it is recorded, or computed again from the values that `over` has read."""
        step, index, path = self.step_at(body), paths.last_count(body) or 0, parent(body)
        rule = getattr(step, "over", None)
        what = f"item {index} of `{paths.shown(path)}`"
        decided = self._decided.get(path)
        items = None if decided is None else canonical.decode(decided.output or b"null")
        if not isinstance(rule, Expr):
            origin = f"{what}, from `{rule}`"
            if (one := self._decided.get(body)) is not None:
                return Reading("", canonical.decode(one.output or b"null"), origin=origin)
            return Reading("", items[index], origin=origin) if isinstance(items, list) else _UNKNOWN
        if path not in self._lists:
            self._lists[path] = self._computed(rule, body_of(path), self._start_of(path), "")
        found = self._lists[path]
        if not found.is_known or not isinstance(found.value, list) or index >= len(found.value):
            return _UNKNOWN
        return replace(found, value=found.value[index], origin=f"{what}{found.origin}")

    def _input(self, frame: StepPath) -> Reading:
        """Return `input`: that of the innermost import around the expression, tool call, or the run."""
        body, step = next(self._apart(frame), (ROOT, None))
        if step is None:
            if self._record.parent is not None:
                return _UNKNOWN
            return Reading("", canonical.decode(self._record.input), origin="the input of the run")
        if (call := _TOOL.search(body)) is not None and call.end() == len(body):
            ended = [entry.input for entry in self._results.get(body, ()) if entry.input is not None]
            given = canonical.decode(ended[-1]) if ended else self._call(body).get("arguments")
            turn = parent(parent(body))
            requested = self._results.get(turn)
            origin = f"the arguments of `{paths.shown(body)}`"
            model = self._of(requested[-1], None).model if requested else None
            found = Reading("", given, given is not None, origin, turn, model=model)
        else:
            before, what = self._start_of(body), f"the input of import `{paths.shown(body)}`"
            arguments = getattr(step, "arguments", None)
            if arguments is None:
                found = self._previous(body_of(body), before, ends=False)
            else:
                found = self._computed(arguments, body_of(body), before, what)
        schema = None if step.imported is None else step.imported.pipeline.input_schema
        if schema is None or not found.is_known:
            return found
        try:
            return replace(found, value=compile_schema(schema).check(found.value, what="the input"))
        except FlujoError:
            return _UNKNOWN

    def _computed(self, rule: Any, frame: StepPath, before: int, what: str) -> Reading:
        """Return the value of a key of a step: its expressions, computed again from what they have read."""
        read: dict[str, Reading] = {}

        def lookup(chain: Chain) -> Any:
            found = self.read(chain, frame, before)
            if not found.is_known:
                raise KeyError(chain)
            read[found.name] = found
            return found.value

        try:
            value = _filled(rule, lookup)
        except (KeyError, FlujoError):
            return _UNKNOWN
        if not read:
            return Reading("", value, origin=what)
        origin = f"{what}, from {' and '.join(dict.fromkeys(each.origin for each in read.values()))}"
        sources = list({each.path: each for each in read.values()}.values())
        only = sources[0] if len(sources) == 1 else Reading("")
        return replace(only, name="", value=value, is_known=True, origin=origin)

    def _start_of(self, path: StepPath) -> int:
        """Return the number of the first entry of a step: it has read only earlier ones."""
        if path not in self._starts:
            own = (entry.seq for entry in self._entries if paths.is_within(entry.path, path))
            self._starts[path] = min(own, default=len(self._entries) + 1)
        return self._starts[path]

    def _apart(self, frame: StepPath) -> Iterator[tuple[StepPath, BaseStep]]:
        """Yield the imports, and the calls of tools that consist of steps, around an expression."""
        for body in _around(frame):
            step = self.step_at(body) if body else None
            if step is not None and step.imported is not None:
                yield body, step


_UNKNOWN = Reading("", is_known=False, origin="the journal does not have it")


_TOOL = re.compile(r"/turn\[\d+\]/tool\[\d+\]")
"""The part of a path that is a tool call."""


def _filled(rule: Any, lookup: Callable[[Chain], Any]) -> Any:
    """Return a value of the tree with its expressions computed."""
    match rule:
        case Expr():
            return compile_expression(rule.source)(lookup)
        case Text():
            return compile_text(rule.source, literal=rule.literal)(lookup)
        case tuple():
            return [_filled(each, lookup) for each in rule]
        case Mapping():
            return {name: _filled(each, lookup) for name, each in rule.items()}
        case _:
            return rule


def body_of(path: StepPath) -> StepPath:
    """Return the body that an entry belongs to; that of a visit is its state machine."""
    return parent(parent(path)) if _is_visit(path) else parent(path)


def composite_of(frame: StepPath) -> StepPath:
    """Return the step that has a body: `loop` of `loop[2]`, `way` of `way:then`, `m` of `m:draft[1]`."""
    if _is_visit(frame):
        return parent(parent(frame))
    return parent(frame) if paths.name(frame)[:1] in ("[", ":") else frame


def _is_visit(path: StepPath) -> bool:
    """Return whether a path is a visit of a state: `m:draft[1]`."""
    return path.endswith("]") and paths.name(parent(path))[:1] == ":"


def _is_round(path: StepPath) -> bool:
    """Return whether a path is an iteration, an item or a visit, and not a step."""
    return path.endswith("]")


def _around(frame: StepPath) -> list[StepPath]:
    """Return a body and those around it, the innermost first."""
    found = [frame]
    while found[-1] != ROOT:
        found.append(parent(found[-1]))
    return found
