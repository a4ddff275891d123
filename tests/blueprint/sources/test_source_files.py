"""Files that a blueprint names: which are read, which are refused, and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.sources.source_files import (
    FileSource,
    PinnedSource,
    SourceRefused,
    named_path,
)

if TYPE_CHECKING:
    from pathlib import Path

REFUSED_PATHS = [
    ("/etc/passwd.yaml", "absolute"),
    ("C:/x.yaml", "absolute"),
    ("../../x.yaml", "out of the project"),
    ("./../../x.yaml", "not a plain path"),
    ("a/../../../x.yaml", "out of the project"),
    ("~/x.yaml", "home"),
    ("x%2e.yaml", "%"),
    ("a\\b.yaml", "backslash"),
    ("\\\\host\\share\\x.yaml", "backslash"),
    ("a\x00.yaml", "NUL"),
    ("file:///x.yaml", "it is a URL"),
    ("https://example.org/x.yaml", "it is a URL"),
    ("x.py", "not a plain path"),
    ("x", "not a plain path"),
    ("", "not a plain path"),
    (".hidden.yaml", "not a plain path"),
    ("naïve.yaml", "not a plain path"),
    ("x.yaml\n", "not a plain path"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED_PATHS)
def test_an_unsafe_path_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        named_path(text, named_in="blueprints/triage.yaml")
    assert words in caught.value.reason
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("./answer.yaml", "blueprints/answer.yaml"),
        ("answer.yaml", "blueprints/answer.yaml"),
        ("../prompts/sort.md", "prompts/sort.md"),
        ("parts/a-b_c.v2.yml", "blueprints/parts/a-b_c.v2.yml"),
    ],
)
def test_a_path_is_relative_to_the_file_that_names_it(text: str, path: str) -> None:
    assert named_path(text, named_in="blueprints/triage.yaml") == path


@given(st.text())
def test_no_text_names_a_path_outside_the_project(text: str) -> None:
    try:
        path = named_path(text, named_in="blueprints/triage.yaml")
    except SourceRefused:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


def refusal(root: Path, path: str) -> SourceRefused:
    with pytest.raises(SourceRefused) as caught:
        FileSource(root).read(path)
    return caught.value


def test_a_file_of_the_project_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"x")
    assert FileSource(tmp_path).read("a.yaml") == b"x"


def test_a_link_inside_the_project_is_followed_and_one_out_of_it_is_not(tmp_path: Path) -> None:
    root = tmp_path / "proj"
    root.mkdir()
    (tmp_path / "secret.yaml").write_text("secret")
    (root / "a.yaml").write_text("a")
    (root / "inside.yaml").symlink_to("a.yaml")
    (root / "outside.yaml").symlink_to("../secret.yaml")
    assert FileSource(root).read("inside.yaml") == b"a"
    assert "symbolic link" in refusal(root, "outside.yaml").reason


def test_a_sibling_with_the_same_prefix_is_outside(tmp_path: Path) -> None:
    root = tmp_path / "proj"
    root.mkdir()
    (tmp_path / "proj2").mkdir()
    (tmp_path / "proj2" / "x.yaml").write_text("x")
    (root / "sub").symlink_to(tmp_path / "proj2")
    assert "out of the project" in refusal(root, "../proj2/x.yaml").reason
    assert "symbolic link" in refusal(root, "sub/x.yaml").reason


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert "pipe" in refusal(tmp_path, "a.yaml").reason


def test_a_directory_a_cycle_of_links_and_a_missing_file_have_different_reasons(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").mkdir()
    (tmp_path / "l.yaml").symlink_to("m.yaml")
    (tmp_path / "m.yaml").symlink_to("l.yaml")
    assert "directory" in refusal(tmp_path, "d.yaml").reason
    assert "cycle" in refusal(tmp_path, "l.yaml").reason
    missing = refusal(tmp_path, "nope.yaml")
    assert missing.missing
    assert "does not exist" in missing.reason
    assert missing.hint == "check the spelling and the folder"
    (tmp_path / "in").mkdir()
    (tmp_path / "in/answer.yaml").write_text("a")
    assert refusal(tmp_path, "in/anwser.yaml").hint == "did you mean `answer.yaml`?"


def test_a_difference_in_case_is_reported(tmp_path: Path) -> None:
    (tmp_path / "Answer.yaml").write_text("a")
    assert "'Answer.yaml'" in refusal(tmp_path, "answer.yaml").reason


@pytest.mark.parametrize(("name", "limit"), [("a.yaml", 256 * 1024), ("a.md", 1024 * 1024)])
def test_a_file_over_its_limit_is_refused_and_one_at_the_limit_is_read(
    tmp_path: Path, name: str, limit: int
) -> None:
    (tmp_path / name).write_bytes(b"x" * limit)
    assert len(FileSource(tmp_path).read(name)) == limit
    (tmp_path / name).write_bytes(b"x" * (limit + 1))
    assert "larger than" in refusal(tmp_path, name).reason


def test_a_pinned_source_has_only_the_pinned_files() -> None:
    source = PinnedSource({"a.yaml": b"a"})
    assert source.read("a.yaml") == b"a"
    with pytest.raises(SourceRefused) as caught:
        source.read("b.yaml")
    assert "pinned at the start" in caught.value.reason
