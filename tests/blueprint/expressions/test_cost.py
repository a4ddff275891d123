"""An expression whose value could fill the memory is refused before CEL evaluates it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.expressions import cel, cost
from flujo.blueprint.expressions.cel_lexicon import FUNCTIONS
from flujo.blueprint.expressions.evaluators import compile_expression
from flujo.exceptions import ExpressionFailed

TEXT = "a" * 50_000
DATA = {"t": TEXT, "n": list(range(1_000)), "items": [{"title": f"t{i}", "x": i} for i in range(500)]}


def evaluated(source: str, data: Any) -> Any:
    """Return the value of an expression that reads `input`."""

    def lookup(chain: tuple[str, ...]) -> Any:
        found: Any = {"input": data}
        for name in chain:
            found = found[name]
        return found

    return compile_expression(source)(lookup)


DOUBLED = ".map(a, a + a)" * 27
SHARED = ".map(x, [x, x])" * 27

GROWING = [
    "input.t.replace('a', input.t)",
    "input.t.replace('', input.t)",
    "input.t.replace('a', input.t, 20000)",
    "input.n.map(x, input.n.map(y, input.t)).map(l, l.join(',')).join('')",
    "input.n.map(x, input.t.split('a'))",
    "input.n.map(x, input.t.lowerAscii())" + ".map(x, x.upperAscii())" * 10,
    "input.n.filter(x, input.t.replace('a', 'bb') == 'x')",
    "input.n.exists(x, input.t + input.t + input.t + input.t + input.t + input.t + input.t == '')",
    f"[input.t]{DOUBLED}",
    f"[b'abc']{DOUBLED}",
    f"[input.n]{DOUBLED}",
    f"[[1]]{SHARED}",
    "'a'" + ".replace('a', 'aaaaaaaaaa')" * 12,
    "input.n.map(x, '%s'.format([input.t])).map(x, '%s%s%s'.format([x, x, x])).map(x, '%s%s%s'.format([x, x, x]))",
    "(has(input.zz) ? [''] : input.n.map(x, input.t)).map(x, x + x).map(x, x + x).map(x, x + x)",
    "(input.n[0] > input.n[1] - 1 ? [input.t] : input.n.map(x, input.t)).map(x, x + x).map(x, x + x + x + x)",
    "get(input, 't', '').replace('a', get(input, 't', ''))",
    "{'k': input.t}.k.replace('a', {'k': input.t}['k'])",
    "input.n.map(x, strings.quote(strings.quote(strings.quote(input.t))))",
    "input.t.substring(1).replace(input.t.substring(0, 1), input.t)",
]


@pytest.mark.parametrize("source", GROWING)
def test_an_expression_that_grows_beyond_the_limit_is_refused_by_its_operation(source: str) -> None:
    with pytest.raises(ExpressionFailed, match="exceeds the limit of 256 MiB"):
        evaluated(source, DATA)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input.t.replace('a', 'bc').size()", 100_000),
        ("('{doc}' + input.t).replace('{doc}', input.t).replace('aaa', 'b').size()", 33_334),
        ('input.items.map(i, "- " + i.title).join("\\n").size()', 3_389),
        ("input.items.filter(i, i.title.matches('t1.*')).size()", 111),
        ("(has(input.items) ? input.items : []).map(i, i.title).size()", 500),
        ("get(input, 'items', []).map(i, i.title + '!').size()", 500),
        ("input.n.map(x, x * 2).filter(x, x > 10).size()", 994),
        ("size(input.t) < 100 ? input.t.replace('a', input.t) : 'long'", "long"),
        ("input.t.split('').size()", 50_000),
        ("input.items.map(i, {'a': i.title, 'b': i.x})[3].b", 3),
        ("'%s-%d'.format(['a', 1])", "a-1"),
        ("[[1, 2], [3]].map(l, l.map(x, x + 1))", [[2, 3], [4]]),
    ],
)
def test_an_ordinary_expression_is_evaluated(source: str, value: Any) -> None:
    assert evaluated(source, DATA) == value


def test_one_large_item_does_not_count_for_all() -> None:
    items = [{"text": "x"}] * 999 + [{"text": "y" * 700_000}]
    assert evaluated("input.map(i, i.text + ';').join('').size()", items) == 701_999


@pytest.mark.parametrize(
    "source",
    ["input.n > 3 && input.t == 'a'", "has(input.t)", "get(input, 't', '')", "input.n + 1", "size(input.t)"],
)
def test_an_expression_without_growth_is_not_walked_when_it_runs(source: str) -> None:
    assert cost.is_bounded(cel.parse(source))


@pytest.mark.parametrize(
    "source", ["input.a + input.b", "input.t.trim()", "input.n.map(x, x)", "input.t.split(',')"]
)
def test_an_expression_that_may_grow_is_walked(source: str) -> None:
    assert not cost.is_bounded(cel.parse(source))


def test_the_copies_that_a_macro_makes_of_its_list_count() -> None:
    with pytest.raises(ExpressionFailed, match="a macro with values of this size"):
        evaluated("input.map(x, x).size()", list(range(9_000)))
    assert evaluated("input.exists(x, x > 8998)", list(range(9_000))) is True


def test_every_function_has_a_cost() -> None:
    macros = {"all", "exists", "exists_one", "filter", "map", "has"}
    copies = {
        "bytes",
        "charAt",
        "lowerAscii",
        "quote",
        "reverse",
        "string",
        "substring",
        "trim",
        "upperAscii",
    }
    assert macros | copies | set(cost._SPECIAL) | cost._READERS >= FUNCTIONS


# Random expressions in a process with little memory -------------------------------------------------------

TEXTS: st.SearchStrategy[str] = st.deferred(
    lambda: (
        st.sampled_from(["input.t", "input.u", "'a'", "'%s-%s'", "''"])
        | st.builds("{}.replace({}, {})".format, TEXTS, TEXTS, TEXTS)
        | st.builds("({} + {})".format, TEXTS, TEXTS)
        | st.builds("{}.join({})".format, LISTS, TEXTS)
        | st.builds("'%s,%s'.format([{}, {}])".format, TEXTS, TEXTS)
        | st.builds("{}.{}()".format, TEXTS, st.sampled_from(["lowerAscii", "trim", "reverse"]))
        | st.builds("strings.quote({})".format, TEXTS)
        | st.builds("(size({}) > 10 ? {} : {})".format, TEXTS, TEXTS, TEXTS)
        | st.builds("(input.flag ? {} : {})".format, TEXTS, TEXTS)
        | st.just("x")
    )
)
LISTS: st.SearchStrategy[str] = st.deferred(
    lambda: (
        st.sampled_from(["input.l", "[1, 2, 3].map(x, input.t)"])
        | st.builds("{}.split({})".format, TEXTS, TEXTS)
        | st.builds("{}.map(x, {})".format, LISTS, TEXTS)
        | st.builds("{}.filter(x, x.contains({}))".format, LISTS, TEXTS)
        | st.builds("({} + {})".format, LISTS, LISTS)
        | st.builds("[{}, {}]".format, TEXTS, TEXTS)
    )
)
PROGRAMS = st.builds("[input.u].map(x, {})".format, TEXTS) | LISTS

EVALUATE = """
import json, resource, sys
sys.path[:0] = json.loads(sys.argv[1])
from blueprint.expressions.test_cost import evaluated
from flujo.exceptions import ExpressionFailed, ExpressionSyntax
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
for line in sys.stdin:
    source, data = json.loads(line)
    try:
        size = len(json.dumps(evaluated(source, data)))
        print("value" if size <= 2 * 1024 * 1024 else "large", flush=True)
    except (ExpressionFailed, ExpressionSyntax) as error:
        print("memory" if "fit into memory" in str(error) else "refused", flush=True)
"""


@pytest.fixture(scope="module")
def small_process() -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", EVALUATE, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate()


@given(PROGRAMS, st.integers(0, 60_000), st.integers(0, 2_000), st.integers(0, 300), st.booleans())
def test_no_expression_needs_a_gigabyte(
    small_process: Any, source: str, size: int, other: int, length: int, flag: bool
) -> None:
    data = {"t": "a" * size, "u": "ab" * other, "l": ["abc"] * length, "flag": flag}
    small_process.stdin.write(json.dumps([source, data]) + "\n")
    small_process.stdin.flush()
    assert small_process.stdout.readline() in ("value\n", "refused\n"), source
