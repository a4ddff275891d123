"""The commands of `flujo`, and its help without typer, which takes longer to import than all the rest."""

from __future__ import annotations

import os
import sys

COMMANDS: dict[str, dict[str, str]] = {
    "Write": {
        "init": "Write a working project into a folder.",
        "validate": "Check blueprints without running anything.",
        "graph": "Draw a blueprint.",
        "ls": "List the steps, agents, callables and imports of blueprints.",
        "schema": "Print the JSON Schema of blueprints.",
        "explain": "Explain an error code or a blueprint.",
        "types": "Export the Python types that blueprints use as JSON Schemas.",
        "lock": "Write, verify, show or compare flujo.lock.",
    },
    "Run": {
        "plan": "Forecast requests, tokens and cost of a run, without making it.",
        "run": "Run a blueprint; without BLUEPRINT, list them.",
        "resume": "Continue a run; without RUN, list the resumable runs.",
        "tasks": "List, show, answer, retry and cancel runs; also `flujo runs`.",
        "check-resume": "Tell which runs can continue with the blueprints on disk.",
    },
    "Look at runs": {
        "trace": "Show what happened in a run, step by step.",
        "logs": "Show what happened in a run, line by line; -f follows it.",
        "why": "Show why a run took its way: decisions, values, retries.",
        "replay": "Replay a run from its record; makes no call and writes nothing.",
        "fork": "Run again from a step, with another prompt, model or value.",
        "diff": "Compare two runs.",
        "cassette": "Make a test of a run.",
        "evals": "Run files of cases, list and compare scores, rate a run.",
        "export": "Write a run as one file, which needs no database.",
        "pull": "Copy a run from another database, or from an exported file.",
        "cache": "Show why cached steps were executed.",
    },
    "Operate": {
        "models": "List or download local models.",
        "worker": "Execute runs of queues, fire schedules, resume orphaned runs.",
        "serve": "Serve pages for people who answer, and an API.",
        "workers": "List the living workers; pause or resume them.",
        "queues": "Show what waits in the queues.",
        "budgets": "Show the usage of the budgets that several runs share.",
        "stats": "Show cost, tokens, status and duration of runs over time.",
        "schedules": "List, apply, pause and trigger schedules.",
        "notifications": "List messages about runs, or send them again.",
        "tokens": "Create, list and revoke tokens of services and people.",
        "acts": "List who answered, cancelled, logged in and so on.",
        "migrate": "Migrate the database to the current schema.",
        "purge": "Delete old runs and their data, or erase a person.",
        "keys": "Make and rotate the keys that encrypt the database.",
        "trust": "Trust a project that belongs to another user.",
        "doctor": "Check settings, database, models and API keys.",
    },
}
"""Section → command → its help line. They stand here so that `--help` imports no command."""

ALIASES = {"runs": "tasks"}
"""Other names of commands."""

WIDTH = 80
"""The columns that the help needs."""

_COMPLETION = "_FLUJO_COMPLETE"
"""The variable with which a shell calls `flujo` for completions instead of a command."""

_HEAD = """\
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
"""


def is_wanted(words: list[str]) -> bool:
    """Return whether `flujo` prints `text` for these arguments.

    In a terminal of less than `WIDTH` columns, typer writes the help with other line breaks.
    """
    variables = os.environ  # noqa: TID251 - conventions of terminals and shells
    is_help = words in ([], ["--help"], ["-h"]) and _COMPLETION not in variables
    return is_help and _columns(variables.get("COLUMNS")) >= WIDTH


def text() -> str:
    """Return the help of `flujo`, as typer writes it."""
    return "".join([_HEAD, *(_section(name, lines) for name, lines in COMMANDS.items())])


def _section(name: str, lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(["", f"{name}:", *(f"  {each:{width}}  {line}" for each, line in lines.items()), ""])


def _columns(variable: str | None) -> int:
    """Return the width of the terminal, as `shutil.get_terminal_size` does."""
    columns = int(variable) if variable and variable.isdecimal() else 0
    if columns <= 0:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else 0
        except (ValueError, OSError):
            columns = 0
    return columns or WIDTH
