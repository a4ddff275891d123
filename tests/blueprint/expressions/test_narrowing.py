"""What a condition says about values, and expressions that read them afterwards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.expressions.narrowing import Fact, by_flag, facts_of
from flujo.blueprint.expressions.type_checker import check_expression
from flujo.blueprint.schemas.algebra import BOOLEAN, STRING, closed
from flujo.blueprint.sources.source_files import FileSource, PinnedSource

ROOT = Path(__file__).parents[3]
MAYBE = {"anyOf": [STRING, {"type": "null"}]}
RESULT = by_flag(
    closed({"ok": BOOLEAN, "output": MAYBE, "error": MAYBE}), "ok", {"output": STRING}, {"error": STRING}
)
CODES = ("FLJ148", "FLJ155", "FLJ156", "FLJ157", "FLJ206", "FLJ207")
SCOPE = closed({"results": {"type": "array", "items": RESULT}})


@pytest.mark.parametrize(
    ("condition", "known"),
    [
        ("a.b != null", ["a.b"]),
        ("{{ null != a.b }}", ["a.b"]),
        ("has(a.b) && a.c == 1", ["a.b", "a.c"]),
        ("a.n > 1", ["a.n"]),
        ('"b" in a', ["a.b"]),
        ("!(a.b == null || !a.ok)", ["a.b", "a.ok"]),
        ("a.b == null", []),
        ("a.b != null || a.c != null", []),
        ("a.b == null ? true : false", []),
        ("this is no expression", []),
    ],
)
def test_a_condition_says_what_is_there(condition: str, known: list[str]) -> None:
    assert [".".join(fact.chain) for fact in facts_of(condition)] == known


def test_a_flag_is_true_or_false() -> None:
    assert facts_of("a.ok && !a.late") == (Fact(("a", "ok"), True), Fact(("a", "late"), False))
    assert facts_of("a.ok || a.late", holds=False) == (Fact(("a", "ok"), False), Fact(("a", "late"), False))


@pytest.mark.parametrize(
    "expression",
    [
        "results.filter(r, r.output != null).map(x, x.output.trim())",
        "results.filter(r, has(r.output)).map(x, x.output.trim())",
        "results.filter(r, r.ok).map(r, r.output).join(', ')",
        "results.filter(r, r.ok == true).map(x, x.output).join(', ')",
        "results.filter(r, !r.ok).map(x, x.error.trim())",
        "results.filter(r, r.output != null).map(x, x.output)[0].trim()",
    ],
)
def test_filtered_items_are_not_null(expression: str) -> None:
    assert [each.message for each in check_expression(expression, SCOPE).problems] == []


@pytest.mark.parametrize(
    "expression",
    [
        "results.filter(r, r.ok || r.error == null).map(x, x.output.trim())",
        "results.filter(r, !r.ok).map(x, x.output.trim())",
        "results.filter(r, r.error != null).map(x, x.output.trim())",
    ],
)
def test_another_condition_proves_nothing(expression: str) -> None:
    (problem,) = check_expression(expression, SCOPE).problems
    assert problem.message == "`x.output` may be null"


def test_the_blueprints_of_the_project_and_of_the_pages_have_no_warning() -> None:
    texts = {path: (ROOT / path).read_text("utf-8") for path in _own()}
    for page in ROOT.glob("docs/**/*.md"):
        for block in re.findall(
            r"^```yaml title=[^\n]*\n(version:.*?)^```", page.read_text("utf-8"), re.M | re.S
        ):
            texts[f"blueprints/{page.stem}_{len(texts)}.yaml"] = block
    assert len(texts) > 60
    unfit = []
    for path, text in texts.items():
        source = FileSource(ROOT) if path in _own() else PinnedSource({path: text.encode()})
        found = compile_blueprint(path, source, allow_callables=None, strict=True).diagnostics
        unfit += [f"{one}: {text}" for one in found if one.code in CODES]
    assert unfit == []


def _own() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in (ROOT / "blueprints").glob("*.yaml")]
