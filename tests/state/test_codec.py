"""Rows and records: records are decoded unchanged, and every change of a row is detected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus, RunId
from flujo.domain.paths import StepPath
from flujo.domain.usage import Usage
from flujo.exceptions import CorruptState
from flujo.state import codec

RUN = RunId("run-1")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
values = st.none() | json_values.map(canonical.encode) | st.just(b'"' + b"x" * 20_000 + b'"')
entries = st.builds(
    Entry,
    path=st.sampled_from(["a", "a/b[2]:c", "loop[0]"]).map(StepPath),
    kind=st.sampled_from(EntryKind),
    attempt=st.integers(1, 9),
    status=st.sampled_from(EntryStatus),
    seq=st.integers(1, 10**6),
    input=values,
    output=values,
    patch=values,
    error=values,
    detail=values,
    usage=st.builds(Usage, input_tokens=st.integers(0, 10**9), requests=st.integers(0, 3)),
    fingerprint=st.text("0123456789abcdef", max_size=64),
    started_at=st.floats(0, 4e9),
    ended_at=st.floats(0, 4e9),
)


def _stored(entry: Entry) -> tuple[dict[str, Any], dict[str, bytes]]:
    aside: codec.Rows = {}
    row = codec.entry_row(RUN, entry, aside)
    return row, {digest: codec.blob(blob) for digest, blob in aside.items()}


@settings(max_examples=60, deadline=None)
@given(entries)
def test_an_entry_is_decoded_unchanged(entry: Entry) -> None:
    row, aside = _stored(entry)
    assert codec.entry(row, aside) == entry
    assert all(len(row[name] or b"") <= codec.INLINE_LIMIT for name in codec.ENTRY_VALUES)
    assert codec.references([row], codec.ENTRY_VALUES) == set(aside)


@pytest.mark.guarantee("G7")
@settings(max_examples=60, deadline=None)
@given(entries, st.data())
def test_a_changed_column_is_detected(entry: Entry, data: st.DataObject) -> None:
    row, aside = _stored(entry)
    column = data.draw(st.sampled_from(sorted(set(row) - {"parent"})))
    old = row[column]
    other = {int: 1234567, float: 1.5, str: "other", bytes: b"0", type(None): b"0"}[type(old)]
    row[column] = None if old == other else other
    with pytest.raises(CorruptState, match="is corrupt"):
        codec.entry(row, aside)


@pytest.mark.guarantee("G7")
def test_a_null_usage_is_not_treated_as_zero_usage() -> None:
    entry = Entry(path=StepPath("a"), kind=EntryKind.WORK, seq=1)
    row, aside = _stored(entry)
    assert codec.entry(row, aside) == entry
    for written in (b"0", b"[]", b"false", b'""'):
        with pytest.raises(CorruptState):
            codec.entry({**row, "usage": written}, aside)


@pytest.mark.guarantee("G7")
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3_000) | st.integers(1, 9).map(lambda n: b"abc" * 1_000 * n), st.data())
def test_a_flipped_bit_in_a_blob_is_detected_unless_it_changes_nothing(
    content: bytes, data: st.DataObject
) -> None:
    row = codec.blob_row(canonical.digest(content), content)
    assert codec.blob(row) == content
    stored = bytearray(row["data"] or b"\x00")
    place = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[place // 8] ^= 1 << place % 8
    try:
        read = codec.blob({**row, "data": bytes(stored)})
    except CorruptState:
        return
    assert read == content  # a zstd frame has unused bits


@pytest.mark.guarantee("G24")
def test_a_blob_under_another_digest_is_refused() -> None:
    with pytest.raises(CorruptState):
        codec.blob_row("0" * 64, b"content")
