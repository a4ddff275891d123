"""`flujo validate`: every finding of every blueprint, without running or importing what they name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completing
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.services.checking import Report

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Format(StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


@app.command()
def validate(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Blueprints, by path or name; none: all of the project.",
            show_default=False,
            autocompletion=completing.blueprints,
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How findings are written.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Check blueprints without running anything."""
    from flujo.services.checking import check

    invocation = Invocation.of(ctx)
    project, terminal = invocation.project, invocation.terminal
    given = [p for text in paths or () for p in project.locate_all(text, invocation.folder)]
    chosen = given if paths else project.blueprint_paths()
    reports = check(project, chosen)
    if as_json or form is Format.JSON:
        _write_json(reports, terminal)
    elif form is Format.GITHUB:
        _write_github(reports, terminal)
    else:
        _write_text(reports, terminal)
    if not all(report.is_valid for report in reports):
        raise typer.Exit(ExitCode.BLUEPRINT)


def _write_text(reports: Sequence[Report], terminal: Terminal) -> None:
    from flujo.cli.findings import painted, summary
    from flujo.cli.words import plural
    from flujo.services.checking import rendered

    findings = [finding for report in reports for finding in report.diagnostics]
    shown = [
        painted(rendered(finding, report.sources), terminal, to=terminal.out)
        for report in reports
        for finding in report.diagnostics
    ]
    if shown:
        terminal.data("\n\n".join(shown))
    if not reports:
        terminal.say("there are no blueprints here")
        terminal.next("flujo init", "writes a project with a first one")
        return
    checked = plural(len(reports), "blueprint")
    good = sum(report.is_valid for report in reports)
    if good == len(reports):
        notes = f" ({summary(findings)})" if findings else ""
        terminal.say(f"{checked} checked: valid{notes}")
        return
    terminal.say(f"{checked} checked: {summary(findings)}")
    first = next(f for f in findings if f.is_error)
    terminal.next(f"flujo explain {first.code}", "says what the rule is for")


def _write_json(reports: Sequence[Report], terminal: Terminal) -> None:
    from flujo.services.checking import as_data

    terminal.json(
        [
            {"path": r.path, "valid": r.is_valid, "diagnostics": [as_data(found) for found in r.diagnostics]}
            for r in reports
        ]
    )


def _write_github(reports: Sequence[Report], terminal: Terminal) -> None:
    from flujo.cli.findings import github

    for report in reports:
        for finding in report.diagnostics:
            terminal.data(github(finding))
