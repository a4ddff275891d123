"""Only a few files name a kind of step: its class, its model, its engine file, and its own rules."""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

import pytest

from architecture.source import modules
from flujo.blueprint.language import models
from flujo.domain.steps import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

CEILING = 8
OF_THE_ATOM = 23
"""For `step` itself, because effects, idempotency, processors and attempts belong to it only."""


@pytest.mark.parametrize("kind", KINDS)
def test_few_files_name_the_classes_of_a_kind(kind: str) -> None:
    classes = {KINDS[kind].__name__, models.KINDS[kind].__name__}
    naming = sorted({_room(module) for module, names in named().items() if classes & names})
    ceiling = OF_THE_ATOM if kind == "step" else CEILING
    assert len(naming) <= ceiling, "declare it on the class, and walk: " + ", ".join(naming)


def _room(module: str) -> str:
    """Return the module, and one name for the checks of the tree, which are divided by subject."""
    return "domain/checks.py" if module.startswith("domain/tree_checks/") else module


@cache
def named() -> dict[str, set[str]]:
    """Return the names that each module uses."""
    return {module: set(_names(tree)) for module, tree in modules().items()}


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name) | ast.alias(name=name)
            ):
                yield name
            case _:
                pass
