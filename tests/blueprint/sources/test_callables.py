"""Callables that a blueprint names: which are imported, which are refused, and why."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from flujo.blueprint.sources.callables import check_callable_name, load_callable
from flujo.exceptions import CallableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED_CALLABLES = [
    ("os:system", "may not call"),
    ("os.path:join", "may not call"),
    ("subprocess:run", "may not call"),
    ("builtins:eval", "may not call"),
    ("skills.crm:__init__", "underscores"),
    ("skills.__crm:x", "underscores"),
    ("skills:a:b", "not of the form"),
    ("skills:f.__globals__", "not of the form"),
    (".skills:f", "not of the form"),
    ("skills", "not of the form"),
    ("skills:", "not of the form"),
    ("sk\u0131lls:f", "not of the form"),
    ("lambda x: x", "not of the form"),
    ("skills:f\n", "not of the form"),
    ("a" * 300 + ":b", "not of the form"),
    ("other.crm:f", "not in this project's `allow_callables`"),
    ("skills:f", "not in this project's `allow_callables`"),
    ("skillsets.crm:f", "not in this project's `allow_callables`"),
]


@pytest.mark.parametrize(("target", "words"), REFUSED_CALLABLES)
def test_a_callable_that_the_project_does_not_allow_is_refused_by_its_name(target: str, words: str) -> None:
    problem = check_callable_name(target, ["skills.*", "os", "os.*", "builtins"])
    assert problem is not None
    assert words in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("pattern", "target", "allowed"),
    [
        ("skills.crm", "skills.crm:lookup", True),
        ("skills.crm", "skills.crm.deep:lookup", False),
        ("skills.*", "skills.crm.deep:lookup", True),
        ("skills.crm:lookup", "skills.crm:lookup", True),
        ("skills.crm:lookup", "skills.crm:delete", False),
        ("*", "skills.crm:lookup", False),
    ],
)
def test_a_pattern_allows_a_module_or_the_modules_below_it_or_one_callable(
    pattern: str, target: str, allowed: bool
) -> None:
    assert (check_callable_name(target, [pattern]) is None) is allowed


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


def test_an_allowed_function_class_or_decorated_function_is_loaded(skills: Path) -> None:
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
        ("import os as thing", "not callable"),
        ("thing = 7", "not callable"),
        ("other = 7", "does not exist"),
        ("import nowhere_to_be_found", "needs `nowhere_to_be_found`"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_re_export_or_a_module_that_fails_is_refused(skills: Path, line: str, words: str) -> None:
    write(skills / "bad.py", line)
    with pytest.raises(CallableError) as caught:
        load_callable("skl.bad:thing", ["skl.*"])
    assert words in caught.value.message
    assert caught.value.hint
    assert caught.value.code == "FLJ250"


def test_an_installed_function_is_allowed_by_its_exact_module_only(skills: Path) -> None:
    write(skills / "again.py", "from json.decoder import JSONDecoder as thing")
    assert callable(load_callable("skl.again:thing", ["skl.*", "json.decoder"]))
    with pytest.raises(CallableError) as caught:
        load_callable("skl.again:thing", ["skl.*", "json.*"])
    assert "exactly" in (caught.value.hint or "")


def test_a_missing_module_is_named(skills: Path) -> None:
    with pytest.raises(CallableError) as caught:
        load_callable("skl.missing:f", ["skl.*"])
    assert "no module `skl.missing`" in caught.value.message
    assert "skl/missing.py" in (caught.value.hint or "")


def test_nothing_is_imported_before_the_name_is_allowed(skills: Path, tmp_path: Path) -> None:
    write(skills / "effect.py", f"open({str(tmp_path / 'marker')!r}, 'w')\ndef f(): ...")
    with pytest.raises(CallableError):
        load_callable("skl.effect:f", ["other.*"])
    assert not (tmp_path / "marker").exists()
