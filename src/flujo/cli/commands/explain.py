"""`flujo explain CODE`: what a rule finds, why it matters, what to write instead; or what an error means."""

from __future__ import annotations

from typing import Annotated

import typer

from flujo.cli.invocation import Invocation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def explain(
    ctx: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(metavar="CODE", help="For instance FLJ204; none: list all codes.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Explain an error or rule by its code."""
    from flujo.services.checking import codes, explained

    terminal = Invocation.of(ctx).terminal
    if code is None:
        listed = [{"code": known, "title": title} for known, title in codes().items()]
        if as_json:
            terminal.json(listed)
        else:
            terminal.table({"code": "CODE", "title": "WHAT"}, listed)
    elif as_json:
        terminal.json({"code": code.upper(), "explanation": explained(code)})
    else:
        terminal.data(explained(code).rstrip())
