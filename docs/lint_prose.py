"""Finds prose that a stranger stumbles over: docstrings, comments, messages, names of tests, and pages.

    python docs/lint_prose.py [--count] [PATH ...]

Prints each finding with its place and what to write instead, and ends with 1 when there are any; `--count` prints
only how many there are in each folder. CONTRIBUTING.md has the rule and examples.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
FOLDERS = ("src", "tests", "docs", "bench", "alembic")


@dataclass(frozen=True)
class Rule:
    """A phrase, and what to write instead of it."""

    name: str
    phrase: re.Pattern[str]
    instead: str


def _rule(name: str, phrase: str, instead: str) -> Rule:
    return Rule(name, re.compile(phrase, re.IGNORECASE), instead)


RULES = (
    _rule(
        "person",
        r"\b(?:nobody|whoever|somebody|anybody|everybody)\b",
        "name the thing: the run, the worker, the caller",
    ),
    _rule("go-on", r"\b(?:go|goes|going|gone|went) on\b(?! to\b)", "resume, continue"),
    _rule("give-back", r"\b(?:give|gives|given|gave|giving) back\b", "return, release"),
    _rule(
        "hand",
        r"\b(?:handed|hands (?:in|on|over|out|it|them)|hand(?:ing)? (?:in|on|over|out|it|them))\b",
        "pass",
    ),
    # "there is no X" is right, and so are the fixed phrases after "no".
    _rule(
        "is-no",
        r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|later\b|earlier\b|different\b|better\b|slower\b)",
        "is not a",
    ),
    _rule("told", r"\btold\b", "reported, logged, configured"),
    _rule("said", r"\b(?:said|says so)\b", "declared, stated, reported"),
    # A `hitl` step asks a human: that is the field's word.
    _rule("asked", r"\b(?:is|are|was|were|be|been) asked\b(?! by a `)", "requested, called, queried"),
    _rule(
        "what-was",
        r"\bwhat (?:(?:is|was|were|has been|had been|have been) \w+(?:ed|en|ne|id)|(?:holds|stands|comes|came|belongs))\b",
        "name it: completed steps, recorded values",
    ),
    _rule("for-ever", r"\bfor ever\b", "indefinitely, forever"),
    _rule("mend", r"\bmend(?:s|ed|ing)?\b", "fix, repair"),
    _rule(
        "taken-for",
        r"\btak(?:e|es|en|ing) (?:\w+ )?for (?:a|an|the|gone|dead|ours|something)\b",
        "treated as",
    ),
    _rule("attend", r"\b(?:attend(?:s|ed)? to|look(?:s|ed|ing)? after)\b", "own, execute, monitor"),
    _rule("came-out", r"\b(?:came|comes|come) out\b", "ended, the result"),
    _rule("our-words", r"\b(?:in our words|of ours|of theirs|of its own accord)\b", "name the owner"),
    _rule("nothing-left", r"\bnothing (?:is|was) left\b", "no ... left"),
    _rule("dear", r"\b(?:how|too|as|so) dear\b", "expensive"),
)

# Where a phrase stands on purpose.
EXCEPTIONS: tuple[tuple[str, str], ...] = (
    (r"docs/lint_prose\.py$", r"."),  # this file quotes every phrase
    (r"tests/docs/test_lint_prose\.py$", r"."),  # and so do its tests
    (r"CONTRIBUTING\.md$", r"^\| .* \| .* \|$"),  # the pairs of what not to write, and what to write
    (r"tests/(?:bad|good)/", r"."),  # texts of blueprints under test, not ours
    # Written from the source and from names of tests, where it is found.
    (
        r"docs/reference/(?:diagnostics|errors|python|settings|cli|exit-codes)\.md$|docs/reliability\.md$",
        r".",
    ),
    (r"tests/manual/blocks/", r"."),  # as the manual prints them
)


@dataclass(frozen=True)
class Text:
    """A piece of prose and where it begins."""

    path: str
    line: int
    words: str


@dataclass(frozen=True)
class Finding:
    """A phrase in a text."""

    path: str
    line: int
    rule: Rule
    words: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule.name}] {self.words!r}: write {self.rule.instead}"


def findings(texts: Iterator[Text]) -> Iterator[Finding]:
    """Yield the phrases that are not allowed, line by line."""
    for text in texts:
        for offset, line in enumerate(text.words.splitlines()):
            if any(re.search(path, text.path) and re.search(words, line) for path, words in EXCEPTIONS):
                continue
            prose = re.sub(r"`[^`]*`", "``", line)  # code is not prose
            for rule in RULES:
                for found in rule.phrase.finditer(prose):
                    around = prose[max(0, found.start() - 25) : found.end() + 25].strip()
                    yield Finding(text.path, text.line + offset, rule, around)


def texts_of(path: Path, name: str) -> Iterator[Text]:
    """Yield the prose of a file."""
    source = path.read_text("utf-8")
    if path.suffix == ".md":
        yield from _page(source, name)
    elif path.suffix == ".py":
        yield from _comments(source, name)
        yield from _strings(ast.parse(source), name)


def _page(source: str, name: str) -> Iterator[Text]:
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield Text(name, number, line)


def _comments(source: str, name: str) -> Iterator[Text]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(name, token.start[0], token.string.lstrip("#! "))


def _strings(tree: ast.Module, name: str) -> Iterator[Text]:
    """Yield docstrings, of attributes too, the names of tests, and in `src` every text with a space in it."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=test) | ast.AsyncFunctionDef(name=test) if test.startswith("test_"):
                yield Text(name, node.lineno, test.replace("_", " "))
            case ast.Expr(value=ast.Constant(value=str(words))):
                yield Text(name, node.lineno, words)
            case _:
                pass
    if not name.startswith("src/"):
        return
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(words)) if " " in words.strip() and id(node) not in docstrings:
                yield Text(name, node.lineno, words)
            case _:
                pass


def files(paths: list[Path]) -> Iterator[Path]:
    """Yield the files with prose at and below `paths`."""
    for path in paths:
        if path.is_file():
            yield path
        for found in sorted(path.rglob("*")) if path.is_dir() else ():
            if found.suffix in (".py", ".md") and "template" not in found.parts:
                yield found


def main(arguments: list[str]) -> int:
    """Print what is found, and return the exit code."""
    parser = argparse.ArgumentParser(description="Find prose that a stranger stumbles over.")
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / each for each in (*PAGES, *FOLDERS)])
    parser.add_argument("--count", action="store_true", help="print only how many findings each folder has")
    options = parser.parse_args(arguments)
    found: list[Finding] = []
    for path in files([each.resolve() for each in options.paths]):
        found += findings(texts_of(path, path.relative_to(ROOT).as_posix()))
    if options.count:
        counts = Counter("/".join(each.path.split("/")[:-1][:3]) or each.path for each in found)
        lines = [f"{count:5} {folder}" for folder, count in sorted(counts.items())]
    else:
        lines = [str(each) for each in found]
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"{len(found):5} findings"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
