"""Small callables for the blueprints and pipelines of `tests/domain/test_checks.py`."""

from __future__ import annotations

from typing import Any


def twice(data: int) -> int:
    return data * 2


async def plus(data: int, by: int = 1) -> int:
    return data + by


def double(n: int) -> int:
    return n * 2


def say(text: str) -> str:
    return text


def items(data: int) -> list[int]:
    return list(range(data))


def is_big(data: int) -> bool:
    return data > 5


def size(data: int) -> str:
    return "big" if is_big(data) else "small"


def which(data: int) -> list[str]:
    return ["high", "low"]


def both(data: Any) -> list[str]:
    return ["high", "low"]


def fail(data: Any) -> Any:
    raise ValueError(f"not {data}")


def must_be_long(data: str) -> bool:
    return len(data) > 3


def must_be_big(data: int) -> str | None:
    return None if is_big(data) else f"{data} is not big"


def propose(data: dict[str, Any]) -> list[int]:
    start = data["candidate"] if data["candidate"] is not None else data["input"]
    return [start + 1, start + 3]


def score(data: dict[str, Any]) -> float:
    return float(data["candidate"])
