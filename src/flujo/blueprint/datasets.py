"""Turns a dataset of pydantic-evals into a file of cases; what has no counterpart here is a finding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import Diagnostic, Severity, one_of
from flujo.blueprint.language.cases import Case, CasesFile, Dataset, Evaluator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flujo.blueprint.reading.source_map import Document

CODE = "FLJ480"
"""The code of findings about the meaning of a file of cases."""

_MARKS = ("inputs", "expected_output")
"""The keys of a case that only pydantic-evals has."""


def is_dataset(data: Any) -> bool:
    """Return whether data is written in the format of pydantic-evals."""
    cases = data.get("cases") if isinstance(data, dict) else None
    if not isinstance(cases, list) or "blueprint" in data:
        return False
    return any(isinstance(case, dict) and any(mark in case for mark in _MARKS) for case in cases)


def cases_of(dataset: Dataset, document: Document) -> tuple[CasesFile | None, list[Diagnostic]]:
    """Return the cases and evaluators of a dataset, or None, and the findings about it."""
    found = list(_not_here(dataset, document))
    evaluators: dict[str, Evaluator] = {}
    for index, given in enumerate(dataset.evaluators):
        place = ("evaluators", index)
        try:
            own = _evaluator(given)
        except _NoCounterpart as error:
            found.append(_finding(document, place, str(error), _KNOWN))
            continue
        if own.name in evaluators:
            hint = "keep one, or write the file in Flujo's own format, where each has its own name"
            found.append(_finding(document, place, f"`{own.name}` is there twice", hint))
        evaluators[own.name] = own
    if not dataset.evaluators:
        hint = "write `evaluators: [EqualsExpected]`"
        found.append(_finding(document, (), "the dataset has no evaluators", hint))
    if found:
        return None, found
    cases = [
        Case(
            name=case.name or f"case-{number}",
            input=case.inputs,
            expected=case.expected_output,
            metadata=case.metadata or {},
        )
        for number, case in enumerate(dataset.cases, 1)
    ]
    return CasesFile(evaluators=list(evaluators.values()), cases=cases), []


def _not_here(dataset: Dataset, document: Document) -> Iterator[Diagnostic]:
    """Yield findings about the parts of a dataset that Flujo has not."""
    if dataset.report_evaluators:
        message = "`report_evaluators` score a whole report, which Flujo does not do"
        yield _finding(document, ("report_evaluators",), message, "remove them; use `thresholds`")
    for index, case in enumerate(dataset.cases):
        if case.evaluators:
            message = "Flujo has no evaluators of a single case"
            hint = "move them to `evaluators` of the dataset"
            yield _finding(document, ("cases", index, "evaluators"), message, hint)
        if case.metadata is not None and not isinstance(case.metadata, dict):
            message = "`metadata` of a case must be a mapping"
            yield _finding(document, ("cases", index, "metadata"), message, "write `metadata: {…}`")


def _finding(document: Document, path: tuple[Any, ...], message: str, hint: str) -> Diagnostic:
    return Diagnostic(CODE, Severity.ERROR, message, document.span(path), hint)


# Evaluators ----------------------------------------------------------------------------------------------


class _NoCounterpart(Exception):
    """An evaluator that Flujo cannot express."""


def _evaluator(given: str | Mapping[str, Any]) -> Evaluator:
    """Return the counterpart of an evaluator: `Name`, `{Name: value}` or `{Name: {argument: value}}`."""
    if isinstance(given, str):
        name, arguments = given, {}
    else:
        if len(given) != 1:
            raise _NoCounterpart("an evaluator is a name, or a mapping with its name as the only key")
        name, value = next(iter(given.items()))
        arguments = dict(value) if isinstance(value, dict) else {_first(name): value}
    if name not in _COUNTERPARTS:
        raise _NoCounterpart(f"pydantic-evals' evaluator `{name}` has no counterpart in Flujo")
    label = arguments.pop("evaluation_name", None)
    own = _COUNTERPARTS[name][1](arguments)
    if arguments:
        raise _NoCounterpart(f"Flujo cannot express {one_of(arguments)} of pydantic-evals' `{name}`")
    return Evaluator(name=label if isinstance(label, str) and label.isidentifier() else name, **own)


def _first(name: str) -> str:
    """Return the argument that `{Name: value}` stands for."""
    return _COUNTERPARTS[name][0] if name in _COUNTERPARTS else "value"


def _equals_expected(_: dict[str, Any]) -> dict[str, Any]:
    return {"expr": "output == expected"}


def _equals(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"expr": f"output == {_literal(arguments.pop('value', None))}"}


def _contains(arguments: dict[str, Any]) -> dict[str, Any]:
    value = arguments.pop("value", None)
    if arguments.pop("case_sensitive", True) is not True or arguments.pop("as_strings", False) is not False:
        raise _NoCounterpart("Flujo cannot express `case_sensitive` and `as_strings` of `Contains`")
    if isinstance(value, str):
        return {"expr": f"output.contains({_literal(value)})"}
    return {"expr": f"{_literal(value)} in output"}


_TYPES = {"str": "string", "int": "int", "float": "double", "bool": "bool", "list": "list", "dict": "map"}


def _is_instance(arguments: dict[str, Any]) -> dict[str, Any]:
    named = arguments.pop("type_name", None)
    if named not in _TYPES:
        raise _NoCounterpart(f"Flujo's outputs are JSON data, which has no type `{named}`")
    return {"expr": f"type(output) == {_TYPES[named]}"}


def _judge(arguments: dict[str, Any]) -> dict[str, Any]:
    rubric, model = arguments.pop("rubric", None), arguments.pop("model", None)
    arguments.pop("include_input", None)  # a judge of Flujo sees input, output and the expected output
    arguments.pop("include_expected_output", None)
    if not isinstance(rubric, str) or not isinstance(model, str | None):
        raise _NoCounterpart("`LLMJudge` needs a `rubric`, and its `model` is a name")
    return {"judge": rubric} | ({} if model is None else {"model": model})


def _literal(value: Any) -> str:
    """Return JSON data as an expression: CEL reads JSON as it is."""
    return json.dumps(value, ensure_ascii=False)


_COUNTERPARTS: Mapping[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "EqualsExpected": ("value", _equals_expected),
    "Equals": ("value", _equals),
    "Contains": ("value", _contains),
    "IsInstance": ("type_name", _is_instance),
    "LLMJudge": ("rubric", _judge),
}
"""Evaluators of pydantic-evals: the argument of their short form, and the counterpart."""

_KNOWN = f"these are read: {one_of(_COUNTERPARTS, joined_by='and')}; use `call: module:callable` for others"
