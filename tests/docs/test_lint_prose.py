"""The prose lint checks docstrings, comments, messages, test names and pages, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lint() -> Any:
    """Return docs/lint_prose.py as a module."""
    spec = importlib.util.spec_from_file_location("lint_prose", ROOT / "docs/lint_prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lint_prose"] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


def found(lint: Any, text: str) -> list[str]:
    """Return the names of the rules that a text breaks."""
    return [each.rule.name for each in lint.findings(iter([lint.Text("README.md", 1, text)]))]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Recovery: whoever is alive notices it", "person"),
        ("the run waits, and Nobody answers", "person"),
        ("3 runs gone on with", "go-on"),
        ("the lease is given back", "give-back"),
        ("a port handed in by the workspace", "hand"),
        ("`foo` is no `module:callable`", "is-no"),
        ("the hook is told of each event", "told"),
        ("the reason is said once", "said"),
        ("the store is asked for the run", "asked"),
        ("what was finished stays finished", "what-was"),
        ("what stands in the file", "what-was"),
        ("it waits for ever", "for-ever"),
        ("what --fix could mend", "mend"),
        ("a silent server is taken for gone", "taken-for"),
        ("runs that it looks after", "attend"),
        ("how the step came out", "came-out"),
        ("findings in our words", "our-words"),
        ("nothing is left that waits", "nothing-left"),
        ("how dear an answer may become", "dear"),
    ],
)
def test_a_phrase_is_found(text: str, rule: str, lint: Any) -> None:
    assert rule in found(lint, text)


@pytest.mark.parametrize(
    "text",
    [
        "Finds expired deadlines and orphaned runs, and resumes them.",
        "there is no such run",
        "the run is no longer claimed",
        "resumed 3 runs; no pending runs left",
        "it goes on to the next step",
        "the question is asked by a `hitl` step",
        "say what is wrong, and what to do about it",
        "the field `told` of `nobody`",
        "a handle, a handler, a recommendation",
    ],
)
def test_plain_english_passes(text: str, lint: Any) -> None:
    assert found(lint, text) == []


def test_docstrings_comments_messages_and_names_of_tests_are_read(tmp_path: Path, lint: Any) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        '"""Told by a module."""\n'
        "# told by a comment\n"
        "def test_that_is_told() -> None:\n"
        '    """Told by a function."""\n'
        '    told = f"told by a message {1}"\n'
        '    told = "told"\n',
        "utf-8",
    )
    assert lines(lint, source, "src/module.py") == [1, 2, 3, 4, 5]
    assert lines(lint, source, "tests/module.py") == [1, 2, 3, 4], "texts of tests are data"


def test_code_in_pages_is_not_prose(tmp_path: Path, lint: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("It told `told`.\n```sh\ntold\n```\nNot `told`.\n", "utf-8")
    assert lines(lint, page, "docs/page.md") == [1]


def lines(lint: Any, path: Path, name: str) -> list[int]:
    """Return the lines with findings."""
    return sorted({each.line for each in lint.findings(lint.texts_of(path, name))})


def test_findings_are_printed_with_their_place_and_advice(
    capsys: pytest.CaptureFixture[str], lint: Any
) -> None:
    assert lint.main([str(ROOT / "docs/lint_prose.py")]) == 0, (
        "the file that quotes the phrases is an exception"
    )
    assert capsys.readouterr().out == "    0 findings\n"
    [finding] = lint.findings(iter([lint.Text("README.md", 7, "a port handed in")]))
    assert str(finding) == "README.md:7: [hand] 'a port handed in': write pass"
