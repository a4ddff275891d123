"""`flujo evals run`, `compare` and `add`: files of cases, versions compared by scores, cases made of runs."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.cli.run_command import drive, in_workspace
from flujo.domain.commands import command
from flujo.domain.gate import MARGIN
from flujo.domain.wording import plural
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.progress import Progress
    from flujo.cli.terminal import Terminal
    from flujo.domain.evaluations import Evaluation
    from flujo.services.cases.collecting import Added
    from flujo.services.cases.files import Cases
    from flujo.services.cases.recorded import Recorded
    from flujo.services.cases.reports import Comparison, Report
    from flujo.services.cases.trials import Trial
    from flujo.services.cases.versions import Version
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace


class Format(StrEnum):
    """The formats of a report."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"


def run(
    ctx: typer.Context,
    named: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A file of cases, or the name of one in evals/; with --cases, a blueprint.",
            show_default=False,
        ),
    ],
    cases: Annotated[
        Path | None,
        typer.Option("--cases", metavar="FILE", help="The file of cases, for the blueprint NAME."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="VERSION",
            help="Compare with a git revision, or with recorded scores: a lockfile, lock:DIGEST, FROM..TO, "
            "or conditions as for `evals add --from`.",
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", metavar="USD", help="Stop before this amount is spent."),
    ] = None,
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", min=1, max=1000, help="How many cases run at once.")
    ] = 8,
    format_: Annotated[Format, typer.Option("--format", help="The format of the report.")] = Format.TEXT,
) -> None:
    """Run the cases of a file and score their outputs.

    Completed cases are not run again.

    Exit code 1: a threshold is missed, or the version is worse. 9: the scores prove neither.
    """
    if max_cost is not None and not 0 < max_cost < float("inf"):
        raise SettingsError(
            f"--max-cost {max_cost:g} is not an amount above 0", hint="write `--max-cost 0.50`"
        )
    wanted = _Wanted(named, cases, against, max_cost, max_concurrency)
    _show(ctx, _report(ctx, wanted, format_), format_)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The arguments of `run`."""

    named: str
    cases: Path | None
    against: str | None
    max_cost: float | None
    max_concurrency: int


def _report(ctx: typer.Context, wanted: _Wanted, format_: Format) -> "Report":
    """Run the cases; each is written to stderr where the report is a text."""
    from flujo.cli import evals_rendering as rendering

    invocation = Invocation.of(ctx)

    def on_trial(trial: "Trial") -> None:
        if format_ is Format.TEXT:
            invocation.terminal.say(rendering.trial_line(trial), *(("red",) if trial.is_failed else ()))

    async def work(workspace: "Workspace", _: "Progress", stop: "Stop") -> "Report":
        from flujo.services.cases.experiments import Wanted, run_cases
        from flujo.services.cases.files import load_cases
        from flujo.services.cases.versions import on_disk

        loaded = load_cases(workspace.project, Path.cwd(), wanted.named, wanted.cases)
        version = on_disk(workspace, loaded.blueprint)
        asked = Wanted(
            version=version,
            against=None if wanted.against is None else await _other(workspace, loaded, wanted.against),
            max_cost=wanted.max_cost,
            max_concurrency=wanted.max_concurrency,
        )
        return await run_cases(
            workspace, loaded, asked, actor=options.actor(None), stop=stop, on_trial=on_trial
        )

    def say_stopped(terminal: "Terminal") -> None:
        terminal.say("stopped; completed cases are kept", "yellow")
        again = options.words(ctx, without=["named"])
        terminal.next(command("flujo", "evals", "run", wanted.named, *again))

    report: Report = drive(invocation, work, creates=True, say_stopped=say_stopped)
    return report


def _show(ctx: typer.Context, report: "Report", format_: Format) -> None:
    """Write the report to stdout.

    Raises:
        Exit: always, with the code of the verdict.
    """
    from flujo.cli import evals_rendering as rendering

    terminal = Invocation.of(ctx).terminal
    if format_ is Format.JSON:
        terminal.json(rendering.report_data(report))
    elif format_ is Format.GITHUB:
        terminal.data(rendering.github(report))
    elif format_ is Format.JUNIT:
        terminal.data(rendering.junit(report))
    else:
        rendering.show_report(terminal, report)
    raise typer.Exit(rendering.exit_code(report.verdict))


async def _other(workspace: "Workspace", cases: "Cases", against: str) -> "Version | Recorded":
    """Return the version that `--against` means: that of a git revision, or scores of recorded runs."""
    from flujo.services.cases.recorded import recorded, with_inputs_of
    from flujo.services.cases.run_sets import is_conditions, is_set, query_of, set_of
    from flujo.services.cases.versions import at_revision

    if is_conditions(against):
        query = query_of(against, option="--against")
    elif is_set(against):
        query = set_of(against, Path.cwd())
    else:
        return at_revision(workspace, cases.blueprint, against)
    store = await workspace.store()
    found = await recorded(store, query, against)
    if is_conditions(against):  # they choose live traffic, as for `evals add`, and not runs of cases
        found = replace(found, cases={})
    return await with_inputs_of(store, found, cases)


def compare(
    ctx: typer.Context,
    new: Annotated[
        str,
        typer.Argument(
            metavar="NEW", help="The digest of a lock, a lockfile, or a range FROM..TO.", show_default=False
        ),
    ],
    old: Annotated[str, typer.Argument(metavar="OLD", help="What to compare it with.", show_default=False)],
    blueprint: Annotated[
        str | None,
        typer.Option(help="Only scores of this blueprint.", autocompletion=completion.blueprints),
    ] = None,
    evaluator: Annotated[str | None, typer.Option(help="Only scores of this evaluator.")] = None,
    margin: Annotated[
        float,
        typer.Option("--margin", min=0.0, max=0.99, help="The loss of mean score that counts as equal."),
    ] = MARGIN,
    as_json: options.AsJson = False,
) -> None:
    """Compare recorded scores by lock or by time; runs nothing.

    Exit code 1: NEW is worse. 9: the scores prove neither.
    """
    from flujo.cli import evals_rendering as rendering

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> "tuple[Comparison, bool]":
        from flujo.services.cases.recorded import compare_recorded, recorded
        from flujo.services.cases.run_sets import set_of

        store = await workspace.store()
        queries = [
            (set_of(each, Path.cwd(), blueprint=blueprint, evaluator=evaluator), each) for each in (new, old)
        ]
        sides = [await recorded(store, query, each) for query, each in queries]
        return compare_recorded(sides[0], sides[1], margin)

    comparison, is_paired = in_workspace(invocation, work)
    terminal = invocation.terminal
    if as_json:
        terminal.json({"version": new, **rendering.comparison_data(comparison), "paired": is_paired})
    else:
        rendering.show_comparison(terminal, comparison, of=new, is_paired=is_paired)
    raise typer.Exit(rendering.exit_code(comparison.verdict))


def is_shown_as_set(invocation: Invocation, word: str, *, as_json: bool) -> bool:
    """Show the means of a set of runs if a word means one, and return whether it does."""
    from flujo.cli.evals_rendering import scores_data, show_scores
    from flujo.services.cases.run_sets import is_set, set_of
    from flujo.services.scoring.means import score_reports

    if not is_set(word):
        return False
    query = set_of(word, Path.cwd())

    async def found(workspace: "Workspace") -> "Sequence[Evaluation]":
        return await (await workspace.store()).evaluations(query)

    reports = score_reports(in_workspace(invocation, found))
    if as_json:
        invocation.terminal.json(scores_data(reports))
    elif reports:
        show_scores(invocation.terminal, reports)
    else:
        invocation.terminal.say(f"there are no scores of {word}")
    return True


def add(
    ctx: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run id, its prefix, or @last.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CONDITIONS",
            help="All runs with such scores, without expected outputs: blueprint=, evaluator=, score<.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="The file of cases.  [default: evals/BLUEPRINT.yaml]"),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The name of the case.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1000, help="With --from: how many runs at most.")
    ] = 20,
) -> None:
    """Make cases of completed runs, and add them to a file of cases.

    Known secrets are masked.
    """
    invocation = Invocation.of(ctx)
    if (run is None) == (conditions is None) or (name is not None and run is None):
        raise SettingsError(
            "name one run, or choose runs by their scores with `--from`",
            hint="write `flujo evals add RUN`, or `flujo evals add --from 'blueprint=sort score<0.5'`",
        )

    async def work(workspace: "Workspace") -> "list[Added]":
        from flujo.services.cases.collecting import Conditions, collect

        chosen = run if run is not None else Conditions(conditions or "", limit)
        return await collect(workspace.project, await workspace.store(), chosen, to, name)

    _show_added(invocation.terminal, in_workspace(invocation, work), has_expected=run is not None)


def _show_added(terminal: "Terminal", done: "Sequence[Added]", *, has_expected: bool) -> None:
    """Write the number of added cases of each file."""
    if not done:
        terminal.say("no completed run has such a score")
    for added in done:
        path = added.path
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        known = f"; {plural(added.known, 'case')} already there" if added.known else ""
        terminal.say(f"added {plural(len(added.names), 'case')} to {shown}{known}", "green")
        if not has_expected and added.names:
            terminal.say("write what each of them should return under `expected`")
        terminal.next(command("flujo", "evals", "run", str(shown)))
