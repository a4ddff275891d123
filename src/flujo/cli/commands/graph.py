"""`flujo graph`: draws a blueprint; imports none of its callables."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flujo.cli import completion
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Format(StrEnum):
    """The output format."""

    TREE = "tree"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


@app.command()
def graph(
    ctx: typer.Context,
    blueprint: Annotated[
        str,
        typer.Argument(
            metavar="BLUEPRINT", help="A blueprint, by path or name.", autocompletion=completion.blueprints
        ),
    ],
    form: Annotated[
        Format, typer.Option("--format", help="Output format; svg needs Graphviz.")
    ] = Format.TREE,
    unfold: Annotated[bool, typer.Option("--unfold", help="Expand imported blueprints.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the drawing to FILE.", show_default=False),
    ] = None,
) -> None:
    """Draw a blueprint."""
    from flujo.services.checks.validation import compiled_or_refused
    from flujo.services.inspection.tool_effects import declared_effects, notes

    invocation = Invocation.of(ctx)
    project, terminal = invocation.project, invocation.terminal
    pipeline = compiled_or_refused(project, project.locate(blueprint, invocation.folder))
    about = partial(notes, effects=declared_effects(project))
    if form is Format.TREE:
        if output is not None:
            raise typer.BadParameter(
                "format tree cannot be written to a file; use --format mermaid, dot or svg",
                param_hint="--output",
            )
        from flujo.cli.outline import show_outline

        show_outline(terminal, pipeline, unfold=unfold, notes=about)
        terminal.next(
            command("flujo", "graph", blueprint, "--format", "mermaid"), "draw it for a pull request"
        )
        return
    from flujo.services.inspection.graph_formats import draw

    drawing = draw(pipeline, form.value, unfold=unfold, notes=about)
    if output is None:
        terminal.data(drawing)
    else:
        terminal.save(drawing, invocation.folder, output)
