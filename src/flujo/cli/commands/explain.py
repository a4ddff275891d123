"""`flujo explain CODE | BLUEPRINT`: explains a rule, an error or a blueprint in plain English."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_CODE = re.compile(r"FLJ\d+", re.IGNORECASE)


@app.command()
def explain(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE|BLUEPRINT",
            help="A code such as FLJ204, or a blueprint by path or name. Without it, list all codes.",
            show_default=False,
            autocompletion=completion.codes_and_blueprints,
        ),
    ] = None,
    imports: options.Imports = False,
    as_json: options.AsJson = False,
) -> None:
    """Explain an error code or a blueprint."""
    from flujo.services.checks.validation import codes, explain_rule, is_rule

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    if what is None:
        listed = [{"code": known, "title": title} for known, title in codes().items()]
        if as_json:
            terminal.json(listed)
        else:
            terminal.table({"code": "CODE", "title": "TITLE"}, listed)
    elif _CODE.fullmatch(what) or is_rule(what):
        _write(terminal, {"code": what.upper()}, "explanation", explain_rule(what), as_json=as_json)
    else:
        _explain_blueprint(invocation, what, imports=imports, as_json=as_json)


def _explain_blueprint(invocation: Invocation, blueprint: str, *, imports: bool, as_json: bool) -> None:
    from flujo.services.checks.validation import compiled_or_refused
    from flujo.services.inspection.explanation import story

    project = invocation.project
    path = project.locate(blueprint, invocation.folder)
    pipeline = compiled_or_refused(project, path)
    findings = options.checked(project, [path], imports=imports)[0].diagnostics
    text = story(project, path, pipeline, findings)
    _write(invocation.terminal, {"blueprint": path}, "story", text, as_json=as_json)
    if not as_json:
        invocation.terminal.next(command("flujo", "graph", blueprint), "draw the blueprint")


def _write(terminal: "Terminal", of: dict[str, str], key: str, text: str, *, as_json: bool) -> None:
    if as_json:
        terminal.json({**of, key: text})
    else:
        terminal.data(text.rstrip())
