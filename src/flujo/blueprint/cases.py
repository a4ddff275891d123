"""Reads a file of cases, with a finding for everything that is wrong, and adds cases to one.

Cases are added as text, so that comments, quotes and the order of keys stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.blueprint.datasets import CODE, cases_of, is_dataset
from flujo.blueprint.diagnostics import Diagnostic, Severity, suggest
from flujo.blueprint.language.cases import CasesFile, Dataset, evaluator_name
from flujo.blueprint.language.validation import validate
from flujo.blueprint.reading.reader import Limits, read
from flujo.blueprint.reading.source_map import Scalar, Sequence
from flujo.blueprint.reading.syntax_rules import ROOT
from flujo.blueprint.yaml_writer import to_yaml

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from flujo.blueprint.reading.source_map import Document, Node

_LIMITS = Limits(file_bytes=16 * 2**20, scalar_bytes=2**20, nodes=500_000, depth=64)


@dataclass(frozen=True, slots=True)
class ReadCases:
    """A file of cases, or the findings that stop it."""

    said: CasesFile | None
    found: tuple[Diagnostic, ...]
    text: str
    lines: tuple[int, ...] = ()
    """The line of each case."""


def read_cases(data: bytes, file: str, known: Collection[str] = ()) -> ReadCases:
    """Return the cases of a file in Flujo's format or in that of pydantic-evals.

    Args:
        data: the bytes of the file: YAML.
        file: its name, for findings.
        known: the evaluators of the settings, by name.
    """
    document = read(data, file, limits=_LIMITS)
    found = [_own(one) for one in document.diagnostics]
    said: CasesFile | None = None
    if not any(one.is_error for one in found):
        said, more = _validated(document)
        found += more
    if said is not None:
        found += _meaning(said, document, known)
    if any(one.is_error for one in found):
        return ReadCases(None, tuple(found), document.text)
    count = 0 if said is None else len(said.cases)
    lines = tuple(document.span(("cases", index)).line for index in range(count))
    return ReadCases(said, tuple(found), document.text, lines)


def _own(finding: Diagnostic) -> Diagnostic:
    """Return a finding of the reader; one about the whole document in the words of this language."""
    if finding.code != ROOT.code:
        return finding
    hint = "start with `blueprint:`, `evaluators:` and `cases:`"
    return Diagnostic(CODE, Severity.ERROR, "a file of cases is a mapping", finding.span, hint)


def _validated(document: Document) -> tuple[CasesFile | None, list[Diagnostic]]:
    if is_dataset(document.data):
        judged = validate(Dataset, document)
        return (None, list(judged.found)) if judged.said is None else cases_of(judged.said, document)
    own = validate(CasesFile, document)
    return own.said, list(own.found)


def _meaning(said: CasesFile, document: Document, known: Collection[str]) -> Iterator[Diagnostic]:
    """Yield findings about names: of cases, of evaluators, and of thresholds."""
    first: dict[str, int] = {}
    for index, case in enumerate(said.cases):
        if case.name in first:
            span = document.span(("cases", index, "name"))
            line = document.span(("cases", first[case.name])).line
            message = f"case `{case.name}` is already in line {line}"
            yield Diagnostic(CODE, Severity.ERROR, message, span, "give each case its own name")
        first.setdefault(case.name, index)
    names = [evaluator_name(each) for each in said.evaluators]
    for index, each in enumerate(said.evaluators):
        span = document.span(("evaluators", index))
        if isinstance(each, str) and each not in known:
            hint = suggest(each, known, what="[evaluation.evaluators] has")
            hint = hint or f'define it here: `{{name: {each}, expr: "output == expected"}}`'
            message = f"there is no evaluator `{each}`"
            yield Diagnostic(CODE, Severity.ERROR, message, span, hint)
        if names.index(names[index]) != index:
            message = f"evaluator `{names[index]}` is there twice"
            yield Diagnostic(CODE, Severity.ERROR, message, span, "give each evaluator its own name")
    for name in said.thresholds:
        if name not in names:
            span = document.span(("thresholds", name), key=True)
            hint = suggest(name, names, what="evaluators of this file")
            message = f"a threshold for `{name}`, which is not an evaluator of this file"
            yield Diagnostic(CODE, Severity.ERROR, message, span, hint)


# Adding cases --------------------------------------------------------------------------------------------


def new_file(blueprint: str, cases: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of a file with these cases, and an evaluator for the expected outputs."""
    evaluators = [{"name": "equal", "expr": "output == expected"}]
    return to_yaml({"blueprint": blueprint, "evaluators": evaluators, "cases": list(cases)})


def with_cases(text: str, added: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the text of a file of cases with further cases at its end; None if `cases` is in one line.

    The text must have been read without a finding.
    """
    cases = list(added)
    document = read(text.encode(), "", limits=_LIMITS)
    there = document.node(("cases",))
    if not isinstance(there, Sequence) or document.text[there.start] == "[":
        return None
    own = document.text
    first = there.items[0].start
    begin = own.rfind("\n", 0, first) + 1
    dash = own[begin:first]
    if dash.strip() != "-":
        return None
    end = own.find("\n", _last(there) - 1)
    before, after = (own, "") if end < 0 else (own[: end + 1], own[end + 1 :])
    if not before.endswith("\n"):
        before += "\n"
    indent = dash[: dash.index("-")]
    lines = "".join(f"{indent}{line}" if line.strip() else line for line in to_yaml(cases).splitlines(True))
    whole = before + lines + after
    again = read(whole.encode(), "", limits=_LIMITS)
    wanted = {**document.data, "cases": [*document.data["cases"], *cases]}
    return whole if not again.diagnostics and again.data == wanted else None


def _last(node: Node) -> int:
    """Return the offset at which the last text of a node ends; blank lines and comments may follow."""
    if isinstance(node, Scalar):
        return node.end
    last = list(node.items) if isinstance(node, Sequence) else [each for _, each in node.entries.values()]
    return _last(last[-1]) if last else node.end
