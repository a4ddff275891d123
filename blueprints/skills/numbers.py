"""Plays with numbers: puts two of them together, and says how near a hand of them is to the target."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

_Hand = dict[str, Any]


def moves(node: dict[str, Any]) -> list[_Hand]:
    """Return the hands that one move makes of a hand, each once: `{numbers, moves}`."""
    hand = node["candidate"] or {"numbers": node["input"]["numbers"], "moves": []}
    numbers: list[int] = hand["numbers"]
    hands = []
    for i, k in combinations(range(len(numbers)), 2):
        rest = [number for at, number in enumerate(numbers) if at not in (i, k)]
        for made, said in _results(max(numbers[i], numbers[k]), min(numbers[i], numbers[k])):
            hand_after = {"numbers": sorted([*rest, made]), "moves": [*hand["moves"], said]}
            if hand_after not in hands:
                hands.append(hand_after)
    return hands


def closeness(node: dict[str, Any]) -> int:
    """Return 0 when a number of the hand is the target, otherwise how far the nearest is away, below 0."""
    return -min(abs(node["input"]["target"] - number) for number in node["candidate"]["numbers"])


def _results(a: int, b: int) -> Iterator[tuple[int, str]]:
    yield a + b, f"{a} + {b} = {a + b}"
    yield a * b, f"{a} * {b} = {a * b}"
    if a > b:
        yield a - b, f"{a} - {b} = {a - b}"
    if b and a % b == 0:
        yield a // b, f"{a} / {b} = {a // b}"
