"""Makes cases of recorded runs, and adds them to a file; secrets are masked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.blueprint.cases import new_file, read_cases, with_cases
from flujo.domain import canonical
from flujo.domain.evaluations import EvaluationQuery
from flujo.domain.run import RunStatus
from flujo.domain.wording import suggest
from flujo.exceptions import CasesInvalid, CasesRefused, RunNotFound, SettingsError
from flujo.governance.sink import GATE
from flujo.services.project.project import replace_file
from flujo.services.scoring.evaluators import evaluators_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.project.project import Project

_CONDITION = re.compile(r"(?P<key>[a-z]+)(?P<sign>[=<])(?P<value>\S+)")
_KEYS = ("blueprint", "evaluator", "lock", "score")


@dataclass(frozen=True, slots=True)
class Added:
    """Cases that were added to a file."""

    names: tuple[str, ...]
    known: int
    """How many cases the file had already, by their input or their name."""


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


async def scored_runs(store: StateStore, conditions: str, limit: int) -> list[RunRecord]:
    """Return the runs with scores that match conditions, the newest score first, each once.

    Args:
        store: has the scores.
        conditions: some of `blueprint=NAME evaluator=NAME lock=DIGEST score<NUMBER`.
        limit: how many runs at most.

    Raises:
        SettingsError: a condition cannot be read.
    """
    found: list[RunRecord] = []
    seen: set[str] = set()
    for each in await store.evaluations(query_of(conditions)):
        if each.run_id in seen or each.path or len(found) == limit:
            continue
        seen.add(each.run_id)
        try:
            run = await store.run(each.run_id)
        except RunNotFound:
            continue  # purged; its scores are kept
        if run.status is RunStatus.COMPLETED and not run.is_case:
            found.append(run)
    return found


def query_of(conditions: str) -> EvaluationQuery:
    """Return the query of conditions on scores; see `scored_runs`.

    Raises:
        SettingsError: a condition cannot be read.
    """
    given: dict[str, Any] = {}
    for word in conditions.split():
        match = _CONDITION.fullmatch(word)
        if match is None or match["key"] not in _KEYS or (match["key"] == "score") != (match["sign"] == "<"):
            key = re.split(r"[=<>]", word)[0]
            known = suggest(key, _KEYS) if key not in _KEYS else ""
            raise SettingsError(
                f"--from: {word!r} is not a condition on scores",
                hint=known
                if known.startswith("did")
                else "write `blueprint=sort evaluator=polite score<0.5`",
            )
        given[match["key"]] = match["value"]
    score = given.pop("score", None)
    try:
        below = None if score is None else float(score)
    except ValueError:
        raise SettingsError(f"--from: `score<{score}` is not a number", hint="write `score<0.5`") from None
    return EvaluationQuery(
        pipeline=given.get("blueprint"),
        evaluator=given.get("evaluator"),
        lock=given.get("lock"),
        below=below,
        limit=10_000,
    )


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
        return Added(tuple(each["name"] for each in fresh), len(cases) - len(fresh))
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
    return Added(tuple(each["name"] for each in fresh), len(cases) - len(fresh))


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
