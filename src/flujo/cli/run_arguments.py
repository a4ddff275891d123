"""The arguments of commands that name a run or a part of it; the shell completes them."""

from typing import Annotated

import typer

from flujo.cli import completion

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
]
RunOrFile = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run id, its prefix, @last, or a file of `flujo export`.",
        autocompletion=completion.runs,
    ),
]
