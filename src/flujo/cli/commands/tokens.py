"""`flujo tokens`: creates, lists and revokes the tokens of services and people."""

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.access import Role
from flujo.domain.commands import command
from flujo.exceptions import InputRejected, SettingsError
from flujo.services.inspection.formatting import moment

if TYPE_CHECKING:
    from flujo.domain.access import Token
    from flujo.services.access.tokens import NewToken
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""Create, list and revoke tokens of services and people.

    A token is a name with a role and limits. A program passes the rights of a token to
    `TaskClient(principal=...)`; a server takes the secret of one with each request.
    """,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name, under which its acts are recorded.")]

_COLUMNS = {
    "name": "TOKEN",
    "role": "ROLE",
    "limited_to": "LIMITED TO",
    "state": "STATE",
    "created": "CREATED",
    "expires": "EXPIRES",
}


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    role: Annotated[Role, typer.Option(help="What it may do; each role has the rights of those before it.")],
    blueprints: Annotated[
        list[str] | None,
        typer.Option(
            "--blueprint",
            metavar="NAME",
            help="Limit it to runs of this blueprint; repeatable.",
            autocompletion=completion.blueprints,
        ),
    ] = None,
    queues: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="NAME", help="Limit it to runs of this queue; repeatable."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", metavar="KEY=VALUE", help="Limit it to runs with this metadata; repeatable."
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="AGE", help="How long it is valid: 90d, 12h.")
    ] = None,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a token and print its secret once."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.access import tokens
    from flujo.services.project.inputs import read_duration, read_overrides

    invocation = Invocation.of(ctx)
    limits = read_overrides(metadata or (), option="--metadata")
    lives_s = None if expires is None else read_duration(expires, option="--expires")

    async def work(workspace: "Workspace") -> "NewToken":
        return await tokens.create(
            await workspace.store(),
            name,
            role,
            actor=options.actor(by),
            blueprints=blueprints or (),
            queues=queues or (),
            metadata=limits,
            lives_s=lives_s,
        )

    new, terminal = in_workspace(invocation, work, creates=True), invocation.terminal
    if as_json:
        terminal.json({**tokens.token_data(new.token, new.token.created_at), "secret": new.secret})
        return
    terminal.data(new.secret)
    terminal.say("this is the only time that the secret is shown: store it where the program reads it", "dim")


@app.command("list")
def list_(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """List the tokens; their secrets are not recorded."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.access.tokens import token_data
    from flujo.services.project.system import SystemClock

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> "list[Token]":
        return await (await workspace.store()).tokens()

    now, terminal = SystemClock().now(), invocation.terminal
    found = [token_data(each, now) for each in in_workspace(invocation, work)]
    if as_json:
        terminal.json(found)
    elif found:
        terminal.table(_COLUMNS, [_row(each) for each in found])
    else:
        terminal.say("no tokens")
        terminal.next(command("flujo", "tokens", "create", "NAME", "--role", "operator"))


@app.command()
def revoke(ctx: typer.Context, name: Name, by: options.By = None) -> None:
    """Revoke a token: it is refused from its next request on."""
    from flujo.cli.run_command import in_workspace

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> "Token":
        return await (await workspace.store()).revoke_token(name, options.actor(by))

    in_workspace(invocation, work)
    invocation.terminal.say(f"token {name} is revoked")


@app.command("hash-password")
def hash_password(ctx: typer.Context) -> None:
    """Print the hash of a password, for `[serve.users.NAME]`. The password is read from stdin or typed."""
    try:
        from flujo.serve.security.passwords import hash_of
    except ImportError as error:
        raise SettingsError(
            f"`flujo tokens hash-password` needs the extra `serve`: {error.name} is not installed",
            hint="install it: `pip install 'flujo[serve]'`",
        ) from error

    terminal = Invocation.of(ctx).terminal
    password = options.piped()
    if password is None:
        password = getpass.getpass("password: ", stream=terminal.err)
        if getpass.getpass("once more: ", stream=terminal.err) != password:
            raise InputRejected("the two passwords differ", hint="type the same password twice")
    else:
        password = password.removesuffix("\n")
    terminal.data(hash_of(password))
    terminal.say('write it into flujo.toml: [serve.users.NAME] password_hash = "…", role = "answerer"', "dim")


def _row(token: "dict[str, Any]") -> "dict[str, Any]":
    limits = [*token["blueprints"], *token["queues"], *(f"{k}={v}" for k, v in token["metadata"].items())]
    return {
        **token,
        "limited_to": ", ".join(limits) or "all runs",
        "created": moment(token["created_at"]),
        "expires": moment(token["expires_at"]) if token["expires_at"] else "never",
    }
