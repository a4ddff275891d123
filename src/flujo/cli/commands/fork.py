"""`flujo fork RUN --at PATH`: a new run that is the same before PATH, and live after it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.cli.run_arguments import Run
from flujo.domain.commands import command
from flujo.domain.text import NotUtf8, decoded
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.progress import Progress
    from flujo.domain.pipeline import Pipeline
    from flujo.services.cases.judges import Judged
    from flujo.services.project.inputs import Given
    from flujo.services.replay.fork import ForkedRun
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.forks import Fork
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_FIELD = "context."


At = Annotated[
    str,
    typer.Option(
        "--at",
        metavar="PATH",
        help="The step, iteration, turn or tool call to begin at, such as `draft.1/write`.",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="context.K=V", help="Another value of the context from PATH on; repeatable."
    ),
]
Answers = Annotated[
    list[str] | None,
    typer.Option("--answer", metavar="PATH=V", help="The answer to a question; repeatable."),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="AGENT=@FILE",
        help="Other instructions of an agent: a file, or the text itself; repeatable.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="AGENT=MODEL", help="Another model of an agent; repeatable."),
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many forks to start.")]
Evaluators = Annotated[
    list[str] | None,
    typer.Option(
        "--evaluator",
        metavar="NAME",
        help="Score the outputs with this evaluator of flujo.toml; repeatable.",
    ),
]
LiveEffects = Annotated[
    bool,
    typer.Option("--live-effects", help="Make calls with effects instead of taking recorded results."),
]


@dataclass(frozen=True)
class Wanted:
    """What the options of this command ask for."""

    at: str
    given: "Given | None"
    """The input; None for that of the parent."""
    changes: "Sequence[str]"
    answers: "Sequence[str]"
    prompts: "Sequence[str]"
    models: "Sequence[str]"
    live_effects: bool

    def fork(self, pipeline: "Pipeline") -> "Fork":
        """Return the fork, with values that fit the schemas of a pipeline.

        Raises:
            SettingsError: a word is not of the form `NAME=VALUE`, or names something else.
            InputRejected: the input does not fit.
        """
        from flujo.services.project import inputs
        from flujo.services.runs.forks import UNCHANGED, Fork

        given = self.given
        answers = inputs.read_overrides(self.answers, option="--answer")
        prompts = inputs.read_overrides(self.prompts, option="--prompt")
        return Fork(
            at=self.at,
            input=UNCHANGED if given is None else inputs.read_input(pipeline.input_schema, given).value,
            context=inputs.read_fields(_fields(self.changes), pipeline.context_schema, option="--set"),
            answers={
                path: inputs.read_answer(value, option=f"--answer {path}") for path, value in answers.items()
            },
            prompts={name: _text(value) for name, value in prompts.items()},
            models=inputs.read_overrides(self.models, option="--model"),
            live_effects=self.live_effects,
        )


@app.command()
def fork(
    ctx: typer.Context,
    run: Run,
    at: At,
    changes: Changes = None,
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    answers: Answers = None,
    prompts: Prompts = None,
    models: Models = None,
    count: Count = 1,
    evaluators: Evaluators = None,
    live_effects: LiveEffects = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Run again from a step, with another prompt, model or value."""
    from flujo.cli.fork_rendering import facts_data, say_stubbed, show_several
    from flujo.cli.run_command import conclude, drive
    from flujo.services.replay.fork import fork_runs
    from flujo.services.scoring.evaluators import named_evaluators

    invocation = Invocation.of(ctx)
    named_evaluators(invocation.project.settings, evaluators or ())  # before anything is paid
    has_input = text is not None or file is not None or bool(fields)
    given = options.given(text, file, fields) if has_input else None
    wanted = Wanted(at, given, changes or (), answers or (), prompts or (), models or (), live_effects)
    forks: list[ForkedRun] = []
    scores: list[list[Judged]] = []

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        actor = options.actor(by)
        forks.extend(
            await fork_runs(workspace, run, wanted.fork, count=count, actor=actor, sink=progress, stop=stop)
        )
        if evaluators:
            scores.extend(await _scores(workspace, evaluators, forks, stop))
        return forks[0].result

    result = drive(invocation, work)
    if count > 1 or evaluators:
        show_several(invocation.terminal, forks, scores, as_json=as_json)
        return
    say_stubbed(invocation.terminal, forks[0])
    conclude(invocation, result, as_json=as_json, paused_ok=paused_ok, more=facts_data(forks[0]))
    invocation.terminal.next(command("flujo", "diff", run, result.run_id), "show what differs")


async def _scores(
    workspace: "Workspace", evaluators: "Sequence[str]", forks: "Sequence[ForkedRun]", stop: "Stop"
) -> "list[list[Judged]]":
    """Return the scores of the distinct outputs of forks; none for those that have not completed."""
    from flujo.domain.evaluations import Evaluated
    from flujo.services.cases.judges import judge_outputs
    from flujo.services.replay.fork import outcomes

    found = outcomes(forks)
    completed = [each for each in found if each.status == "completed"]
    evaluated = [Evaluated(input=each.runs[0].input, output=each.output) for each in completed]
    scored = iter(await judge_outputs(workspace, evaluators, evaluated, stop))
    return [next(scored) if each in completed else [] for each in found]


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
