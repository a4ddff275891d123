"""`flujo cache`: shows what the key of a cached step is made of, and why an answer was not found."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.inspection.cache_lookups import Explanation, Lookup
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Show why cached steps were executed.",
)


@app.callback()
def cache() -> None:
    """Show why cached steps were executed."""


@app.command()
def why(
    ctx: typer.Context,
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="A cached step, by name or by a path such as `each[1]/known` or `each.1/known`.",
            autocompletion=completion.steps,
        ),
    ],
    run: Annotated[
        str,
        typer.Option(
            "--run", metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs
        ),
    ] = "@last",
    as_json: options.AsJson = False,
) -> None:
    """Show why a run has found no answer of a cached step.

    It also shows what the key of the step was made of.
    """
    from flujo.cli.run_command import in_workspace

    async def explained(workspace: "Workspace") -> "Explanation":
        from flujo.services.inspection.cache_lookups import explain_lookup

        store = await workspace.store()
        return await explain_lookup(store, store.cache() if workspace.caches_in_state else None, run, step)

    invocation = Invocation.of(ctx)
    found = in_workspace(invocation, explained)
    if as_json:
        invocation.terminal.json(_data(found))
    else:
        _show(invocation.terminal, found)


def _data(found: "Explanation") -> dict[str, Any]:
    nearest = found.nearest
    return {
        **_lookup_data(found.lookup),
        "why": found.why,
        "parts": dict(found.lookup.parts),
        "nearest": nearest
        and {
            **_lookup_data(nearest),
            "parts": dict(nearest.parts),
            "stored": found.is_stored,
            "differs": found.lookup.differing(nearest),
        },
        "lookups": [_lookup_data(each) for each in found.all],
    }


def _lookup_data(lookup: "Lookup") -> dict[str, Any]:
    return {"run_id": lookup.run_id, "path": lookup.path, "result": lookup.result, "key": lookup.key}


def _show(terminal: "Terminal", found: "Explanation") -> None:
    from flujo.domain.paths import for_command_line, shown
    from flujo.services.inspection.formatting import short_id

    lookup, nearest = found.lookup, found.nearest
    terminal.data(f"{shown(lookup.path)}  run {short_id(lookup.run_id)}  {lookup.result}: {found.why}")
    if lookup.parts:
        columns = {"part": "PART", "now": "DIGEST"}
        if nearest is not None:
            columns |= {"then": "NEAREST", "differs": ""}
        terminal.table(columns, _rows(found))
    if nearest is not None:
        kept = {True: "its answer is stored", False: "its answer is not stored any more", None: ""}
        words = f"nearest: {shown(nearest.path)} in run {short_id(nearest.run_id)}"
        terminal.say("; ".join(filter(None, [words, kept[found.is_stored]])))
    if len(found.all) > 1:
        hits = sum(each.result == "hit" for each in found.all)
        terminal.say(f"the run looked {len(found.all)} times for an answer of this step: {hits} hits")
    terminal.next(
        command("flujo", "trace", short_id(lookup.run_id), for_command_line(lookup.path)),
        "show the step's input and output",
    )


def _rows(found: "Explanation") -> list[dict[str, str]]:
    parts = found.lookup.parts
    then = {} if found.nearest is None else found.nearest.parts
    return [
        {
            "part": name,
            "now": parts.get(name, "-"),
            "then": then.get(name, "-"),
            "differs": "differs" if found.nearest is not None and parts.get(name) != then.get(name) else "",
        }
        for name in dict.fromkeys([*parts, *then])
    ]
