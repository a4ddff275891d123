"""JSON Schemas in files: what `$ref: ./schemas/ticket.json` names becomes a part of the referring schema.

A schema that is only such a reference is replaced by what it names, and reads as if it were written in place.
Everything else that a reference names becomes an entry of the schema's `$defs`. So all code after
reading sees one schema without files. A `Document` keeps the place of each part in its own file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from flujo.blueprint.reading.source_map import Document, Mapping, Node, Scalar, Sequence
from flujo.blueprint.schemas.checks import Path, pointer, resolve
from flujo.blueprint.schemas.keywords import KEYWORDS

Part = tuple[Document, Path]
"""A schema in a file: the file, and the place in it."""
Opened = Callable[[Document, Path, str], Part | None]
"""Returns what a document refers to at a place, or None after reporting why it cannot be used."""


def with_files(document: Document, places: Iterator[Path], opened: Opened) -> Document:
    """Return a document whose schemas contain the files that they refer to.

    Args:
        document: a blueprint or a file of agents.
        places: the places of its schemas.
        opened: reads a file.
    """
    for place in places:
        node = document.node(place)
        if isinstance(node, Mapping):
            bundle = _Bundle(document, place, opened)
            whole = bundle.of(node)
            if whole is not node:
                document = replace(
                    document,
                    root=_put(document.root, place, whole),
                    lookalikes={**document.lookalikes, **bundle.lookalikes()},
                    elsewhere={**document.elsewhere, **bundle.places()},
                )
    return document


def names_file(reference: Any) -> bool:
    """Return whether a `$ref` names a file, not a part of its schema or an address of the network."""
    return isinstance(reference, str) and not reference.startswith("#") and "://" not in reference


@dataclass
class _Bundle:
    """One schema, and all that it refers to in files, at any depth."""

    document: Document
    place: Path
    opened: Opened
    root: Part | None = None
    """What the whole schema is replaced by."""
    names: dict[tuple[str, Path], str] = field(default_factory=dict)
    """The names of the definitions that parts of files became."""
    parts: dict[str, tuple[Part, Node]] = field(default_factory=dict)
    """The definitions by their names."""
    waiting: list[tuple[str, Part]] = field(default_factory=list)

    def of(self, node: Mapping) -> Mapping:
        """Return the schema with what it refers to; the same node if it refers to no file."""
        inner = self._inlined(node)
        source, place = self.root or (self.document, self.place)
        definitions = (inner or node).value.get("$defs")
        self.names = {("", ("$defs", name)): name for name in definitions or ()}
        own = self._schema(inner or node, source, place)
        while self.waiting:  # a list, because files may refer to each other in a long chain
            name, part = self.waiting.pop()
            target = part[0].node(part[1])
            if target is not None:
                self.parts[name] = (part, self._schema(target, *part))
        if own is node or not isinstance(own, Mapping):
            return node
        return replace(self._with_definitions(own), start=node.start, end=node.end)

    def places(self) -> dict[Path, Part]:
        """Return where the parts of the schema are that are not in its document."""
        found: dict[Path, Part] = {} if self.root is None else {self.place: self.root}
        return found | {(*self.place, "$defs", name): part for name, (part, _) in self.parts.items()}

    def lookalikes(self) -> dict[Path, str]:
        """Return the texts in its files that YAML 1.1 reads as another type; see `Document`."""
        return {
            (*here, *path[len(inside) :]): instead
            for here, (file, inside) in self.places().items()
            for path, instead in file.lookalikes.items()
            if path[: len(inside)] == inside
        }

    def _inlined(self, node: Mapping) -> Mapping | None:
        """Return the schema that replaces one which is only a reference to a file."""
        source, place, met = self.document, self.place, set[tuple[str, Path]]()
        inner = None
        while node.entries.keys() == {"$ref"} and names_file(node.value["$ref"]):
            part = self.opened(source, (*place, "$ref"), node.value["$ref"])
            target = None if part is None else part[0].node(part[1])
            if part is None or (part[0].file, part[1]) in met or not isinstance(target, Mapping):
                break  # also for files that only refer to each other: the check of cycles reports them
            met.add((part[0].file, part[1]))
            self.root, (source, place), node, inner = part, part, target, target
        return inner

    def _schema(self, node: Node, source: Document, place: Path) -> Node:
        """Return a schema of a file with its references changed; the same node without changes."""
        if not isinstance(node, Mapping):
            return node
        entries: dict[str, tuple[Scalar, Node]] = {}
        for keyword, (key, value) in node.entries.items():
            changed = self._keyword(keyword, value, source, (*place, keyword))
            if changed is not None:
                entries[keyword] = (key, changed)
        if source is not self.document and place == ():
            entries.pop("$id", None)  # its references are resolved already
        return _changed(node, entries)

    def _keyword(self, keyword: str, value: Node, source: Document, place: Path) -> Node | None:
        if keyword == "$ref" and isinstance(value, Scalar) and isinstance(value.value, str):
            reference = self._reference(value.value, source, place)
            return None if reference is None else _text(value, reference)
        match KEYWORDS.get(keyword):
            case "schema":
                return self._schema(value, source, place)
            case "schemas" if isinstance(value, Sequence):
                items = tuple(
                    self._schema(item, source, (*place, index)) for index, item in enumerate(value.items)
                )
                is_same = all(new is old for new, old in zip(items, value.items, strict=True))
                return value if is_same else replace(value, value=[each.value for each in items], items=items)
            case "named schemas" | "patterned schemas" if isinstance(value, Mapping):
                inner = {
                    name: (key, self._schema(one, source, (*place, name)))
                    for name, (key, one) in value.entries.items()
                }
                return _changed(value, inner)
            case _:
                return value

    def _reference(self, reference: str, source: Document, place: Path) -> str | None:
        """Return where a reference leads in this schema; None if it leads to nothing."""
        if names_file(reference):
            part = self.opened(source, place, reference)
            return None if part is None else self._there(*part)
        is_own = source is self.document or (self.root is not None and self.root == (source, ()))
        inside = None if is_own else resolve(source.data, unquote(reference[1:]))
        return reference if inside is None else self._there(source, inside)

    def _there(self, file: Document, inside: Path) -> str:
        """Return the reference to a part of a file; a new part becomes a definition."""
        if self.root is not None and self.root[0] is file and inside[: len(self.root[1])] == self.root[1]:
            return pointer(inside[len(self.root[1]) :])
        key = (file.file, inside)
        if key not in self.names:
            named = str(inside[-1]) if inside else PurePosixPath(file.file).stem
            name = stem = re.sub(r"[^A-Za-z0-9_-]", "_", named)
            count = 1
            while name in self.names.values():
                count += 1
                name = f"{stem}_{count}"
            self.names[key] = name
            self.waiting.append((name, (file, inside)))
        return pointer(("$defs", self.names[key]))

    def _with_definitions(self, root: Mapping) -> Mapping:
        if not self.parts:
            return root
        at = root.start
        key, own = root.entries.get("$defs", (Scalar("$defs", at, at), Mapping({}, {}, at, at)))
        given = own.entries if isinstance(own, Mapping) else {}
        added = {name: (Scalar(name, at, at), node) for name, (_, node) in self.parts.items()}
        definitions = _changed(Mapping({}, {}, own.start, own.end), {**given, **added})
        return _changed(root, {**root.entries, "$defs": (key, definitions)})


def _changed(node: Mapping, entries: dict[str, tuple[Scalar, Node]]) -> Mapping:
    """Return a mapping with other entries, or the same one if they are the same."""
    if entries.keys() == node.entries.keys() and all(
        value is node.entries[name][1] for name, (_, value) in entries.items()
    ):
        return node
    return replace(node, value={name: value.value for name, (_, value) in entries.items()}, entries=entries)


def _text(node: Scalar, text: str) -> Scalar:
    return node if node.value == text else replace(node, value=text)


def _put(node: Node | None, path: Path, new: Node) -> Node:
    """Return a tree with another node at a path."""
    if not path or node is None:
        return new
    if isinstance(node, Sequence):
        items = tuple(
            _put(item, path[1:], new) if index == path[0] else item for index, item in enumerate(node.items)
        )
        return replace(node, value=[each.value for each in items], items=items)
    if isinstance(node, Mapping):
        key, value = node.entries[str(path[0])]
        return _changed(node, {**node.entries, str(path[0]): (key, _put(value, path[1:], new))})
    return node
