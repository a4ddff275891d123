"""`flujo evals run`, `compare` and `add`: files of cases, versions compared by scores, cases made of runs."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.gate import MARGIN
from flujo.domain.wording import plural
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from flujo.cli.progress import Progress
    from flujo.cli.terminal import Terminal
    from flujo.domain.evaluations import EvaluationQuery
    from flujo.domain.run import RunRecord
    from flujo.services.cases.collecting import Added
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
            help="Compare with a git revision, or with recorded scores: a lockfile, or lock:DIGEST.",
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
    """Run the cases of a file and score their outputs; completed cases are not run again.

    Exit code 1: a threshold is missed, or the version is worse. 9: the scores prove neither.
    """
    from flujo.cli import evals_rendering as rendering
    from flujo.cli.run_command import drive

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    if max_cost is not None and not 0 < max_cost < float("inf"):
        raise SettingsError(
            f"--max-cost {max_cost:g} is not an amount above 0", hint="write `--max-cost 0.50`"
        )

    def on_trial(trial: "Trial") -> None:
        if format_ is Format.TEXT:
            terminal.say(rendering.trial_line(trial), *(("red",) if trial.is_failed else ()))

    async def work(workspace: "Workspace", _: "Progress", stop: "Stop") -> "Report":
        from flujo.services.cases.experiments import Wanted, run_cases
        from flujo.services.cases.files import load_cases
        from flujo.services.cases.versions import on_disk

        loaded = load_cases(workspace.project, Path.cwd(), named, cases)
        version = on_disk(workspace, loaded.blueprint)
        wanted = Wanted(
            version=version,
            against=None if against is None else await _other(workspace, loaded.blueprint, against),
            max_cost=max_cost,
            max_concurrency=max_concurrency,
        )
        return await run_cases(
            workspace, loaded, wanted, actor=options.actor(None), stop=stop, on_trial=on_trial
        )

    def say_stopped(terminal: "Terminal") -> None:
        terminal.say("stopped; completed cases are kept", "yellow")
        terminal.next(command("flujo", "evals", "run", named, *options.words(ctx, without=["named"])))

    report = drive(invocation, work, creates=True, say_stopped=say_stopped)
    if format_ is Format.JSON:
        terminal.json(rendering.report_data(report))
    elif format_ is Format.GITHUB:
        terminal.data(rendering.github(report))
    elif format_ is Format.JUNIT:
        terminal.data(rendering.junit(report))
    else:
        rendering.show_report(terminal, report)
    raise typer.Exit(rendering.exit_code(report.verdict))


async def _other(workspace: "Workspace", blueprint: str, against: str) -> "Version | Recorded":
    """Return the version that `--against` means: that of a git revision, or recorded scores of a lock."""
    from flujo.services.cases.recorded import lock_of, recorded
    from flujo.services.cases.versions import at_revision

    digest = lock_of(against, Path.cwd())
    if digest is None:
        return at_revision(workspace, blueprint, against)
    from flujo.domain.evaluations import EvaluationQuery

    return await recorded(await workspace.store(), EvaluationQuery(lock=digest), against)


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
    from flujo.cli.run_command import in_workspace

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> "tuple[Comparison, bool]":
        from flujo.services.cases.recorded import compare_recorded, recorded

        store = await workspace.store()
        sides = [await recorded(store, _scores(each, blueprint, evaluator), each) for each in (new, old)]
        return compare_recorded(sides[0], sides[1], margin)

    comparison, is_paired = in_workspace(invocation, work)
    terminal = invocation.terminal
    if as_json:
        terminal.json({"version": new, **rendering.comparison_data(comparison), "paired": is_paired})
    else:
        rendering.show_comparison(terminal, comparison, of=new, is_paired=is_paired)
    raise typer.Exit(rendering.exit_code(comparison.verdict))


def _scores(side: str, blueprint: str | None, evaluator: str | None) -> "EvaluationQuery":
    """Return the query of one side of a comparison.

    Raises:
        SettingsError: it is neither a lock nor a range of time.
    """
    from flujo.domain.evaluations import EvaluationQuery
    from flujo.services.cases.recorded import LOCK, lock_of

    facts: dict[str, Any] = {"pipeline": blueprint, "evaluator": evaluator}
    if ".." in side:
        since, _, until = side.partition("..")
        return EvaluationQuery(since=_moment(since), until=_moment(until), **facts)
    digest = lock_of(side if side.startswith(LOCK) or side.endswith(".lock") else LOCK + side, Path.cwd())
    return EvaluationQuery(lock=digest, **facts)


def _moment(text: str) -> float | None:
    """Return a time in seconds since the epoch; None for an empty text, an open end."""
    from flujo.services.inspection.tasks import seconds_of
    from flujo.services.project.inputs import read_moment
    from flujo.services.project.system import SystemClock

    moment = read_moment(text, option="the range of time") if text else None
    return seconds_of(moment, "since", SystemClock())


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
    """Make cases of completed runs, and add them to a file of cases; known secrets are masked."""
    from flujo.cli.run_command import in_workspace

    invocation = Invocation.of(ctx)
    if (run is None) == (conditions is None) or (name is not None and run is None):
        raise SettingsError(
            "name one run, or choose runs by their scores with `--from`",
            hint="write `flujo evals add RUN`, or `flujo evals add --from 'blueprint=sort score<0.5'`",
        )

    async def work(workspace: "Workspace") -> "list[tuple[Path, Added]]":
        from flujo.services.cases.collecting import add_cases, case_of, scored_runs

        store = await workspace.store()
        if run is not None:
            found: list[RunRecord] = [await store.find(run)]
        else:
            found = await scored_runs(store, conditions or "", limit)
        project = workspace.project
        by_blueprint: dict[str, list[dict[str, Any]]] = {}
        for each in found:
            case = case_of(each, name=name, has_expected=run is not None)
            by_blueprint.setdefault(each.pipeline, []).append(case)
        if to is not None and len(by_blueprint) > 1:
            raise SettingsError(
                f"the runs are of {plural(len(by_blueprint), 'blueprint')}, and a file of cases is of one",
                hint="add `blueprint=NAME` to `--from`, or leave `--to` out",
            )
        done = []
        for blueprint, cases in by_blueprint.items():
            path = to if to is not None else project.root / "evals" / f"{blueprint}.yaml"
            done.append((path, add_cases(project, path, blueprint, cases)))
        return done

    done = in_workspace(invocation, work)
    terminal = invocation.terminal
    if not done:
        terminal.say("no completed run has such a score")
    for path, added in done:
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        known = f"; {plural(added.known, 'case')} already there" if added.known else ""
        terminal.say(f"added {plural(len(added.names), 'case')} to {shown}{known}", "green")
        if run is None and added.names:
            terminal.say("write what each of them should return under `expected`")
        terminal.next(command("flujo", "evals", "run", str(shown)))
