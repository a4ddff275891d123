"""The command lines in files of `deploy/`, parsed by the command line of Flujo, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flujo import settings
from flujo.cli.app import app
from flujo.serve import server
from flujo.services.project.inputs import read_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

DEPLOY = Path(__file__).parents[2] / "deploy"

VARIABLES = {*settings.ENVIRONMENT, settings.ENV_VARIABLE, settings.TRUST_VARIABLE, settings.LOG_VARIABLE}
"""The variables of Flujo that files may set."""


def parsed(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the name of a command and its options; an unknown word is an error of click."""
    with typer.main.get_command(app).make_context("flujo", list(words)) as ctx:
        group: Any = ctx.command
        name, command, rest = group.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        with command.make_context(name, rest, parent=ctx) as inner:
            return name, dict(inner.params)


def most_to_stop_s(words: Sequence[str]) -> float:
    """Return how many seconds a command may take after SIGTERM before it releases what has not ended."""
    name, options = parsed(words)
    return server._GRACE_S if name == "serve" else read_duration(options["grace"], option="--grace")
