"""`flujo validate`: reports all findings of blueprints; runs nothing and imports no callables."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.services.checks.validation import Report
    from flujo.services.project.project import Project

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Format(StrEnum):
    """The output format."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"
    JUNIT = "junit"


@app.command()
def validate(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Blueprints, by path or name. [default: the whole project]",
            show_default=False,
            autocompletion=completion.blueprints,
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Apply safe fixes, then validate.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what --fix would change; write nothing.")
    ] = False,
    imports: options.Imports = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also list what could not be checked.")
    ] = False,
) -> None:
    """Check blueprints without running anything."""
    invocation = Invocation.of(ctx)
    project, terminal = invocation.project, invocation.terminal
    given = [p for text in paths or () for p in project.locate_all(text, invocation.folder, agents=True)]
    chosen = given if paths else project.yaml_paths()
    if diff:
        _show_changes(project, chosen, terminal)
    elif fix:
        _write_changes(project, chosen, terminal)
    reports = options.checked(project, chosen, imports=imports)
    if not diff:
        _write(reports, terminal, Format.JSON if as_json else form, verbose=verbose)
    if not all(report.is_valid for report in reports):
        raise typer.Exit(ExitCode.BLUEPRINT)


def _show_changes(project: Project, chosen: Sequence[str], terminal: Terminal) -> None:
    from difflib import unified_diff

    from flujo.services.checks.validation import fix, without_secrets

    changed = fix(project, chosen)
    for path, texts in changed.items():
        before, after = (without_secrets(text).splitlines() for text in texts)
        lines = unified_diff(before, after, path, path, lineterm="")
        terminal.data("\n".join(lines))
    if changed:
        terminal.say(f"{plural(len(changed), 'file')} would change")
        terminal.next(command("flujo", "validate", "--fix"), "apply the fixes")
    else:
        terminal.say("nothing to fix")


def _write_changes(project: Project, chosen: Sequence[str], terminal: Terminal) -> None:
    from flujo.services.checks.validation import fix
    from flujo.services.project.project import replace_file

    for path, (_, text) in fix(project, chosen).items():
        replace_file(project.root / path, text)
        terminal.say(f"fixed {path}")


def _write(reports: Sequence[Report], terminal: Terminal, form: Format, *, verbose: bool) -> None:
    from flujo.cli import report_formats

    match form:
        case Format.JSON:
            terminal.json(report_formats.json_data(reports))
        case Format.GITHUB:
            annotations = report_formats.github(reports)
            if annotations:
                terminal.data(annotations)
        case Format.SARIF:
            terminal.json(report_formats.sarif(reports))
        case Format.JUNIT:
            terminal.data(report_formats.junit(reports))
        case Format.TEXT:
            _write_text(reports, terminal, verbose=verbose)


def _write_text(reports: Sequence[Report], terminal: Terminal, *, verbose: bool) -> None:
    from flujo.cli.diagnostic_rendering import painted, summary
    from flujo.services.checks.validation import rendered

    findings = [finding for report in reports for finding in report.diagnostics]
    shown = [
        painted(rendered(finding, report.sources), terminal, to=terminal.out)
        for report in reports
        for finding in report.diagnostics
        if verbose or finding.severity != "info"
    ]
    if shown:
        terminal.data("\n\n".join(shown))
    if not reports:
        terminal.say("no blueprints found")
        terminal.next(command("flujo", "init"), "create a project with a first blueprint")
        return
    agents = sum(report.holds_agents for report in reports)
    blueprints = [plural(len(reports) - agents, "blueprint")] if agents < len(reports) else []
    checked = " and ".join([*blueprints, *([plural(agents, "agent file")] if agents else [])])
    good = sum(report.is_valid for report in reports)
    if good == len(reports):
        notes = f" ({summary(findings)})" if findings else ""
        terminal.say(f"{checked} checked: valid{notes}")
        if not verbose and any(found.severity == "info" for found in findings):
            terminal.next(command("flujo", "validate", "-v"), "show what could not be checked")
        return
    terminal.say(f"{checked} checked: {summary(findings)}")
    if any(found.fix is not None for found in findings):
        terminal.next(command("flujo", "validate", "--fix"), "apply safe fixes; `--diff` previews them")
    first = next(f for f in findings if f.is_error)
    terminal.next(command("flujo", "explain", first.code), "explain the rule")
