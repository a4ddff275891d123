"""Paths and entries: the journal's address system, and the digest that finds a flipped bit."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.journal import (
    ROOT,
    Entry,
    EntryKind,
    EntryStatus,
    StepPath,
    branch,
    child,
    from_command_line,
    indexed,
    parent,
)
from flujo.domain.usage import Usage

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)


@st.composite
def paths(draw: st.DrawFn) -> StepPath:
    path = child(ROOT, draw(names))
    for kind in draw(st.lists(st.sampled_from(["child", "turn", "branch"]), max_size=5)):
        match kind:
            case "child":
                path = child(path, draw(names))
            case "turn":
                path = indexed(path, draw(st.integers(0, 99)))
            case _:
                path = branch(path, draw(names))
    return path


@given(paths(), names, st.integers(0, 10**6))
def test_what_encloses_a_path_is_where_it_was_made(path: StepPath, name: str, count: int) -> None:
    assert parent(child(path, name)) == path
    assert parent(indexed(path, count)) == path
    assert parent(branch(path, name)) == path


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("a/b[2]/c", "a/b[2]"),
        ("a/b[2]", "a/b"),
        ("route:refund/x", "route:refund"),
        ("route:refund", "route"),
        ("a", ""),
    ],
)
def test_a_path_goes_up_one_level_at_a_time(path: str, above: str) -> None:
    assert parent(StepPath(path)) == above


def test_a_path_can_be_typed_without_brackets() -> None:
    assert from_command_line("loop.2/check") == "loop[2]/check"
    assert from_command_line("loop[2]/check") == "loop[2]/check"
    assert from_command_line("a/b") == "a/b"


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


def test_bytes_cannot_move_from_one_field_to_the_next_unseen() -> None:
    one = replace(ENTRY, input=b"ab", output=b"c")
    other = replace(ENTRY, input=b"a", output=b"bc")
    assert one.digest() != other.digest()
