"""Makes cases of recorded runs, and adds them to a file; secrets are masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.blueprint.cases import new_file, read_cases, with_cases
from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.domain.wording import plural
from flujo.exceptions import CasesInvalid, CasesRefused, RunNotFound, SettingsError
from flujo.governance.sink import GATE
from flujo.services.cases.files import FOLDER
from flujo.services.cases.run_sets import query_of
from flujo.services.project.project import replace_file
from flujo.services.scoring.evaluators import evaluators_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.project.project import Project


@dataclass(frozen=True, slots=True)
class Conditions:
    """Which runs become cases: those with such scores, the newest score first."""

    text: str
    """Some of `blueprint=NAME evaluator=NAME lock=DIGEST score<NUMBER`."""
    limit: int
    """How many runs at most."""


@dataclass(frozen=True, slots=True)
class Added:
    """Cases that were added to a file."""

    path: Path
    names: tuple[str, ...]
    known: int
    """How many cases the file had already, by their input or their name."""


async def collect(
    project: Project, store: StateStore, chosen: str | Conditions, to: Path | None, name: str | None = None
) -> list[Added]:
    """Make cases of runs and add them to files, one for each blueprint.

    Args:
        project: the project.
        store: has the runs.
        chosen: one run, whose output is the expected one, or conditions on scores.
        to: the file; default: `evals/BLUEPRINT.yaml`.
        name: the name of the case of one run.

    Raises:
        RunNotFound: there is no such run.
        CasesRefused | CasesInvalid: as `case_of` and `add_cases`.
        SettingsError: a condition cannot be read, or the runs are of several blueprints and `to` is one file.
    """
    is_one = isinstance(chosen, str)
    found = [await store.find(chosen)] if isinstance(chosen, str) else await scored_runs(store, chosen)
    by_blueprint: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        by_blueprint.setdefault(each.pipeline, []).append(case_of(each, name=name, has_expected=is_one))
    if to is not None and len(by_blueprint) > 1:
        raise SettingsError(
            f"the runs are of {plural(len(by_blueprint), 'blueprint')}, and a file of cases is of one",
            hint="add `blueprint=NAME` to `--from`, or leave `--to` out",
        )
    return [
        add_cases(project, to or project.root / FOLDER / f"{blueprint}.yaml", blueprint, cases)
        for blueprint, cases in by_blueprint.items()
    ]


def case_of(run: RunRecord, *, name: str | None = None, has_expected: bool = True) -> dict[str, Any]:
    """Return a completed run as a case.

    Args:
        run: the run.
        name: the name of the case. Default: the first 12 characters of the run's id.
        has_expected: whether the output of the run is the expected one.

    Raises:
        CasesRefused: the run has not completed.
    """
    if run.status is not RunStatus.COMPLETED:
        raise CasesRefused(
            f"run {run.run_id} is {run.status}, and a case is made of a completed run",
            hint="`flujo tasks list --status completed` lists completed runs",
            run_id=run.run_id,
        )
    case: dict[str, Any] = {"name": name or run.run_id[:12], "input": GATE.data(canonical.decode(run.input))}
    if has_expected:
        case["expected"] = GATE.data(canonical.decode(run.output or b"null"))
    return case


async def scored_runs(store: StateStore, conditions: Conditions) -> list[RunRecord]:
    """Return the completed runs with scores that match, each once.

    Raises:
        SettingsError: a condition cannot be read.
    """
    found: list[RunRecord] = []
    seen: set[str] = set()
    for each in await store.evaluations(query_of(conditions.text, option="--from")):
        if each.run_id in seen or each.path or len(found) == conditions.limit:
            continue
        seen.add(each.run_id)
        try:
            run = await store.run(each.run_id)
        except RunNotFound:
            continue  # purged; its scores are kept
        if run.status is RunStatus.COMPLETED and not run.is_case:
            found.append(run)
    return found


def add_cases(project: Project, path: Path, blueprint: str, cases: Sequence[Mapping[str, Any]]) -> Added:
    """Add cases to a file, which is created if there is none; its other lines stay as they are.

    A case whose input or name the file has already is left out.

    Raises:
        CasesInvalid: the file has errors; it is unchanged.
        CasesRefused: the cases of the file are written in one line; it is unchanged.
        SettingsError: the file cannot be read or written.
    """
    shown = str(path)
    text = _text(path)
    if text is None:
        fresh = _without_known(cases, [])
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, new_file(blueprint, fresh))
        return Added(path, tuple(each["name"] for each in fresh), len(cases) - len(fresh))
    read = read_cases(text.encode(), shown, evaluators_of(project.settings))
    if read.said is None:
        message = f"{shown} has errors; no case was added"
        raise CasesInvalid(message, diagnostics=read.found, sources={shown: text})
    there = [{"name": each.name, "input": each.input} for each in read.said.cases]
    fresh = _without_known(cases, there)
    if fresh:
        whole = with_cases(text, fresh)
        if whole is None:
            raise CasesRefused(
                f"{shown} has its cases in one line, or in another format than Flujo's, so none can be added",
                hint="write each case below `cases:` in lines of its own, beginning with `- name:`",
                file=shown,
            )
        replace_file(path, whole)
    return Added(path, tuple(each["name"] for each in fresh), len(cases) - len(fresh))


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="name a file of cases") from error


def _without_known(
    cases: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    names = {each["name"] for each in there}
    inputs = {canonical.encode(each["input"]) for each in there}
    fresh = []
    for each in cases:
        given = canonical.encode(each["input"])
        if each["name"] not in names and given not in inputs:
            names.add(each["name"])
            inputs.add(given)
            fresh.append(dict(each))
    return fresh
