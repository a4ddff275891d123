"""Reports an error on stderr and chooses the exit code."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from flujo.cli.exit_codes import ExitCode, of_error
from flujo.cli.invocation import Invocation
from flujo.exceptions import BlueprintError, FlujoError
from flujo.governance.screen import visible
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from typer import Context, TyperException

    from flujo.cli.terminal import Terminal


def report(error: BaseException, ctx: Context) -> ExitCode:
    """Report an error and return the exit code; `--debug` adds the traceback."""
    _learn_secrets()
    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    show_traceback(error, invocation)
    if isinstance(error, BlueprintError) and error.diagnostics:
        show_diagnostics(error, terminal)
    elif isinstance(error, FlujoError):
        say_error(terminal, error.message, code=error.code, hint=error.hint or "")
    elif isinstance(error, OSError):
        words = [str(error.filename)] if error.filename else []
        say_error(terminal, ": ".join([*words, error.strerror or str(error)]), hint=_TRACEBACK)
    elif isinstance(error, KeyboardInterrupt):
        terminal.say("interrupted")
    else:
        say_error(terminal, f"{type(error).__name__}: {error}", hint=_BUG)
    return of_error(error)


def clean(error: TyperException) -> None:
    """Mask secrets and escape controls in a usage error: it quotes arguments, and typer prints it."""
    _learn_secrets()
    error.message = visible(GATE.text(error.message))


def _learn_secrets() -> None:
    """Register the environment's secrets: a command may fail before it loads the settings."""
    from flujo.settings import guard_environment

    guard_environment()


def show_traceback(error: BaseException | None, invocation: Invocation) -> None:
    """Write the traceback of an error to stderr under `--debug`."""
    if invocation.debug and error is not None:
        invocation.terminal.say("".join(traceback.format_exception(error)).rstrip("\n"))


_TRACEBACK = "run the command again with --debug for the traceback"
_BUG = f"this is a bug in Flujo; {_TRACEBACK}"


def say_error(terminal: Terminal, message: str, *, code: str = "", hint: str = "", at: str = "") -> None:
    """Write `error: message [CODE]`, the place in the user's code and the hint to stderr."""
    mark = f" {terminal.styled(f'[{code}]', 'dim', to=terminal.err)}" if code else ""
    terminal.say(f"{terminal.styled('error:', 'bold', 'red', to=terminal.err)} {message}{mark}")
    if at:
        terminal.say(f"  {terminal.styled('at:', 'cyan', to=terminal.err)} {at}")
    if hint:
        terminal.say(f"  {terminal.styled('hint:', 'cyan', to=terminal.err)} {hint}")


def show_diagnostics(error: BlueprintError, terminal: Terminal) -> None:
    """Write a blueprint's findings to stderr, as `flujo validate` shows them."""
    from flujo.cli.diagnostic_rendering import painted, summary
    from flujo.services.checks.validation import rendered

    for finding in error.diagnostics:
        text = rendered(finding, error.sources)
        terminal.say(painted(text, terminal, to=terminal.err) + "\n")
    terminal.say(summary(error.diagnostics))
