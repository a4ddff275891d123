"""Structural patches between two canonical trees: what a step changed in the context, and nothing else.

A patch is a list of operations, each a JSON list: `["set", path, value]`, `["remove", path]`,
`["append", path, [values]]`, where `path` is a list of keys and indexes. Trees are never changed in place:
`apply` copies along the path and shares the rest, so that `diff` can pass over what is the same object.
"""

from __future__ import annotations

from typing import Any

Op = list[Any]
Patch = list[Op]


def diff(before: Any, after: Any) -> Patch:
    """Return the operations that turn `before` into `after`."""
    ops: Patch = []
    _diff(before, after, [], ops)
    return ops


def _diff(before: Any, after: Any, path: list[str | int], ops: Patch) -> None:
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        ops.extend(["remove", [*path, key]] for key in before if key not in after)
        for key, value in after.items():
            if key not in before:
                ops.append(["set", [*path, key], value])
            else:
                _diff(before[key], value, [*path, key], ops)
    elif isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        for index, value in enumerate(before):
            _diff(value, after[index], [*path, index], ops)
        if len(after) > len(before):
            ops.append(["append", path, after[len(before) :]])
    elif type(before) is not type(after) or before != after:
        ops.append(["set", path, after])


def apply(tree: Any, patch: Patch) -> Any:
    """Return `tree` with `patch` applied; what the patch does not touch is shared, not copied."""
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
