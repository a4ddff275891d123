"""Any bytes, mutated blueprint, expression or model answer leads to a finding or an error, never a crash.

`FLUJO_FUZZ=100` tries a hundred times as many (`make soak`).
"""

from __future__ import annotations

import copy
import json
import operator
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import flujo
from bad.corpus import CASES
from bad.meaning_cases import CASES as MEANING
from bad.meaning_cases import ENTRY, SKILLS
from flujo.agents.structured_output import OutputReader
from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.expressions.evaluators import compile_expression, compile_text
from flujo.blueprint.expressions.type_checker import check_expression, check_text
from flujo.blueprint.language.validation import check
from flujo.blueprint.reading.reader import read
from flujo.blueprint.sources.source_files import SourceRefused
from flujo.exceptions import ExpressionFailed, ExpressionSyntax, OutputRejected
from good.corpus import CASES as GOOD_FILES
from good.flow_cases import GOOD_FLOW
from good.meaning_cases import GOOD
from properties.sample import tries

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOW = ["skills.*"]


@dataclass(frozen=True)
class Files:
    """A project in memory."""

    held: dict[str, bytes]

    def read(self, path: str) -> bytes:
        if path not in self.held:
            raise SourceRefused("there is no such file", "look at the spelling", missing=True)
        return self.held[path]


def compiled(data: bytes) -> Compiled:
    return compile_blueprint(
        ENTRY, Files({ENTRY: data, "skills/crm.py": SKILLS.encode()}), allow_callables=ALLOW
    )


@cache
def seeds() -> list[bytes]:
    texts = [*GOOD_FILES.values(), *GOOD.values(), *GOOD_FLOW.values()]
    bad = [case.data for case in CASES if len(case.data) < 4_000] + [
        case.all_files()[ENTRY].encode() for case in MEANING
    ]
    return [text if isinstance(text, bytes) else text.encode() for text in texts if len(text) < 4_000] + bad


WORDS = [b"{{", b"}}", b"{", b"[", b"]", b": ", b"- ", b"\n", b"\n  ", b"&a ", b"*a", b"<<: ", b"!!str ", b"'", b'"', b"|\n", b">-\n",
         b"# flujo: ignore[", b"\x00", b"\xff", b"\xef\xbb\xbf", "\u202e".encode(), "\u2028".encode(), b"---\n", b"...\n", b"%YAML 1.2\n", b"\t",
         b"null", b"0x1F", b"1e999", b"9" * 40, b"? ", b"steps:", b"kind: loop", b"extends: a", b"include: [./x.yaml]", b"\\ud800"]  # fmt: skip


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    """Return a seed with pieces removed, doubled, or replaced by text that is hard to parse."""
    data = draw(st.sampled_from(seeds()))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 24)))
        put = draw(st.sampled_from([b"", data[start:end] * 2, *WORDS]) | st.binary(max_size=6))
        data = data[:start] + put + data[end:]
    return data


def told(found: Compiled) -> list[str]:
    return [f"{one} {one.hint} {one.severity}" for one in found.diagnostics]


@tries(350)
@given(mutated_bytes() | st.binary(max_size=200))
def test_any_bytes_give_a_pipeline_or_the_same_located_findings_each_time(data: bytes) -> None:
    found = compiled(data)
    assert (found.pipeline is None) is any(one.is_error for one in found.diagnostics)
    for one in found.diagnostics:
        lines = len(found.sources.get(one.span.file, "").split("\n"))
        assert 1 <= one.span.line <= max(lines, 1)
        assert one.span.column >= 1
        assert one.message
    assert told(compiled(data)) == told(found)


@cache
def documents() -> list[Any]:
    texts = [*GOOD.values(), *GOOD_FLOW.values()]
    return [read(text.encode(), ENTRY).data for text in texts]


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "a",
        "{{ input }}",
        "steps.a.output",
        "a:b",
        [],
        {},
        [{}],
        {"a": []},
        "1h",
        "loop",
        2**60,
    ]
)


@st.composite
def mutated_documents(draw: st.DrawFn) -> Any:
    """Return the data of a good blueprint with one to three values removed, swapped, renamed or nested deeper."""
    data = copy.deepcopy(draw(st.sampled_from(documents())))
    for _ in range(draw(st.integers(1, 3))):
        holder = data
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], dict | list) and holder[key] and draw(st.booleans()):
                holder = holder[key]
                continue
            _change(draw, holder, key)
            break
    return data


def _change(draw: st.DrawFn, holder: Any, key: Any) -> None:
    match draw(st.sampled_from(["remove", "swap", "deepen", "rename"])):
        case "remove":
            del holder[key]
        case "swap":
            holder[key] = copy.deepcopy(draw(VALUES))  # a value that is changed further must not be shared
        case "deepen":
            holder[key] = draw(st.sampled_from([{"a": holder[key]}, [holder[key]]]))
        case _ if not isinstance(holder, dict):
            holder.append(copy.deepcopy(holder[key]))
        case _:
            holder[draw(st.sampled_from(["nmae", "kind", "when", "steps", "x", "until", "agent"]))] = (
                holder.pop(key)
            )


@cache
def editors_schema() -> Draft202012Validator:
    return Draft202012Validator(
        json.loads((Path(flujo.__file__).parent / "blueprint/blueprint.schema.json").read_text("utf-8"))
    )


@tries(200)
@given(mutated_documents())
def test_a_blueprint_accepted_by_the_validator_is_accepted_by_the_editor_schema(data: Any) -> None:
    document = read(yaml.safe_dump(data, allow_unicode=True, sort_keys=False).encode(), ENTRY)
    blueprint, _ = check(document)
    if blueprint is not None and not any(one.is_error for one in document.diagnostics):
        assert [error.message for error in editors_schema().iter_errors(document.data)] == []


@tries(60)
@given(st.sampled_from(documents()))
def test_comments_and_line_endings_do_not_change_the_blueprint(data: Any) -> None:
    plain = yaml.safe_dump(data, sort_keys=False)
    with_comments = "# a comment\n" + plain.replace("\nsteps:", "\n\n# more\nsteps:").replace("\n", "\r\n")
    first, second = check(read(plain.encode(), ENTRY)), check(read(with_comments.encode(), ENTRY))
    assert first[0] is not None
    assert first[0] == second[0]


class Core(yaml.CSafeLoader):  # type: ignore[misc]
    """Another reader of YAML 1.2's core schema: PyYAML's own constructor, with the resolvers of 1.2.

    Except `012`, which Flujo reads as a string, because YAML readers disagree about its number.
    """


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


def number(loader: Core, node: Any) -> Any:
    return float(loader.construct_scalar(node))


Core.add_constructor("tag:yaml.org,2002:float", number)
Core.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


@tries(250)
@given(mutated_bytes())
def test_a_blueprint_without_findings_is_read_as_yaml_1_2(data: bytes) -> None:
    document = read(data, ENTRY)
    if not document.diagnostics:
        assert document.data == yaml.load(data, Loader=Core)


# Expressions --------------------------------------------------------------------------------------------

NAMES = {"a": 3, "b": 0, "c": -7, "d": 2**53, "yes": True, "no": False}
WHOLE = 2**63
Meaning = tuple[str, Any]


class Fails(Exception):
    """CEL has no value for this expression either."""


def _whole(value: int) -> int:
    if not -WHOLE <= value < WHOLE:
        raise Fails
    return value


def _divided(one: int, two: int) -> int:
    if two == 0:
        raise Fails
    return _whole(abs(one) // abs(two) * (1 if (one < 0) == (two < 0) else -1))


def _rest(one: int, two: int) -> int:
    return one - _divided(one, two) * two


NUMBERS: dict[str, Callable[[int, int], int]] = {
    "+": lambda one, two: _whole(one + two), "-": lambda one, two: _whole(one - two),
    "*": lambda one, two: _whole(one * two), "/": _divided, "%": _rest,
}  # fmt: skip
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
numbers = st.sampled_from(["a", "b", "c", "d"]) | st.integers(0, 99).map(str)
flags = st.sampled_from(["yes", "no", "true", "false"])


def reference(tree: Any) -> Any:
    """Return the value of a tree of operators; `Fails` where CEL has no value."""
    match tree:
        case str():
            return (
                NAMES.get(tree, {"true": True, "false": False}.get(tree)) if not tree.isdigit() else int(tree)
            )
        case ("!", one):
            return not reference(one)
        case ("?", test, one, two):
            return reference(one) if reference(test) else reference(two)
        case ("&&" | "||" as word, one, two):
            return _either(word, one, two)
        case (word, one, two):
            return (NUMBERS | ORDERS)[word](reference(one), reference(two))
        case _:
            raise AssertionError(tree)


def _either(word: str, one: Any, two: Any) -> bool:
    """Return the value of CEL's `&&` and `||`: a deciding side hides a failure of the other."""
    decides, sides = word == "||", []
    for side in (one, two):
        try:
            sides.append(reference(side))
        except Fails:
            sides.append(None)
    if decides in sides:
        return decides
    if None in sides:
        raise Fails
    return not decides


def written(tree: Any) -> str:
    match tree:
        case str():
            return tree
        case ("!", one):
            return f"!({written(one)})"
        case ("?", test, one, two):
            return f"(({written(test)}) ? ({written(one)}) : ({written(two)}))"
        case (word, one, two):
            return f"({written(one)} {word} {written(two)})"
        case _:
            raise AssertionError(tree)


arithmetic = st.recursive(
    numbers, lambda inner: st.tuples(st.sampled_from(list(NUMBERS)), inner, inner), max_leaves=6
)
logic = st.recursive(
    flags | st.tuples(st.sampled_from(list(ORDERS)), arithmetic, arithmetic),
    lambda inner: st.tuples(st.sampled_from(["&&", "||"]), inner, inner) | st.tuples(st.just("!"), inner)
    | st.tuples(st.just("?"), inner, inner, inner),
    max_leaves=5,
)  # fmt: skip


@tries(400)
@given(logic | arithmetic)
def test_an_expression_evaluates_as_in_the_reference(tree: Any) -> None:
    try:
        expected: Any = reference(tree)
    except Fails:
        expected = Fails
    try:
        found: Any = compile_expression(written(tree))(lambda chain: NAMES[chain[0]])
    except ExpressionFailed:
        found = Fails
    assert found == expected


PIECES = st.sampled_from(["{{", "}}", " ", "a", "input", ".", "x", "(", ")", "[", "]", "'", '"', "\\", "map", ",", "+", "==", "?", ":", "1", "0", "/",
                          "{%", "%}", "//", "\n", "has", "__class__", "loop.index", "é", "\u202e", "!", "&&", "in", "null", "|"])  # fmt: skip
SCOPE = {"type": "object", "properties": {"input": {"type": "object"}, "a": {"type": "string"}, "x": {}}}


@tries(400)
@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=30))
def test_any_template_text_is_rendered_or_refused(source: str) -> None:
    for compile_, check_ in ((compile_text, check_text), (compile_expression, check_expression)):
        check_(source, SCOPE)
        try:
            value = compile_(source)(lambda _: {"x": "text"})
        except (ExpressionSyntax, ExpressionFailed):
            continue
        assert len(json.dumps(value)) < 65_536


# A model's answers --------------------------------------------------------------------------------------

ANSWER = {
    "type": "object",
    "required": ["label"],
    "properties": {
        "label": {"enum": ["bug", "refund"]},
        "score": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
answers = st.fixed_dictionaries(
    {"label": st.sampled_from(["bug", "refund"])},
    optional={
        "score": st.floats(allow_nan=False, allow_infinity=False),
        "tags": st.lists(st.text(max_size=5), max_size=3),
    },
)
AROUND = st.sampled_from(
    [
        "",
        "```json\n",
        "```",
        "Here it is: ",
        "\n\n",
        "{",
        "}",
        "[",
        ",",
        "'",
        '"',
        "\\",
        "\ud800",
        "\x00",
        "NaN",
        "// a comment\n",
        "null",
    ]
)


@tries(250)
@given(answers, AROUND, AROUND, st.integers(0, 60), st.integers(0, 2))
def test_a_mutated_answer_fits_the_schema_or_fails_and_reads_the_same_again(
    answer: dict[str, Any], before: str, after: str, cut: int, level: int
) -> None:
    reader = OutputReader(ANSWER, level=level)
    whole = json.dumps(answer)
    text = before + whole[: max(0, len(whole) - cut)] + after
    try:
        value = reader.read(text).value
    except OutputRejected:
        return
    assert Draft202012Validator(ANSWER).is_valid(value)
    assert reader.read(json.dumps(value)).value == value
    assert reader.read(whole).value == answer
