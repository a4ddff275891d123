"""Journal entries: the digest that finds a flipped bit."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from flujo.domain.journal import (
    Entry,
    EntryKind,
    EntryStatus,
)
from flujo.domain.paths import StepPath
from flujo.domain.usage import Usage

ENTRY = Entry(
    path=StepPath("a"),
    kind=EntryKind.WORK,
    seq=1,
    input=b"1",
    output=b"2",
    patch=b"[]",
    error=b"{}",
    detail=b"{}",
    usage=Usage(1, 2, 1),
    fingerprint="step",
    started_at=1.0,
    ended_at=2.0,
)
OTHER = {
    "path": StepPath("b"),
    "kind": EntryKind.DONE,
    "attempt": 2,
    "status": EntryStatus.FAILED,
    "seq": 2,
    "input": b"x",
    "output": None,
    "patch": b"[1]",
    "error": None,
    "detail": b"{ }",
    "usage": Usage(1, 2, 2),
    "fingerprint": "loop",
    "started_at": 1.5,
    "ended_at": 2.5,
}


@pytest.mark.parametrize("field", [field.name for field in fields(Entry)])
def test_a_change_of_any_field_changes_the_digest(field: str) -> None:
    assert replace(ENTRY, **{field: OTHER[field]}).digest() != ENTRY.digest()  # type: ignore[arg-type]


def test_moving_bytes_between_fields_changes_the_digest() -> None:
    one = replace(ENTRY, input=b"ab", output=b"c")
    other = replace(ENTRY, input=b"a", output=b"bc")
    assert one.digest() != other.digest()
