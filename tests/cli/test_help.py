"""What people read first."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer
from inline_snapshot import snapshot

import flujo as package
import warm
from flujo.cli import root_help
from flujo.cli.app import app, imported
from flujo.cli.examples import EXAMPLES
from flujo.cli.root_help import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo

NAMES = [name for section in COMMANDS.values() for name in section]


def test_help_lists_every_command_by_what_it_is_for(flujo: Flujo) -> None:
    result = flujo("--help")
    assert result.exit_code == 0
    assert result.stdout == snapshot("""\
Usage: flujo [OPTIONS] COMMAND [ARGS]...

  Durable AI pipelines: runs survive crashes and resume without repeating
  completed steps.

  `flujo init` writes a first project; `-h` behind a command explains it.

Options:
  -C, --project DIR     Work in this folder.  [default: .]
  --env NAME            Use [env.NAME] of flujo.toml.
  --debug               Show tracebacks.
  --no-color            Disable colour (also: NO_COLOR).
  --log-format FORMAT   Write log lines: json or text (levels: FLUJO_LOG).
  --version             Print the version.
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell, to copy it or
                        customize the installation.
  -h, --help            Show this message and exit.

Write:
  init      Write a working project into a folder.
  validate  Check blueprints without running anything.
  graph     Draw a blueprint.
  ls        List the steps, agents, callables and imports of blueprints.
  schema    Print the JSON Schema of blueprints.
  explain   Explain an error code or a blueprint.
  types     Export the Python types that blueprints use as JSON Schemas.
  lock      Write, verify, show or compare flujo.lock.

Run:
  plan          Forecast requests, tokens and cost of a run, without making it.
  run           Run a blueprint; without BLUEPRINT, list them.
  resume        Continue a run; without RUN, list the resumable runs.
  tasks         List, show, answer, retry and cancel runs; also `flujo runs`.
  check-resume  Tell which runs can continue with the blueprints on disk.

Look at runs:
  trace     Show what happened in a run, step by step.
  logs      Show what happened in a run, line by line; -f follows it.
  why       Show why a run took its way: decisions, values, retries.
  replay    Replay a run from its record; makes no call and writes nothing.
  fork      Run again from a step, with another prompt, model or value.
  diff      Compare two runs.
  cassette  Make a test of a run.
  evals     Run files of cases, list and compare scores, rate a run.
  export    Write a run as one file, which needs no database.
  pull      Copy a run from another database, or from an exported file.
  cache     Show why cached steps were executed.

Operate:
  models         List or download local models.
  worker         Execute runs of queues, fire schedules, resume orphaned runs.
  serve          Serve pages for people who answer, and an API.
  workers        List the living workers; pause or resume them.
  queues         Show what waits in the queues.
  budgets        Show the usage of the budgets that several runs share.
  stats          Show cost, tokens, status and duration of runs over time.
  schedules      List, apply, pause and trigger schedules.
  notifications  List messages about runs, or send them again.
  tokens         Create, list and revoke tokens of services and people.
  acts           List who answered, cancelled, logged in and so on.
  migrate        Migrate the database to the current schema.
  purge          Delete old runs and their data, or erase a person.
  keys           Make and rotate the keys that encrypt the database.
  trust          Trust a project that belongs to another user.
  doctor         Check settings, database, models and API keys.
""")


def test_the_help_without_typer_is_the_help_of_typer(flujo: Flujo) -> None:
    assert root_help.text() == flujo("--help").stdout


@pytest.mark.parametrize(
    ("words", "variables", "prints"),
    [
        ((), {}, True),
        (("--help",), {"COLUMNS": "200"}, True),
        (("--help",), {"COLUMNS": "80"}, True),
        (("--help",), {"COLUMNS": "79"}, False),
        (("--help",), {"COLUMNS": "0"}, True),
        (("--help",), {"COLUMNS": "wide"}, True),
        ((), {"_FLUJO_COMPLETE": "complete_bash"}, False),
        (("--debug", "--help"), {}, False),
        (("run", "--help"), {}, False),
    ],
)
def test_typer_prints_the_help_where_it_may_look_different(
    words: tuple[str, ...], variables: dict[str, str], prints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a narrow terminal, for completion, and with other arguments."""
    for name in ("COLUMNS", "_FLUJO_COMPLETE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert root_help.is_wanted(list(words)) is prints


def test_the_lines_of_the_help_fit_in_a_narrow_terminal() -> None:
    narrow = {**os.environ, "COLUMNS": "60"}
    shown = warm.run([sys.executable, "-m", "flujo", "--help"], env=narrow, capture_output=True, check=True)
    assert max(map(len, shown.stdout.splitlines())) <= 60


def test_flujo_alone_shows_the_help(flujo: Flujo) -> None:
    result = flujo()
    assert result.exit_code == 0
    assert result.stdout == flujo("--help").stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_commands_says_what_each_command_says_itself(name: str) -> None:
    command = typer.main.get_command(
        importlib.import_module(f"flujo.cli.commands.{name.replace('-', '_')}").app
    )
    line = next(section[name] for section in COMMANDS.values() if name in section)
    assert (command.help or "").splitlines()[0] == line


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(name: str, flujo: Flujo) -> None:
    result = flujo(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: flujo {name}" in result.stdout
    cut = [line for line in result.stdout.splitlines() if line.endswith("...") and "Usage: " not in line]
    assert not cut, "the first sentence of these commands is too long for 80 columns"


def test_every_option_says_what_it_does(flujo: Flujo) -> None:
    for name in NAMES:
        for line in flujo(name, "--help").stdout.splitlines():
            if re.match(r"  -{1,2}\w", line):
                assert re.search(r"\S {2,}\S", line) or len(line) > 24, f"flujo {name}: {line}"


def test_the_version_is_that_of_the_package(flujo: Flujo) -> None:
    result = flujo("--version")
    assert (result.exit_code, result.stdout) == (0, f"flujo {package.__version__}\n")


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(flujo: Flujo) -> None:
    result = flujo("vaildate")
    assert result.exit_code == 2
    assert "Did you mean 'validate'?" in result.stderr


def test_a_global_flag_may_stand_behind_the_command(flujo: Flujo) -> None:
    assert flujo("run", "--debug", "--no-color").exit_code == 0


def test_an_environment_that_is_not_there_is_refused(flujo: Flujo) -> None:
    result = flujo("--env", "prod", "run")
    assert result.exit_code == 2
    assert "there is no [env.prod]" in result.stderr


def test_every_command_has_examples_that_its_parser_takes(flujo: Flujo) -> None:
    for name, _ in leaves():
        assert EXAMPLES[name], name
        short, long = flujo(*name.split(), "-h").stdout, flujo(*name.split(), "--help").stdout
        assert short == long
        for example in EXAMPLES[name]:
            assert f"\n    flujo {example}\n" in long
    assert set(EXAMPLES) == {name for name, _ in leaves()} | {
        name for name in NAMES if hasattr(imported(name), "commands")
    }
    for example in {each for examples in EXAMPLES.values() for each in examples}:
        with typer.main.get_command(app).make_context(
            "flujo", shlex.split(example), resilient_parsing=False
        ) as ctx:
            parse(ctx)


def leaves() -> Iterator[tuple[str, Any]]:
    """Yield every command that has options of its own, by its words."""
    for name in NAMES:
        command = imported(name)
        inner = getattr(command, "commands", {})
        if not inner:
            yield name, command
        for word, each in inner.items():
            yield f"{name} {word}", each


def parse(ctx: Any) -> None:
    """Parse the rest of a command line by the command that it names, without running it."""
    _, command, rest = ctx.command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
    with command.make_context(command.name, rest, parent=ctx) as inner:
        if hasattr(command, "commands") and (inner._protected_args or inner.args):
            parse(inner)
