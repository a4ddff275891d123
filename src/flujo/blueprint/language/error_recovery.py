"""Recovers the valid parts of an invalid document, so that later rules can still run.

Invalid parts are removed or replaced by a neutral value until the rest fits. The result is never run: it is
only for the rules, which know the removed parts and report nothing that only follows from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic

from flujo.blueprint.diagnostics import MAX_FINDINGS
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.model_lookup import bare, into, path_of
from flujo.blueprint.language.traversal import UNNAMED, Path, lists_of_steps, walk
from flujo.blueprint.language.validation import L, Validated, _fit, finding, meant_key, meant_kind
from flujo.blueprint.language.values import IDENTIFIER, Maybe
from flujo.blueprint.reading.source_map import Document, Mapping, Node, Scalar, Sequence, node_of
from flujo.blueprint.reading.syntax_rules import CONFLICTING_KEYS, MISSING_KEY
from flujo.domain.checks import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flujo.blueprint.diagnostics import Diagnostic, Span

MAX_ROUNDS = 12
"""The maximum number of attempts. A document that does not fit after them is not checked further."""


class StandIn(doc.Step):
    """A step of which only the name is known."""

    agent: Maybe[doc.Asked] = UNNAMED


@dataclass(frozen=True)
class PartialDocument(Generic[L]):
    """The valid parts of a document."""

    said: L
    document: Document
    """The document without its errors. Places are those of the file."""
    found: tuple[Diagnostic, ...] = ()
    """Further findings that were hidden behind the first ones."""
    is_whole: bool = True
    lost: frozenset[Path] = frozenset()
    """The paths that were removed or replaced."""
    gaps: frozenset[Path] = frozenset()
    """The steps and agents that lost a part; `()` is the blueprint itself."""
    wrong: tuple[Span, ...] = ()
    """The places of errors. Findings of rules there only follow from them."""

    @property
    def names_all_agents(self) -> bool:
        """Whether no agent's name and no file of agents was lost."""
        unread = any(len(path) < 3 and path[:1] in (("agents",), ("include",)) for path in self.lost)
        return not unread and (() not in self.gaps or self.document.node(("agents",)) is not None)


def recover(language: type[L], document: Document, judged: Validated[L]) -> PartialDocument[L] | None:
    """Return the valid parts of a judged document, or None if there are none."""
    if judged.said is not None:
        return PartialDocument(judged.said, document)
    if not isinstance(document.root, Mapping) or len(judged.errors) > MAX_FINDINGS:
        return None
    work = _Work(language, document.root)
    work.take_out(judged.unfit)
    errors: Iterable[Any] = judged.errors
    found: list[Diagnostic] = []
    said: L | None = None
    for _ in range(MAX_ROUNDS):
        if not work.repair(errors):
            return None
        said, errors = _fit(language, work.root.value)
        if said is not None:
            break
        rest = replace(document, root=work.root)
        hidden = [finding(language, rest, one) for one in errors]
        found += [one for one in hidden if one.code == CONFLICTING_KEYS.code]
    if said is None:
        return None
    mistakes = [one for one in document.diagnostics if one.is_error]
    lost = frozenset(work.lost) | {document.path_at(one.span) for one in mistakes}
    steps = {path for key, each in lists_of_steps(said) for path, _ in walk(each, (key,))}
    return PartialDocument(
        said,
        replace(document, root=work.root),
        tuple(dict.fromkeys(found)),
        is_whole=False,
        lost=lost,
        gaps=frozenset(_gaps(lost, steps)),
        wrong=(
            *(replace(one.span, column=1, end_line=one.span.line + 1, end_column=1) for one in mistakes),
            *(one.span for one in judged.found if one.is_error and one.code != MISSING_KEY.code),
        ),
    )


_INERT = frozenset({"name", "version", "description", "tags", "config", "budget"})
# No rule depends on these keys.


def _gaps(lost: Iterable[Path], steps: set[Path]) -> Iterator[Path]:
    """Yield the step, agent or blueprint that each lost place belongs to, unless the key is inert."""
    for path in lost:
        ends = (path[:length] for length in range(len(path), 0, -1))
        owner = next((end for end in ends if end in steps), path[:2] if path[:1] == ("agents",) else ())
        if path == owner or path[len(owner)] not in _INERT:
            yield owner


# One mistake ---------------------------------------------------------------------------------------------

_Edit = Node | str | None
"""The replacement of an entry: another value, another key for the same value, or None to remove it."""


@dataclass
class _Work:
    """A document's tree while errors are removed from it."""

    language: type[doc.Strict]
    root: Mapping
    lost: set[Path] = field(default_factory=set)

    def take_out(self, paths: Iterable[Path]) -> None:
        """Remove entries."""
        self._apply(dict.fromkeys(paths))

    def repair(self, errors: Iterable[Any]) -> bool:
        """Remove or replace the causes of pydantic's errors; return whether that was possible."""
        edits: dict[Path, _Edit] = {}
        for error in errors:
            path, edit = self._edit(error)
            if not path:
                return False
            edits[path] = edit
        self._apply(edits)
        return True

    def _apply(self, edits: dict[Path, _Edit]) -> None:
        for path, edit in edits.items():
            self.lost.add((*path[:-1], edit) if isinstance(edit, str) else path)
        above = {path[:length] for path in edits for length in range(len(path))}
        root = _edited(self.root, (), edits, above)
        assert isinstance(root, Mapping)  # noqa: S101  # an edit has a path, so it is never the root's
        self.root = root

    def _edit(self, error: Any) -> tuple[Path, _Edit]:
        """Return which entry to change to fix an error, and its replacement."""
        loc, path, facts = error["loc"], path_of(error["loc"]), error.get("ctx", {})
        if error["type"] == "extra_forbidden":
            return path, meant_key(self.language, loc, self._at(path[:-1]))
        if loc[-1:] == ("[key]",):
            return path, _as_name(str(path[-1]), self._at(path[:-1]))
        if error["type"] == "union_tag_invalid" and (kind := self._meant_kind(path)):
            return (*path, "kind"), self._put(kind)
        if error["type"] == "flujo" and facts["key"] is not None and facts["rule"] != "missing-key":
            return (*path, facts["key"]), None
        if facts.get("rule") == "missing-key" and (key := self._missing_condition(path)):
            return key
        return self._smallest(loc)

    def _smallest(self, loc: Path) -> tuple[Path, _Edit]:
        """Return the smallest enclosing entry that can be removed or replaced."""
        for path, owner, kind in reversed(list(_along(self.language, loc))):
            if path in self.lost:
                continue  # that did not help: an enclosing entry has to be removed
            if _is_mapping(owner) and not _field(owner, path[-1]).is_required():
                return path, None
            if _is_step(kind):
                return path, self._stand_in(path)
            if _is_mapping(owner) and path[-1] in _FILLERS:
                return path, self._put(_FILLERS[str(path[-1])](self._at(path[:-1])))
            if owner is dict:
                return path, self._put(_empty(kind)) if _empty(kind) is not None else None
        return (), None

    def _stand_in(self, path: Path) -> Node:
        step = self._at(path[:-1]).get(path[-1]) if isinstance(path[-1], str) else self._at(path)
        name = step.get("name") if isinstance(step, dict) else None
        is_usable = isinstance(name, str) and re.fullmatch(IDENTIFIER, name)
        return self._put(StandIn.model_construct(name=str(name) if is_usable else UNNAMED))

    def _meant_kind(self, path: Path) -> str | None:
        kind = self._at(path).get("kind")
        return meant_kind(kind) if isinstance(kind, str) and (*path, "kind") not in self.lost else None

    def _missing_condition(self, path: Path) -> tuple[Path, _Edit] | None:
        """Return the keys that a conditional needs so that its branches can be checked."""
        step = self._at(path)
        if step.get("kind") != "conditional":
            return None
        wanted = {"if": "true", "then": []} if {"if", "then", "else"} & step.keys() else _SWITCH
        for key, value in wanted.items():
            if key not in step and (*path, key) not in self.lost:
                return (*path, key), self._put(value)
        return None

    def _at(self, path: Path) -> Any:
        data: Any = self.root.value
        for key in path:
            data = data[key]
        return data

    def _put(self, value: Any) -> Node:
        return node_of(value, self.root.start)


_SWITCH: dict[str, Any] = {"switch": "''", "branches": {}}
_FILLERS: dict[str, Callable[[Any], Any]] = {
    "version": lambda _: "1",
    "name": lambda _: UNNAMED,
    "steps": lambda _: [StandIn.model_construct(name=UNNAMED)],
    "over": lambda _: "[]",
    "initial": lambda machine: next(iter(_states(machine)), UNNAMED),
    "final": lambda machine: [*_states(machine)][-1:] or [UNNAMED],
}
"""The replacement for a required key, given its mapping, so that the steps inside can be checked."""


def _states(machine: dict[str, Any]) -> dict[str, Any]:
    states = machine.get("states")
    return states if isinstance(states, dict) else {}


def _as_name(key: str, beside: dict[str, Any]) -> str | None:
    """Return a key converted to a valid name, unless that name exists already."""
    name = re.sub(r"\W", "_", key, flags=re.ASCII)
    usable = re.fullmatch(IDENTIFIER, name) and len(name) <= MAX_NAME and name not in beside
    return name if usable else None


# Types ---------------------------------------------------------------------------------------------------


def _along(language: Any, loc: Path) -> Iterator[tuple[Path, Any, Any]]:
    """Yield each place on the way to a location: the path, the type of what it is in, and its own."""
    here: Any = language
    path: Path = ()
    for part in loc:
        owner, here = here, into(here, part)
        if part != "[key]" and not str(part).startswith("\0"):
            path = (*path, part)
            container = bare(owner)
            yield path, getattr(container, "__origin__", container), here


def _is_mapping(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, doc.Strict)


def _is_step(kind: Any) -> bool:
    """Return whether a place of this type takes steps of any kind."""
    return bool(kind == doc.AnyStep)


def _field(model: Any, key: Any) -> Any:
    fields = model.model_fields
    return next(one for name, one in fields.items() if (one.alias or name) == key)


def _empty(kind: Any) -> Any:
    """Return a neutral value of a type, or None if there is none."""
    kind = bare(kind)
    if getattr(kind, "__origin__", kind) is list:
        return []
    has_one = _is_mapping(kind) and not any(one.is_required() for one in kind.model_fields.values())
    return {} if has_one else None


# The tree ------------------------------------------------------------------------------------------------


def _edited(node: Node, path: Path, edits: dict[Path, _Edit], above: set[Path]) -> Node:
    """Return a tree with edits applied; parts without edits are the same objects."""
    if path not in above:
        return node
    if isinstance(node, Sequence):
        items = [_item(item, (*path, index), edits, above) for index, item in enumerate(node.items)]
        return replace(node, value=[item.value for item in items], items=tuple(items))
    if not isinstance(node, Mapping):
        return node
    entries: dict[str, tuple[Scalar, Node]] = {}
    for name, (key, value) in node.entries.items():
        edit = edits.get((*path, name), value)
        if isinstance(edit, str):
            entries[edit] = (key, value)
        elif edit is not None:
            inner = _edited(value, (*path, name), edits, above) if edit is value else edit
            entries[name] = (key, inner)
    for place, edit in edits.items():
        if place[:-1] == path and place[-1] not in node.entries and isinstance(edit, Node):
            entries[str(place[-1])] = (Scalar(place[-1], node.start, node.start), edit)
    return replace(node, value={name: value.value for name, (_, value) in entries.items()}, entries=entries)


def _item(item: Node, path: Path, edits: dict[Path, _Edit], above: set[Path]) -> Node:
    edit = edits.get(path)
    return edit if isinstance(edit, Node) else _edited(item, path, edits, above)
