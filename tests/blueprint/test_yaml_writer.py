"""Every reader of YAML, old or new, reads the written data back unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flujo.blueprint.reading.reader import read
from flujo.blueprint.yaml_writer import to_yaml

RESOLVED_BY_SOME_READER = [
    "yes", "No", "ON", "off", "y", "N", "true", "False", "NULL", "null", "~", "", "=", "<<", "1", "-1", "+1.5", "0o17", "017",
    "0x1F", "0b1", "1_000", "1e5", "1E5", ".5", "5.", "1:30", "190:20:30", ".inf", "-.INF", ".nan", "2026-11-28",
    "2026-11-28T10:00:00Z", "2026-11-28 10:00:00",
]  # fmt: skip
HARD_TO_WRITE = [
    "\x85", "a\x85b", "\u2028", "a\u2029b", "\ufeff", "\x1b[31m", "\x7f", "\t", "a\tb", " ", " a", "a ", "\n", "\n\n", "a\n", "a\n\n",
    "\na", " a\nb", "a \nb", "a\n b\n", "a\n\n\nb", "a\r\nb", "a\rb", "---", "...", "--- a", "- a", "? a", "a: b", "a:", "# a", "a # b",
    "!a", "&a", "*a", "%a", "@a", "`a`", "|", ">", "'", '"', "it's: \"x\"", "{{ a }}", "[a]", "{a}", "a, b", "\\", "\U0001f600",
    "word " * 60, "x" * 300, "# a\n# b\n", "---\na\n", "%YAML 1.1\na", "a\n...\nb", "\ta\nb", "a\n\t\nb\n",
]  # fmt: skip

texts = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
    | st.text(" \n\t\r:#-'\"|>\\\x85\u2028ab", max_size=12)
    | st.sampled_from(RESOLVED_BY_SOME_READER + HARD_TO_WRITE)
)
keys = texts.filter(
    lambda text: len(text) <= 128 and text != "__proto__"
)  # as the reader of blueprints demands
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


def as_read_by_each(text: str) -> dict[str, Any]:
    """Return the data that each reader finds."""
    ours = read(text.encode(), "written.yaml")
    assert not ours.diagnostics, (text, ours.diagnostics)
    assert not ours.lookalikes, text
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)
    return {
        "ours": ours.root.value if ours.root else None,
        "ruamel, YAML 1.2": YAML(typ="safe", pure=True).load(text),
        "ruamel, YAML 1.1": old.load(text),
        "PyYAML": yaml.load(text, Loader=yaml.CSafeLoader),
    }


@given(st.dictionaries(st.sampled_from("abc"), documents, min_size=1, max_size=3))
@example({"a": {text: text for text in RESOLVED_BY_SOME_READER}})
@example({"a": HARD_TO_WRITE})
@example({"a": [1e22, -0.0, 5e-324, 1e16, 2**53]})
def test_written_data_is_read_back_unchanged(data: dict[str, Any]) -> None:
    text = to_yaml(data)
    for reader, found in as_read_by_each(text).items():
        assert repr(found) == repr(data), f"{reader} reads {found!r} from\n{text}"


@pytest.mark.parametrize("text", RESOLVED_BY_SOME_READER)
def test_a_text_that_a_reader_would_resolve_is_quoted(text: str) -> None:
    assert to_yaml({"a": text}) == f"a: '{text}'\n"


@pytest.mark.parametrize("control", ["\x1b", "\x85", "\u200b", "\u202a", "\u2028", "\ufeff", "\ue000"])
def test_a_control_is_written_as_an_escape(control: str) -> None:
    text = to_yaml({"a": f"é{control}b"})
    assert control not in text
    assert text.startswith('a: "')


def test_an_ordinary_text_stays_without_quotes() -> None:
    assert to_yaml({"a": "draft an answer", "b": "gé"}) == "a: draft an answer\nb: gé\n"


def test_lines_are_written_as_a_block() -> None:
    assert to_yaml({"prompt": "Answer:\n- briefly\n"}) == "prompt: |\n  Answer:\n  - briefly\n"


def test_keys_keep_their_order() -> None:
    assert (
        to_yaml({"name": "a", "b": 1, "a": [{"z": 1, "y": []}]}) == "name: a\nb: 1\na:\n- z: 1\n  'y': []\n"
    )


def test_a_value_that_occurs_twice_is_written_twice() -> None:
    shared = {"type": "string"}
    assert "&" not in to_yaml({"a": shared, "b": shared})
