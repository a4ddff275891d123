"""Options that several commands share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.domain.text import NotUtf8, decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.acts import Actor
    from flujo.services.checks.validation import Report
    from flujo.services.project.inputs import Given
    from flujo.services.project.project import Project

AsJson = Annotated[
    bool, typer.Option("--json", help="Write JSON to stdout; `--json=FIELDS`: only these fields, as a,b.")
]
Events = Annotated[
    bool,
    typer.Option(
        "--events", help="Write each event of the run to stdout as a line of JSON, the result as the last."
    ),
]
Text = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="TEXT", help="The value as text; `-` reads stdin."),
]
File = Annotated[
    Path | None,
    typer.Option("--input-file", metavar="FILE", help="A file with the value: .json, .yaml or plain text."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", "-f", metavar="K=V", help="One field of the value; repeatable."),
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="K=V", help="Metadata of the run; repeatable.")
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="CONDITION",
        help="List only runs with this metadata: K=V, K>=N, nested K.K=V; repeatable.",
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="CONDITIONS",
        help="All runs that match, instead of RUN: blueprint=, status=, user=, pause=, since=, until=, "
        "metadata.KEY=.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not wait for a confirmation of `--select`.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the runs that `--select` matches; change nothing.")
]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="The name recorded for this act.  [default: your user name]"),
]
PausedOk = Annotated[
    bool,
    typer.Option(
        "--paused-ok", help="When the run is paused or waits, exit with 0, and write its question to stdout."
    ),
]
Wait = Annotated[
    bool,
    typer.Option("--wait", help="Wait here for the end of each `sleep` and for each event, however long."),
]
Imports = Annotated[
    bool, typer.Option("--import", help="Also import the callables, for the checks that need their values.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number to list.")]


def actor(by: str | None) -> "Actor":
    """Return the actor of this command: `by`, or the user name."""
    from flujo.domain.acts import Via
    from flujo.services.project import system

    return system.actor(by, Via.CLI)


def words(ctx: typer.Context, *, without: "Sequence[str]") -> list[str]:
    """Return the options of this command as they were typed, apart from some, in the order of its help."""
    found: list[str] = []
    for option in ctx.command.params:
        value = ctx.params.get(option.name or "")
        if option.name in without or value in (None, option.default, [], ()):
            continue
        name = max(option.opts, key=len)
        if isinstance(value, bool):
            found.append(name)
        else:
            for each in value if isinstance(value, list | tuple) else [value]:
                found += [name, str(each)]
    return found


def given(text: str | None, file: Path | None, fields: list[str] | None) -> "Given":
    """Return the input that the options name. Stdin is read only for `-` or without any of them."""
    from flujo.services.project.inputs import Given

    if text == "-":
        return Given(text=piped() or "", file=file, fields=fields or ())
    alone = text is None and file is None and not fields
    return Given(text=text, file=file, fields=fields or (), piped=(piped() or None) if alone else None)


def piped() -> str | None:
    """Return the text on stdin, or None at a terminal or without stdin."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return None
    from flujo.exceptions import InputRejected

    try:
        return decoded(sys.stdin.buffer.read()).replace("\r\n", "\n")
    except OSError as error:
        raise InputRejected(f"stdin cannot be read: {error.strerror}") from None
    except NotUtf8 as error:
        raise InputRejected(f"stdin: {error}", hint=error.hint) from None


def checked(project: "Project", paths: "Sequence[str]", *, imports: bool) -> "list[Report]":
    """Return the findings of blueprints; with `imports`, also those that need the callables themselves."""
    if imports:
        from flujo.services.inspection.imported_checks import check_with_imports

        return check_with_imports(project, paths)
    from flujo.services.checks.validation import check

    return check(project, paths)
