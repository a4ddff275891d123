"""Shows the report of a file of cases: means with bars, the worst cases first, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from flujo.cli.exit_codes import ExitCode
from flujo.cli.report_formats import annotation, xml_text
from flujo.domain.gate import Verdict
from flujo.domain.wording import dollars, plural
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.cli.terminal import Terminal
    from flujo.domain.gate import Judgement
    from flujo.services.cases.reports import CaseScores, Comparison, Report
    from flujo.services.cases.trials import Trial
    from flujo.services.scoring.means import EvaluatorReport

_MOST_CASES = 10
"""How many of the worst cases the text shows."""

_EXITS = {
    Verdict.BETTER_OR_EQUAL: ExitCode.OK,
    Verdict.WORSE: ExitCode.RUN_FAILED,
    Verdict.CANNOT_TELL: ExitCode.CANNOT_TELL,
}
_STYLES = {Verdict.BETTER_OR_EQUAL: "green", Verdict.WORSE: "red", Verdict.CANNOT_TELL: "yellow"}


def exit_code(verdict: Verdict) -> ExitCode:
    """Return the exit code for a verdict."""
    return _EXITS[verdict]


def trial_line(trial: Trial) -> str:
    """Return one line about a trial that has its scores."""
    said = " ".join(f"{name}={score:.2f}" for name, score in trial.scores.items())
    what = said if said and not trial.problem else f"{said}  {formatting.brief(trial.problem)}".strip()
    recorded = "  recorded" if trial.is_recorded else ""
    return f"{trial.case.name}  [{trial.version}]  {what or 'no score'}{recorded}"


# Text ----------------------------------------------------------------------------------------------------


def show_report(terminal: Terminal, report: Report) -> None:
    """Write the tables to stdout, and what follows from them to stderr."""
    comparison = report.comparison
    columns = {"name": "EVALUATOR", "mean": "MEAN", "bar": "", "interval": "95 % INTERVAL", "cases": "CASES"}
    if comparison is not None and not comparison.are_same:
        columns |= {"difference": f"AGAINST {comparison.against}", "verdict": "VERDICT"}
    judged = {} if comparison is None else comparison.by_evaluator
    terminal.table(columns, [_evaluator_row(each, judged.get(each.name)) for each in report.evaluators])
    terminal.data("")
    worst = report.worst_first[:_MOST_CASES]
    names = [each.name for each in report.evaluators]
    cases = {"case": "CASE", **{name: name for name in names}, "why": "WHY", "run": "RUN"}
    terminal.table(cases, [_case_row(each) for each in worst])
    if len(report.cases) > len(worst):
        terminal.say(f"the {len(worst)} worst of {plural(len(report.cases), 'case')}; --format json has all")
    _say_rest(terminal, report)


def _evaluator_row(each: EvaluatorReport, judged: Judgement | None) -> dict[str, str]:
    row = {"name": each.name, "mean": f"{each.mean:.2f}", "bar": formatting.bar(each.mean)}
    row |= {"interval": f"{each.low:.2f} to {each.high:.2f}", "cases": str(each.count)}
    return row if judged is None else row | _judged(judged)


def show_scores(terminal: Terminal, found: Mapping[tuple[str, str], EvaluatorReport]) -> None:
    """Write the scores of a set of runs, a row for each blueprint and evaluator."""
    columns = {"blueprint": "BLUEPRINT", "name": "EVALUATOR", "mean": "MEAN", "bar": ""}
    columns |= {"interval": "95 % INTERVAL", "cases": "SCORES"}
    rows = [{"blueprint": blueprint, **_evaluator_row(each, None)} for (blueprint, _), each in found.items()]
    terminal.table(columns, rows)


def scores_data(found: Mapping[tuple[str, str], EvaluatorReport]) -> list[dict[str, Any]]:
    """Return the scores of a set of runs as JSON data."""
    names = ("count", "mean", "low", "high", "least")
    return [
        {"blueprint": blueprint, "evaluator": name} | {key: getattr(each, key) for key in names}
        for (blueprint, name), each in found.items()
    ]


def _judged(judged: Judgement) -> dict[str, str]:
    between = f"{judged.mean:+.2f} ({judged.low:+.2f} to {judged.high:+.2f}, {plural(judged.pairs, 'pair')})"
    return {"difference": between, "verdict": str(judged.verdict)}


def _case_row(row: CaseScores) -> dict[str, str]:
    scores = row.scores
    reasons = (reason for trial in row.trials for reason in trial.reasons.values())
    shown = {name: f"{score:.2f} {formatting.bar(score)}" for name, score in scores.items()}
    why = row.problem or next(reasons, "")
    return {"case": row.case.name, **shown, "why": formatting.brief(why, 60), "run": row.trials[0].run_id}


def _say_rest(terminal: Terminal, report: Report) -> None:
    for line in report.missed:
        terminal.say(line, "red")
    if left_out := report.left_out:
        first = left_out[0]
        why = first.problem or next(iter(first.trials[0].reasons.values()), "")
        terminal.say(f"left out: {plural(len(left_out), 'case')}, the first for: {why}", "yellow")
    if report.not_run:
        why = "the money is spent" if report.is_out_of_money else "the comparison was decided before"
        terminal.say(f"not run: {plural(report.not_run, 'case')}: {why}")
    cost = dollars(report.spent) if report.is_priced else f"{dollars(report.spent)} or more"
    terminal.say(f"cost: {cost}")
    if report.comparison is not None:
        say_comparison(terminal, report.comparison, of=report.version)
    elif report.verdict is Verdict.CANNOT_TELL:
        terminal.say("cannot tell: not every case has a score", "yellow")
    else:
        terminal.say(_word(report), _STYLES[report.verdict])


def say_comparison(terminal: Terminal, comparison: Comparison, *, of: str) -> None:
    """Write the verdict of a comparison, and what an undecided one needs."""
    if comparison.left_out:
        pairs = plural(comparison.left_out, "pair")
        terminal.say(f"left out of the comparison: {pairs} without two scores", "yellow")
    if comparison.are_same:
        terminal.say(f"better or equal: {of} and {comparison.against} are the same version", "green")
        return
    line = f"{comparison.verdict}: {of} against {comparison.against}"
    if comparison.verdict is Verdict.CANNOT_TELL:
        line += f"; {_needed(comparison)}"
    terminal.say(line, _STYLES[comparison.verdict])


def _needed(comparison: Comparison) -> str:
    """Return what an undecided comparison needs."""
    if comparison.more is None:
        return "the difference is too near to the margin to estimate how many cases it needs"
    cost = "" if comparison.more_usd is None else f", about {dollars(comparison.more_usd)}"
    return f"it needs about {plural(comparison.more, 'more case', 'more cases')}{cost}"


# Data ----------------------------------------------------------------------------------------------------


def report_data(report: Report) -> dict[str, Any]:
    """Return a report as JSON data."""
    return {
        "file": report.file,
        "blueprint": report.blueprint,
        "version": report.version,
        "verdict": _word(report),
        "missed": report.missed,
        "evaluators": {each.name: _evaluator_data(each) for each in report.evaluators},
        "comparison": None if report.comparison is None else comparison_data(report.comparison),
        "cases": [_case_data(each) for each in report.worst_first],
        "left_out": [each.case.name for each in report.left_out],
        "not_run": report.not_run,
        "cost_usd": report.spent if report.is_priced else None,
    }


def _word(report: Report) -> str:
    """Return the verdict of a report; of one without a comparison, whether the thresholds hold."""
    if report.comparison is not None or report.verdict is Verdict.CANNOT_TELL:
        return str(report.verdict)
    return "missed" if report.missed else "passed"


def _evaluator_data(each: EvaluatorReport) -> dict[str, Any]:
    names = ("count", "mean", "low", "high", "least")
    return {name: getattr(each, name) for name in names} | {"missed": list(each.missed)}


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON data."""
    return {
        "against": comparison.against,
        "verdict": str(comparison.verdict),
        "same_version": comparison.are_same,
        "left_out": comparison.left_out,
        "more_cases": comparison.more,
        "more_usd": comparison.more_usd,
        "evaluators": {
            name: _judgement_data(one) | {"means": list(comparison.means[name])}
            for name, one in comparison.by_evaluator.items()
        },
    }


def _judgement_data(judged: Judgement) -> dict[str, Any]:
    names = ("pairs", "mean", "low", "high", "more")
    return {"verdict": str(judged.verdict)} | {name: getattr(judged, name) for name in names}


def _case_data(row: CaseScores) -> dict[str, Any]:
    return {
        "name": row.case.name,
        "line": row.case.line,
        "scores": row.scores,
        "against": row.scores_against,
        "problem": row.problem or None,
        "runs": [_trial_data(each) for each in (*row.trials, *row.against)],
    }


def _trial_data(trial: Trial) -> dict[str, Any]:
    return {
        "run_id": trial.run_id,
        "version": trial.version,
        "scores": dict(trial.scores),
        "reasons": dict(trial.reasons),
        "failed": trial.is_failed,
        "recorded": trial.is_recorded,
    }


def github(report: Report) -> str:
    """Return GitHub workflow commands: an error at each case below its threshold, and the verdict."""
    lines = [
        annotation("error", report.file, row.case.line, f"case {row.case.name}", text)
        for row in report.cases
        if (text := _below(report, row))
    ]
    lines += [annotation("error", report.file, 1, "threshold", line) for line in report.missed]
    lines += [
        annotation("warning", report.file, row.case.line, f"case {row.case.name}", row.problem or "no score")
        for row in report.left_out
    ]
    kind = {Verdict.BETTER_OR_EQUAL: "notice", Verdict.WORSE: "error"}.get(report.verdict, "warning")
    text = _word(report) if report.comparison is None else _verdict_text(report.comparison)
    return "\n".join([*lines, annotation(kind, report.file, 1, "evaluation", text)])


def _verdict_text(comparison: Comparison) -> str:
    said = (f"{name} {one.mean:+.2f}" for name, one in comparison.by_evaluator.items())
    text = f"{comparison.verdict}: against {comparison.against} {', '.join(said)}".strip()
    return f"{text}; {_needed(comparison)}" if comparison.verdict is Verdict.CANNOT_TELL else text


def _below(report: Report, row: CaseScores) -> str:
    """Return which evaluators have scored a case below its threshold; empty for none."""
    start = f"case `{row.case.name}` has"
    return "; ".join(line for line in report.missed if start in line)


def junit(report: Report) -> str:
    """Return JUnit XML: a test case per case, and one for each evaluator and for the comparison."""
    suite = ET.Element("testsuite", name=f"cases of {report.file}")
    results: list[tuple[str, str, str]] = []
    for row in report.cases:
        kind = "skipped" if row.is_left_out else "failure"
        results.append((row.case.name, kind, row.problem if row.is_left_out else _below(report, row)))
    for each in report.evaluators:
        results.append((f"threshold of {each.name}", "failure", "; ".join(each.missed)))
    if report.comparison is not None:
        kind = "skipped" if report.comparison.verdict is Verdict.CANNOT_TELL else "failure"
        is_good = report.comparison.verdict is Verdict.BETTER_OR_EQUAL
        name = f"against {report.comparison.against}"
        results.append((name, kind, "" if is_good else _verdict_text(report.comparison)))
    for name, kind, text in results:
        case = ET.SubElement(suite, "testcase", classname=report.file, name=xml_text(name))
        if text:
            ET.SubElement(case, kind, message=xml_text(text))
    suite.set("tests", str(len(results)))
    for kind in ("failure", "skipped"):
        count = sum(bool(text) and one == kind for _, one, text in results)
        suite.set("failures" if kind == "failure" else kind, str(count))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def show_comparison(terminal: Terminal, comparison: Comparison, *, of: str, is_paired: bool) -> None:
    """Write a comparison of recorded scores."""
    columns = {
        "name": "EVALUATOR",
        "new": of,
        "old": comparison.against,
        "difference": "DIFFERENCE",
        "verdict": "VERDICT",
    }
    rows = []
    for name, judged in comparison.by_evaluator.items():
        new, old = (f"{mean:.2f} {formatting.bar(mean)}" for mean in comparison.means[name])
        rows.append({"name": name, "new": new, "old": old, **_judged(judged)})
    terminal.table(columns, rows)
    if not is_paired:
        terminal.say("the two sides have no case in common, so different runs were compared")
    say_comparison(terminal, comparison, of=of)
