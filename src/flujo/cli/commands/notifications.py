"""`flujo notifications`: lists the messages about runs, and sends them again."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.outbox import MessageState
from flujo.domain.wording import plural
from flujo.services.inspection import formatting, messages
from flujo.services.inspection.views import message_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.outbox import Message
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List messages about runs, or send them again.",
)


Run = Annotated[
    str | None,
    typer.Option(
        "--run", metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs
    ),
]
Target = Annotated[str | None, typer.Option("--target", metavar="NAME", help="Only of [notify.NAME].")]


@app.callback()
def notifications() -> None:
    """List messages about runs, or send them again."""


@app.command("list")
def list_messages(
    ctx: typer.Context,
    state: Annotated[
        list[MessageState] | None, typer.Option(help="Only messages with this state; repeatable.")
    ] = None,
    target: Target = None,
    run: Run = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The maximum number of messages.")] = 100,
    as_json: options.AsJson = False,
) -> None:
    """List messages, the newest first."""

    async def found(workspace: "Workspace") -> "Sequence[Message]":
        return await messages.listed(
            await workspace.store(), states=state or (), target=target, run=run, limit=limit
        )

    terminal = Invocation.of(ctx).terminal
    page = in_workspace(Invocation.of(ctx), found)
    if as_json:
        terminal.json([message_data(message) for message in page])
        return
    if not page:
        terminal.say("no matching messages")
        return
    terminal.table(_COLUMNS, [_row(message) for message in page])
    if len(page) == limit:
        terminal.say(f"the newest {plural(limit, 'message')}; `--limit` lists more")
    lost = next((each for each in page if each.state is MessageState.GIVEN_UP), None)
    if lost is not None:
        terminal.next(command("flujo", "notifications", "redeliver", str(lost.id)), "send it again")


@app.command()
def redeliver(
    ctx: typer.Context,
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="ID...", help="The ids of messages.", show_default=False),
    ] = None,
    given_up: Annotated[
        bool, typer.Option("--given-up", help="All messages that were given up, at most 10,000.")
    ] = False,
    target: Target = None,
    as_json: options.AsJson = False,
) -> None:
    """Send messages again, with the ids that they had. A worker or an open runner sends them."""
    invocation = Invocation.of(ctx)
    messages.require_one_choice(
        ids or [],
        given_up=given_up,
        target=target,
        words=("ID...", "`--given-up`", "`--target`"),
        listing="`flujo notifications list` shows the ids",
    )

    async def work(workspace: "Workspace") -> int:
        return await messages.redeliver(await workspace.store(), ids or [], given_up=given_up, target=target)

    count = in_workspace(invocation, work)
    if as_json:
        invocation.terminal.json({"redelivered": count})
    else:
        invocation.terminal.say(f"{plural(count, 'message')} will be sent again")
        invocation.terminal.next(command("flujo", "worker", "--once"), "send what is due now")


_COLUMNS = {
    "id": "ID",
    "created": "CREATED",
    "target": "TARGET",
    "event": "EVENT",
    "run": "RUN",
    "state": "STATE",
    "tries": "TRIES",
    "detail": "DETAIL",
}


def _row(message: "Message") -> dict[str, str]:
    return {
        "id": str(message.id),
        "created": formatting.moment(message.created_at),
        "target": message.target,
        "event": str(message.event),
        "run": formatting.short_id(message.run_id or ""),
        "state": str(message.state),
        "tries": str(message.tries),
        "detail": formatting.brief(_detail(message)),
    }


def _detail(message: "Message") -> str:
    if message.error is None or message.state is MessageState.DELIVERED:
        return ""
    if message.state is MessageState.GIVEN_UP:
        return message.error
    return f"{message.error}; next try {formatting.moment(message.available_at)}"
