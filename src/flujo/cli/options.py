"""Options that several commands share, each written once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flujo.domain.acts import Actor
    from flujo.services.project.inputs import Given

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Text = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="TEXT", help="The value as text; `-` reads it from stdin."),
]
File = Annotated[
    Path | None,
    typer.Option("--input-file", metavar="FILE", help="The value in a file: .json, .yaml, or text."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", "-f", metavar="K=V", help="One field of the value; repeat it."),
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="K=V", help="Metadata of the run; repeat it.")
]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who acts, for the run's acts.  [default: your user name]"),
]
PausedOk = Annotated[bool, typer.Option("--paused-ok", help="Exit with 0 when the run waits for a human.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many to list at most.")]


def actor(by: str | None) -> "Actor":
    """Return who acts through the command line."""
    from flujo.domain.acts import Via
    from flujo.services.project import system

    return system.actor(by, Via.CLI)


def given(text: str | None, file: Path | None, fields: list[str] | None) -> "Given":
    """Return what the user gave; a pipe is read only when `-` asks for it or nothing else is given."""
    from flujo.services.project.inputs import Given

    if text == "-":
        return Given(text=_piped() or "", file=file, fields=fields or ())
    alone = text is None and file is None and not fields
    return Given(text=text, file=file, fields=fields or (), piped=(_piped() or None) if alone else None)


def _piped() -> str | None:
    """Return what stands in stdin, None at a terminal or where there is none."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return None
    from flujo.exceptions import InputRejected

    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputRejected(f"stdin is not UTF-8 text: byte {error.start}") from None
