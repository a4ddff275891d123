"""A mapping that grows without being copied, for the names that one step after another adds to a scope."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class Growing(Mapping[str, V]):
    """A mapping that never changes; `plus` returns a larger one that shares most of its entries.

    If the scope of each of n steps were a copy, all of them would hold n² entries. Here the entries stand in
    layers, the newest first, each larger than the one before it: n additions copy n·log(n) entries, and a
    look-up tries log(n) layers.
    """

    __slots__ = ("_layers",)

    def __init__(self, *layers: Mapping[str, V]) -> None:
        self._layers = layers

    def plus(self, name: str, value: V) -> Growing[V]:
        """Return this mapping with one more entry, or with another value for a name."""
        newest: Mapping[str, V] = {name: value}
        layers = iter(self._layers)
        for layer in layers:
            if len(layer) > len(newest):
                return Growing(newest, layer, *layers)
            newest = {**layer, **newest}
        return Growing(newest)

    def __getitem__(self, name: str) -> V:
        for layer in self._layers:
            if name in layer:
                return layer[name]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(name in layer for layer in self._layers)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for layer in reversed(self._layers) for name in layer))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(self._layers)

    def __repr__(self) -> str:
        return repr(dict(self))
