"""Generates bugs in the functions that keep each promise, and checks that the promise's tests detect them.

    python tests/mutants/generated.py [--each N] [--seed S] [G1 G3 …]

`generated.toml` names, for each promise of docs/reliability.md, functions of `src/flujo` and quick tests. N edits of
these functions, chosen by the seed, are made one at a time in a copy of the repository. An edit that no test can
detect is listed there as equivalent, with the reason. The exit code is 1 when another edit survives.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutants.run import PASSED, ROOT, copied, run_tests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TABLE = tomllib.loads((Path(__file__).parent / "generated.toml").read_text("utf-8"))
LONGEST_S = 600
"""The time limit of the tests of a target without an edit."""

FLIPPED: Mapping[type[ast.cmpop], ast.cmpop] = {
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
}
SYMMETRIC = ("min", "max")
"""Calls whose arguments may come in any order."""
UNTOUCHED_CALLS = ("log", "_log", "logger", "isinstance", "assert_never", "cast")


@dataclass(frozen=True)
class Edit:
    """A replacement of the bytes `start:end` of a source file."""

    file: str
    function: str
    line: int
    start: int
    end: int
    old: str
    new: str
    times: int = 1
    """2 for the second edit of the function with the same texts."""

    def __str__(self) -> str:
        """Return the edit as the table names it: it keeps this name when other lines change."""
        times = "" if self.times == 1 else f" ({self.times})"
        return f"{self.function}: {' '.join(self.old.split())} -> {' '.join(self.new.split())}{times}"

    def made(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.new.encode() + source[self.end :]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Functions of one file that keep a promise, and the tests that must detect a change of them."""

    guarantee: str
    file: str
    functions: Sequence[str]
    """Names such as `claim` and `Writer.submit`."""
    tests: Sequence[str]
    only: str = ""
    """The cases of the tests, as for `pytest -k`; empty for all."""

    def edits(self) -> list[Edit]:
        """Return the possible edits without the equivalent ones."""
        source = (ROOT / self.file).read_text("utf-8")
        equivalent = {each["edit"] for each in TABLE["equivalent"] if each["file"] == self.file}
        return [each for each in edits(self.file, source, self.functions) if str(each) not in equivalent]


def targets() -> list[Target]:
    """Return the table."""
    return [Target(**each) for each in TABLE["target"]]


def edits(file: str, source: str, functions: Sequence[str]) -> Iterator[Edit]:
    """Yield each small change of the functions."""
    encoded = source.encode()
    starts = [0]
    for line in encoded.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    module = ast.parse(source)
    times = Counter[tuple[str, str, str]]()
    for name in functions:
        for node, new in _changes(_function(module, name)):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            old = encoded[start:end].decode()
            times[name, old, new] += 1
            yield Edit(file, name, node.lineno, start, end, old, new, times[name, old, new])


def _function(module: ast.Module, name: str) -> ast.AST:
    found: ast.AST = module
    for part in name.split("."):
        found = next(each for each in ast.iter_child_nodes(found) if getattr(each, "name", "") == part)
    return found


def _changes(function: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield parts of a function, each with another text."""
    waiting: list[ast.AST] = list(getattr(function, "body", ()))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.expr | ast.stmt) and (new := _changed(node)):
            yield node, new
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node.test, f"(not ({ast.unparse(node.test)}))"
        if not (isinstance(node, ast.Raise | ast.JoinedStr | ast.AnnAssign) or _is_untouched(node)):
            waiting += ast.iter_child_nodes(node)


def _changed(node: ast.expr | ast.stmt) -> str:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=compared):
            return f"({ast.unparse(ast.Compare(left, [FLIPPED[type(operator)]], compared))})"
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            return f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"({ast.unparse(operand)})"
        case ast.Constant(value=int() as value):
            return str(not value) if isinstance(value, bool) else str(value + 1)
        case ast.Expr(value=ast.Call() | ast.Await() as call) if not _is_untouched(call):
            return "pass"
        case ast.Raise() | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            return "return None"
        case ast.Call(func=called, args=[first, second, *more], keywords=named) if not _is_untouched(node):
            is_starred = any(isinstance(each, ast.Starred) for each in (first, second))
            if not is_starred and ast.unparse(called) not in SYMMETRIC:
                return ast.unparse(ast.Call(called, [second, first, *more], named))
    return ""


def _is_untouched(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).partition(".")[0] in UNTOUCHED_CALLS


def survivors(target: Target, chosen: Sequence[Edit], copy: Path) -> Iterator[Edit]:
    """Yield each chosen edit that the tests of the target do not detect."""
    began = time.monotonic()
    without, output = run_tests(copy, target.tests, target.only, LONGEST_S)
    patience_s = 30 + 4 * (time.monotonic() - began)  # an endless loop counts as detected
    if without != PASSED:
        sys.exit(
            f"the tests of {target.guarantee} for {target.file} do not pass (exit code {without}):\n{output}"
        )
    file = copy / target.file
    source = file.read_bytes()
    for edit in chosen:
        file.write_bytes(edit.made(source))
        survived = run_tests(copy, target.tests, target.only, patience_s)[0] == PASSED
        _say(f"{'SURVIVED' if survived else 'killed':9}{target.guarantee:4}{edit.file}:{edit.line} {edit}")
        if survived:
            yield edit
    file.write_bytes(source)


def main(arguments: Sequence[str]) -> int:
    """Print whether each edit was detected, and a line for each promise; return 1 when one survived."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("guarantees", nargs="*")
    parser.add_argument("--each", type=int, default=5, help="edits for each promise; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    chosen: list[tuple[Target, Edit]] = []
    for guarantee in given.guarantees or sorted({each.guarantee for each in targets()}):
        sites = [(each, edit) for each in targets() if each.guarantee == guarantee for edit in each.edits()]
        sites.sort(key=lambda site: random.Random(f"{given.seed} {site[1].file} {site[1]}").random())
        chosen += sites[: given.each or len(sites)]
    made, survived = Counter(target.guarantee for target, _ in chosen), Counter[str]()
    with copied() as copy:
        for target in targets():
            if own := [edit for each, edit in chosen if each == target]:
                survived[target.guarantee] += len(list(survivors(target, own, copy)))
    for guarantee, count in made.items():
        _say(f"{guarantee}: {count} made, {survived[guarantee]} survived")
    return int(survived.total() > 0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
