"""Every command in a message is built by `domain/commands.py` or is a constant, and can be pasted into a shell."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import typer

from architecture.source import ROOT, modules
from flujo.cli.app import app
from flujo.cli.root_help import COMMANDS
from printed_commands import PROGRAMS, commands, danger

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [name for section in COMMANDS.values() for name in section]
BARE = re.compile(rf"(?<![`\w/.-])(?:flujo (?:{'|'.join(NAMES)})\b|pip install )")
NAMES_OF_REPORTS = {"flujo validate"}
HOLE, BUILT = "\ue000", "\ue001"
"""Placeholders in a text: for an inserted value, and for a call of `command`."""

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each text of a module that may be printed, with its line; docstrings are none."""
    nodes = list(ast.walk(tree))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    documents = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    without_text = inside | documents
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in without_text:
            yield node.lineno, str(node.value)


def _part(part: ast.expr) -> str:
    match part:
        case ast.Constant(value=text):
            return str(text)
        case ast.FormattedValue(value=ast.Call(func=ast.Name(id="command"))):
            return BUILT
        case _:
            return HOLE


@cache
def messages() -> list[tuple[str, str]]:
    """Return each text of the source that may be printed, with its place."""
    return [(f"{module}:{line}", text) for module, tree in modules().items() for line, text in texts(tree)]


def test_a_value_is_inserted_into_a_command_by_the_function_that_quotes_it() -> None:
    assert [
        (place, found) for place, text in messages() for found in commands(text) if HOLE in found
    ] == [], 'use `{command("flujo", …)}`'


def test_a_command_in_a_message_stands_in_backticks() -> None:
    bare = [(place, text) for place, text in messages() if BARE.search(text)]
    assert [(place, text) for place, text in bare if text not in NAMES_OF_REPORTS] == []


def test_a_constant_command_can_be_pasted() -> None:
    found = [(place, each, danger(each)) for place, text in messages() for each in commands(text)]
    assert found
    assert [each for each in found if each[2]] == []


def test_a_constant_command_exists_with_its_options() -> None:
    wrong = [
        (place, each, missing)
        for place, text in messages()
        for each in commands(text)
        if each.startswith("flujo ") and (missing := _missing(shlex.split(each)[1:]))
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_of_a_page_can_be_pasted(page: Any) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = [(each, danger(each)) for each in commands(text) if each.startswith(PROGRAMS)]
    assert [each for each in found if each[1]] == []


def _missing(words: list[str]) -> str:
    """Return the first word that the command line does not know, or nothing."""
    at: Any = typer.main.get_command(app)
    options = _options(at)
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in options:
            return word
        if hasattr(at, "get_command") and not word.startswith("-"):
            if (deeper := at.get_command(None, word)) is None:
                return "" if _takes_arguments(at) else word
            at, options = deeper, options | _options(deeper)
    return ""


def _options(command: Any) -> set[str]:
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}


def _takes_arguments(command: Any) -> bool:
    return any(each.param_type_name == "argument" for each in command.params)
