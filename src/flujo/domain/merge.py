"""Changes of the context: structural patches between two trees, and merging of several patches.

A patch is a list of operations, each a JSON list: `["set", path, value]`, `["remove", path]`,
`["append", path, [values]]`, where `path` is a list of keys and indexes. Trees are never changed in place:
`apply` copies along the path and shares the rest, so that `diff` can skip identical objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

Op = list[Any]
Patch = list[Op]

NO_FIELDS: Mapping[str, Sequence[str]] = MappingProxyType({})


def diff(before: Any, after: Any) -> Patch:
    """Return the operations that turn `before` into `after`."""
    ops: Patch = []
    if before is not after:
        _diff(before, after, [], ops)
    return ops


def _diff(before: Any, after: Any, path: list[str | int], ops: Patch) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        ops.extend(["remove", [*path, key]] for key in before if key not in after)
        for key, value in after.items():
            if key not in before:
                ops.append(["set", [*path, key], value])
            elif before[key] is not value:
                _diff(before[key], value, [*path, key], ops)
    elif isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        for index, value in enumerate(before):
            if value is not after[index]:
                _diff(value, after[index], [*path, index], ops)
        if len(after) > len(before):
            ops.append(["append", path, after[len(before) :]])
    elif type(before) is not type(after) or before != after:
        ops.append(["set", path, after])


def apply(tree: Any, patch: Patch) -> Any:
    """Return `tree` with `patch` applied; unchanged parts are shared, not copied."""
    for op in patch:
        match op:
            case ["set", path, value]:
                tree = _at(tree, path, lambda _old, value=value: value)
            case ["append", path, values]:
                tree = _at(tree, path, lambda old, values=values: [*(old or []), *values])
            case ["remove", path]:
                *above, key = path
                tree = _at(tree, above, lambda old, key=key: {k: v for k, v in old.items() if k != key})
            case _:
                raise ValueError(f"not a patch operation: {op!r}")
    return tree


def revalued(tree: Any, patch: Patch, after: Any) -> Patch:
    """Return `patch` of `tree` with its values as they are in `after`, the tree with converted values."""
    fields = [str(op[1][0]) for op in patch]
    ops: Patch = []
    for op, field in zip(patch, fields, strict=True):
        match op:
            case ["set", path, value]:
                new = _value_at(after, path)
                # Another operation on the field may change the value after this one.
                ops.append(["set", path, new if fields.count(field) == 1 or new == value else value])
            case ["append", path, values]:
                start = len(_value_at(tree, path) or ())
                new = (_value_at(after, path) or [])[start : start + len(values)]
                ops.append(["append", path, new if new == values else values])
            case _:
                ops.append(op)
        tree = apply(tree, [op])
    return ops


def _value_at(tree: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _at(tree: Any, path: list[str | int], change: Any) -> Any:
    if not path:
        return change(tree)
    key, *rest = path
    if isinstance(tree, list):
        copy = list(tree)
        copy[int(key)] = _at(tree[int(key)], rest, change)
        return copy
    old = tree if isinstance(tree, dict) else {}
    return {**old, key: _at(old.get(key), rest, change)}


# Several patches of one tree -----------------------------------------------------------------------------


class MergeStrategy(StrEnum):
    """How the writes of several branches are merged: per top-level field, compared with the fork.

    The order in which branches end does not matter; "first" and "last" mean the order of declaration.
    """

    NO_MERGE = "no_merge"
    """All writes are dropped."""
    CONTEXT_UPDATE = "context_update"
    """A field is taken from the only branch that wrote it; appends of several are joined; else a conflict."""
    OVERWRITE = "overwrite"
    """The last branch that wrote a field wins."""
    KEEP_FIRST = "keep_first"
    """The first branch that wrote a field wins."""
    ERROR_ON_CONFLICT = "error_on_conflict"
    """A field that two branches wrote is a conflict, even when both only appended."""


CHOOSING = (MergeStrategy.NO_MERGE, MergeStrategy.KEEP_FIRST, MergeStrategy.OVERWRITE)
"""The strategies that always decide between two branches."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Several branches wrote one field, and the strategy does not decide between them."""

    field: str
    branches: tuple[str, ...]


def fold(
    fork: Any,
    patches: Mapping[str, Patch],
    strategy: MergeStrategy,
    mapping: Mapping[str, Sequence[str]] = NO_FIELDS,
) -> Patch | Conflict:
    """Return one patch of `fork`, merged from the patches of the branches.

    Args:
        fork: the tree before the branches.
        patches: branch → its patch, in the order of declaration.
        strategy: decides about a field that several branches wrote.
        mapping: branch → the fields that are taken from it; all fields of a branch that is not named.
    """
    if strategy is MergeStrategy.NO_MERGE:
        return []
    folded: Patch = []
    for field, written in _writers(patches, mapping).items():
        appended = [_appended(fork, field, ops) for ops in written.values()]
        if len(written) == 1 or strategy is MergeStrategy.KEEP_FIRST:
            folded += next(iter(written.values()))
        elif strategy is MergeStrategy.OVERWRITE:
            folded += next(reversed(written.values()))
        elif strategy is MergeStrategy.CONTEXT_UPDATE and None not in appended:
            folded.append(["append", [field], [value for values in appended for value in values or ()]])
        else:
            return Conflict(field, tuple(written))
    return folded


def _writers(
    patches: Mapping[str, Patch], mapping: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Patch]]:
    """Return field → branch → the branch's operations on it."""
    writers: dict[str, dict[str, Patch]] = {}
    for branch, patch in patches.items():
        for op in patch:
            field = str(op[1][0])
            if branch not in mapping or field in mapping[branch]:
                writers.setdefault(field, {}).setdefault(branch, []).append(op)
    return writers


def _appended(fork: Any, field: str, ops: Patch) -> list[Any] | None:
    """Return the values that a branch appended to a list; None when it changed the field in another way.

    Appending to a missing or null field starts a list, which is a `set` in the patch.
    """
    match ops:
        case [["append", [_], values]]:
            return list(values)
        case [["set", [_], list(values)]] if fork.get(field) is None:
            return values
        case _:
            return None
