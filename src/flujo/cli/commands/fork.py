"""`flujo fork RUN --at PATH`: a new run that is the same before PATH, and live after it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.text import NotUtf8, decoded
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.progress import Progress
    from flujo.domain.pipeline import Pipeline
    from flujo.services.replay.fork import ForkedRun
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.forks import Fork
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_FIELD = "context."


@app.command()
def fork(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
    ],
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="PATH",
            help="The step, iteration, turn or tool call to begin at, such as `draft.1/write`.",
            show_default=False,
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="context.K=V", help="Another value of the context from PATH on; repeatable."
        ),
    ] = None,
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    answers: Annotated[
        list[str] | None,
        typer.Option("--answer", metavar="PATH=V", help="The answer to a question; repeatable."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="AGENT=@FILE",
            help="Other instructions of an agent: a file, or the text itself; repeatable.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="AGENT=MODEL", help="Another model of an agent; repeatable."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many forks to start.")] = 1,
    live_effects: Annotated[
        bool,
        typer.Option("--live-effects", help="Make calls with effects instead of taking recorded results."),
    ] = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Run again from a step, with another prompt, model or value."""
    from flujo.cli.fork_rendering import facts_data, fork_data, outcomes_data, say_stubbed, show_outcomes
    from flujo.cli.run_command import conclude, drive
    from flujo.services.project import inputs
    from flujo.services.replay.fork import fork_runs, outcomes
    from flujo.services.runs.forks import UNCHANGED, Fork

    invocation = Invocation.of(ctx)
    forks: list[ForkedRun] = []

    def wanted(pipeline: "Pipeline") -> "Fork":
        has_input = text is not None or file is not None or bool(fields)
        schema, given = pipeline.input_schema, options.given(text, file, fields) if has_input else None
        return Fork(
            at=at,
            input=UNCHANGED if given is None else inputs.read_input(schema, given).value,
            context=inputs.read_fields(_fields(changes or ()), pipeline.context_schema, option="--set"),
            answers={
                name: inputs.json_or_text(value)
                for name, value in inputs.read_overrides(answers or (), option="--answer").items()
            },
            prompts={
                name: _text(value)
                for name, value in inputs.read_overrides(prompts or (), option="--prompt").items()
            },
            models=inputs.read_overrides(models or (), option="--model"),
            live_effects=live_effects,
        )

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        forks.extend(
            await fork_runs(
                workspace,
                run,
                wanted,
                count=count,
                actor=options.actor(by),
                sink=progress,
                stop=stop,
            )
        )
        return forks[0].result

    result = drive(invocation, work)
    terminal = invocation.terminal
    if count == 1:
        say_stubbed(terminal, forks[0])
        more = facts_data(forks[0])
        conclude(invocation, result, as_json=as_json, paused_ok=paused_ok, more=more)
        terminal.next(command("flujo", "diff", run, result.run_id), "show what differs")
        return
    found = outcomes(forks)
    if as_json:
        terminal.json({"outcomes": outcomes_data(found), "forks": [fork_data(each) for each in forks]})
    else:
        show_outcomes(terminal, found)


def _fields(words: "Sequence[str]") -> list[str]:
    """Return `context.K=V` words as `K=V`.

    Raises:
        SettingsError: a word names something else than a field of the context.
    """
    for word in words:
        if not word.startswith(_FIELD):
            raise SettingsError(
                f"--set {word!r} is not a field of the context", hint="write `--set context.NAME=VALUE`"
            )
    return [word.removeprefix(_FIELD) for word in words]


def _text(given: str) -> str:
    """Return the text of a file for `@FILE`, and any other text itself.

    Raises:
        SettingsError: the file cannot be read.
    """
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        return decoded(path.read_bytes())
    except (OSError, NotUtf8) as error:
        raise SettingsError(f"--prompt: {path} cannot be read: {error}", hint="name a text file") from None
