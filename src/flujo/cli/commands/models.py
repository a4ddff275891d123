"""`flujo models`: lists and downloads local models, which need no API key and no network."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import size

if TYPE_CHECKING:
    from flujo.services.admin.local_models import ModelStatus

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="List or download local models."
)


@app.command("list")
def list_(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """List the local models and whether they are downloaded."""
    from flujo.services.admin.local_models import list_models

    invocation = Invocation.of(ctx)
    found = list_models(invocation.project.settings.cache_home)
    if as_json:
        invocation.terminal.json([{**asdict(each), "path": str(each.path)} for each in found])
        return
    rows = [
        {
            "name": f"local:{each.name}",
            "about": each.about,
            "size": _size(each),
            "license": each.license,
            "here": "yes" if each.present else "no",
        }
        for each in found
    ]
    columns = {"name": "MODEL", "size": "SIZE", "license": "LICENSE", "here": "DOWNLOADED", "about": "ABOUT"}
    invocation.terminal.table(columns, rows)
    missing = next((each.name for each in found if not each.present), None)
    if missing:
        invocation.terminal.next(
            command("flujo", "models", "pull", missing), "download it; a run that needs it downloads it too"
        )


def _size(model: "ModelStatus") -> str:
    if model.present:
        return size(model.size)
    return f"{size(model.size)} ({size(model.download_size)} to download)"


@app.command()
def pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name, for instance smollm2.")],
    as_json: options.AsJson = False,
) -> None:
    """Download a model into the user's cache, and verify it."""
    from flujo.cli.download import Download
    from flujo.services.admin.local_models import pull as fetch

    invocation = Invocation.of(ctx)
    with Download(invocation.terminal, name) as download:
        path = fetch(name, invocation.project.settings.cache_home, download)
    if as_json:
        invocation.terminal.json({"name": name, "path": str(path)})
    else:
        invocation.terminal.data(str(path))
