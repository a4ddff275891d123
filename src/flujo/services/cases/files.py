"""Files of cases as a project uses them: the blueprint and the evaluators of a file are found and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.blueprint.cases import read_cases
from flujo.domain.commands import command
from flujo.domain.evaluations import Evaluator
from flujo.domain.wording import suggest
from flujo.exceptions import CasesInvalid, ExpressionSyntax, PipelineError, SettingsError
from flujo.services.project.project import SUFFIXES
from flujo.services.scoring.evaluators import evaluators_of, require_expression

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flujo.blueprint.language.cases import CasesFile
    from flujo.blueprint.language.cases import Evaluator as DefinedEvaluator
    from flujo.services.project.project import Project
    from flujo.settings import Settings

FOLDER = "evals"
"""The folder of a project in which `flujo evals` looks for files of cases by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An input, and the expected output."""

    name: str
    input: Any
    expected: Any
    metadata: Mapping[str, Any]
    line: int
    """Its line in the file."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What the scores of one evaluator must reach; None for anything."""

    mean: float | None
    least: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """A file of cases."""

    file: str
    """Its path in the project, or its whole path outside."""
    blueprint: str
    """The path of the blueprint in the project."""
    cases: tuple[Case, ...]
    evaluators: tuple[Evaluator, ...]
    thresholds: Mapping[str, Threshold]
    margin: float
    repeat: int


def load_cases(project: Project, cwd: Path, named: str, file: Path | None = None) -> Cases:
    """Return the cases of a file, with its blueprint and its evaluators.

    Args:
        project: the project.
        cwd: where a relative path was typed.
        named: a file of cases, or the name of one in `evals/`; with `file`, the blueprint.
        file: a file of cases.

    Raises:
        SettingsError: there is no such file or blueprint, or the settings of evaluators have an error.
        CasesInvalid: the file has errors; `diagnostics` has their places.
    """
    path = _file_of(project, cwd, named) if file is None else cwd / file
    shown = path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{shown} cannot be read: {error.strerror}", hint=_HINT) from error
    known = evaluators_of(project.settings)
    read = read_cases(data, shown, known)
    if read.said is None:
        count = sum(each.is_error for each in read.found)
        raise CasesInvalid(
            f"{shown} has {count} error{'s' if count != 1 else ''}",
            diagnostics=read.found,
            sources={shown: read.text},
        )
    blueprint = named if file is not None else read.said.blueprint
    if blueprint is None:
        raise SettingsError(
            f"{shown} does not name its blueprint",
            hint="add `blueprint: NAME` to the file, or write "
            f"`{command('flujo', 'evals', 'run', 'BLUEPRINT', '--cases', shown)}`",
        )
    lines = read.lines
    return Cases(
        file=shown,
        blueprint=project.locate(blueprint, project.root if file is None else cwd),
        cases=tuple(
            Case(
                name=each.name,
                input=each.input,
                expected=each.expected,
                metadata=each.metadata,
                line=line,
            )
            for each, line in zip(read.said.cases, lines, strict=True)
        ),
        evaluators=tuple(_evaluators(read.said, known, project.settings, shown)),
        thresholds={name: Threshold(one.mean, one.min) for name, one in read.said.thresholds.items()},
        margin=read.said.margin,
        repeat=read.said.repeat,
    )


_HINT = "`flujo evals add RUN` writes a first file of cases"


def _file_of(project: Project, cwd: Path, named: str) -> Path:
    """Return the file of cases that a user typed."""
    typed = cwd / named
    if typed.is_file() or named.endswith(SUFFIXES):
        return typed.resolve()
    folder = project.root / FOLDER
    there = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES}
    if named in there:
        return there[named]
    raise SettingsError(
        f"there is no file of cases {FOLDER}/{named}.yaml",
        hint=suggest(named, there, what=f"{FOLDER}/ has") or _HINT,
    )


def _evaluators(
    said: CasesFile, known: Mapping[str, Evaluator], settings: Settings, file: str
) -> list[Evaluator]:
    """Return the evaluators that a file names or defines.

    Raises:
        SettingsError: a judge has no model, or an expression cannot be read.
    """
    found = []
    for each in said.evaluators:
        if isinstance(each, str):
            found.append(known[each])
            continue
        try:
            found.append(_defined(each, settings))
        except (ExpressionSyntax, PipelineError) as error:
            where = f"{file}: evaluator `{each.name}`"
            raise SettingsError(f"{where}: {error.message}", hint=error.hint) from None
    return found


def _defined(each: DefinedEvaluator, settings: Settings) -> Evaluator:
    evaluator = Evaluator(
        name=each.name,
        judge=each.judge,
        model=(each.model or settings.evaluation.model) if each.judge is not None else None,
        model_settings=each.model_settings,
        call=each.call,
        expr=each.expr,
    )
    if evaluator.expr is not None:
        require_expression(evaluator.expr)
    return evaluator
