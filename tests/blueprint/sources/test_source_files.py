"""Files and callables that a blueprint names: what is read, what is refused, and why."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.sources.signatures import Signature, read_module
from flujo.blueprint.sources.source_files import (
    FileSource,
    PinnedSource,
    SourceRefused,
    check_callable_name,
    load_callable,
    named_path,
)
from flujo.exceptions import CallableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED_PATHS = [
    ("/etc/passwd.yaml", "absolute"),
    ("C:/x.yaml", "absolute"),
    ("../../x.yaml", "out of the project"),
    ("./../../x.yaml", "no plain path"),
    ("a/../../../x.yaml", "out of the project"),
    ("~/x.yaml", "home"),
    ("x%2e.yaml", "%"),
    ("a\\b.yaml", "backslash"),
    ("\\\\host\\share\\x.yaml", "backslash"),
    ("a\x00.yaml", "NUL"),
    ("file:///x.yaml", "address"),
    ("https://example.org/x.yaml", "address"),
    ("x.py", "no plain path"),
    ("x", "no plain path"),
    ("", "no plain path"),
    (".hidden.yaml", "no plain path"),
    ("naïve.yaml", "no plain path"),
    ("x.yaml\n", "no plain path"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED_PATHS)
def test_a_path_that_could_mislead_is_refused_with_its_reason(text: str, words: str) -> None:
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


def test_a_sibling_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
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


def test_a_directory_a_circle_of_links_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").mkdir()
    (tmp_path / "l.yaml").symlink_to("m.yaml")
    (tmp_path / "m.yaml").symlink_to("l.yaml")
    assert "directory" in refusal(tmp_path, "d.yaml").reason
    assert "circle" in refusal(tmp_path, "l.yaml").reason
    missing = refusal(tmp_path, "nope.yaml")
    assert missing.missing
    assert "no such file" in missing.reason


def test_the_wrong_case_is_named_as_such(tmp_path: Path) -> None:
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


def test_a_pinned_source_has_what_was_pinned_and_no_more() -> None:
    source = PinnedSource({"a.yaml": b"a"})
    assert source.read("a.yaml") == b"a"
    with pytest.raises(SourceRefused) as caught:
        source.read("b.yaml")
    assert "accepted with" in caught.value.reason


REFUSED_CALLABLES = [
    ("os:system", "never call"),
    ("os.path:join", "never call"),
    ("subprocess:run", "never call"),
    ("builtins:eval", "never call"),
    ("skills.crm:__init__", "underscores"),
    ("skills.__crm:x", "underscores"),
    ("skills:a:b", "no `module:callable`"),
    ("skills:f.__globals__", "no `module:callable`"),
    (".skills:f", "no `module:callable`"),
    ("skills", "no `module:callable`"),
    ("skills:", "no `module:callable`"),
    ("sk\u0131lls:f", "no `module:callable`"),
    ("lambda x: x", "no `module:callable`"),
    ("skills:f\n", "no `module:callable`"),
    ("a" * 300 + ":b", "no `module:callable`"),
    ("other.crm:f", "not among"),
    ("skills:f", "not among"),
    ("skillsets.crm:f", "not among"),
]


@pytest.mark.parametrize(("target", "words"), REFUSED_CALLABLES)
def test_a_callable_that_is_not_admitted_is_refused_by_its_name(target: str, words: str) -> None:
    problem = check_callable_name(target, ["skills.*", "os", "os.*", "builtins"])
    assert problem is not None
    assert words in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("pattern", "target", "admitted"),
    [
        ("skills.crm", "skills.crm:lookup", True),
        ("skills.crm", "skills.crm.deep:lookup", False),
        ("skills.*", "skills.crm.deep:lookup", True),
        ("skills.crm:lookup", "skills.crm:lookup", True),
        ("skills.crm:lookup", "skills.crm:delete", False),
        ("*", "skills.crm:lookup", False),
    ],
)
def test_a_pattern_admits_a_module_what_is_below_it_or_one_callable(
    pattern: str, target: str, admitted: bool
) -> None:
    assert (check_callable_name(target, [pattern]) is None) is admitted


@pytest.fixture
def skills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    package = tmp_path / "skl"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name == "skl" or name.startswith("skl.")]:
        del sys.modules[name]


def write(path: Path, source: str) -> None:
    path.write_text(textwrap.dedent(source))


def test_an_admitted_function_class_and_decorated_function_are_loaded(skills: Path) -> None:
    write(
        skills / "good.py",
        """
        import functools

        def plain(data): return data

        async def slow(data): return data

        class Tool:
            def __call__(self, data): return data

        ready = Tool()

        @functools.lru_cache
        def cached(data): return data

        half = functools.partial(plain, 1)
        """,
    )
    for name in ("plain", "slow", "Tool", "ready", "cached", "half"):
        assert callable(load_callable(f"skl.good:{name}", ["skl.*"]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("from os import system as thing", "posix"),
        ("from subprocess import run as thing", "subprocess"),
        ("import functools, os; thing = functools.partial(os.system, 'true')", "posix"),
        ("from json import loads as thing", "json"),
        ("import os as thing", "nothing that can be called"),
        ("thing = 7", "nothing that can be called"),
        ("other = 7", "does not exist"),
        ("import nowhere_to_be_found", "needs `nowhere_to_be_found`"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_what_a_module_passes_on_or_breaks_with_is_refused(skills: Path, line: str, words: str) -> None:
    write(skills / "bad.py", line)
    with pytest.raises(CallableError) as caught:
        load_callable("skl.bad:thing", ["skl.*"])
    assert words in caught.value.message
    assert caught.value.hint
    assert caught.value.code == "FLJ250"


def test_an_installed_function_is_admitted_by_its_exact_module_only(skills: Path) -> None:
    write(skills / "again.py", "from json.decoder import JSONDecoder as thing")
    assert callable(load_callable("skl.again:thing", ["skl.*", "json.decoder"]))
    with pytest.raises(CallableError) as caught:
        load_callable("skl.again:thing", ["skl.*", "json.*"])
    assert "exactly" in (caught.value.hint or "")


def test_a_module_that_is_not_there_is_named(skills: Path) -> None:
    with pytest.raises(CallableError) as caught:
        load_callable("skl.missing:f", ["skl.*"])
    assert "no module `skl.missing`" in caught.value.message
    assert "skl/missing.py" in (caught.value.hint or "")


def test_nothing_is_imported_before_the_name_is_admitted(skills: Path, tmp_path: Path) -> None:
    write(skills / "effect.py", f"open({str(tmp_path / 'marker')!r}, 'w')\ndef f(): ...")
    with pytest.raises(CallableError):
        load_callable("skl.effect:f", ["other.*"])
    assert not (tmp_path / "marker").exists()


def test_a_signature_is_read_from_the_text_of_the_module() -> None:
    source = PinnedSource(
        {
            "skills/crm.py": b"import os\nX: int = 1\n\n"
            b"def f(a, /, b, c=1, *, d, e=2): ...\ndef g(**more): ...\n@os.f\ndef h(a): ...\n",
            "pkg/__init__.py": b"from x import *\n",
            "broken.py": b"def (",
            "may.py": b"'Words.'\nx = y = 1\nif x:\n    def f(): ...\nclass C: ...\n",
        }
    )
    module = read_module("skills.crm", source)
    assert module is not None
    assert module.path == "skills/crm.py"
    assert module.complete
    assert module.names["f"] == Signature(("b", "c", "d", "e"), ("a", "b", "d"), False)
    assert module.names["g"] == Signature((), (), True)
    assert module.names["h"] is None
    assert set(module.names) == {"f", "g", "h", "os", "X"}
    package = read_module("pkg", source)
    assert package is not None
    assert not package.complete
    may = read_module("may", source)
    assert may is not None
    assert (set(may.names), may.complete) == ({"x", "y", "C"}, False)
    assert read_module("broken", source) is None
    assert read_module("json", source) is None
