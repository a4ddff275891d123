"""The one place where an error becomes words on stderr and an exit code."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from flujo.cli.exit_codes import ExitCode, of_error
from flujo.exceptions import BlueprintError, FlujoError

if TYPE_CHECKING:
    from flujo.cli.invocation import Invocation
    from flujo.cli.terminal import Terminal


def report(error: BaseException, invocation: Invocation) -> ExitCode:
    """Say what went wrong, and return the exit code. A traceback only with `--debug`."""
    terminal = invocation.terminal
    show_traceback(error, invocation)
    if isinstance(error, BlueprintError) and error.diagnostics:
        show_diagnostics(error, terminal)
    elif isinstance(error, FlujoError):
        say_error(
            terminal,
            _safe(error.message, invocation),
            code=error.code,
            hint=_safe(error.hint or "", invocation),
        )
    elif isinstance(error, KeyboardInterrupt):
        terminal.say("interrupted")
    else:
        say_error(terminal, _safe(f"{type(error).__name__}: {error}", invocation), hint=_BUG)
    return of_error(error)


def show_traceback(error: BaseException | None, invocation: Invocation) -> None:
    """Write where an error comes from to stderr, when `--debug` asks for it."""
    if invocation.debug and error is not None:
        invocation.terminal.err.write(_safe("".join(traceback.format_exception(error)), invocation))


_BUG = "this is a bug in Flujo; run the same command with --debug to see where"


def say_error(terminal: Terminal, message: str, *, code: str = "", hint: str = "") -> None:
    """Write `error: message [CODE]` and its hint to stderr."""
    mark = f" {terminal.styled(f'[{code}]', 'dim', to=terminal.err)}" if code else ""
    terminal.say(f"{terminal.styled('error:', 'bold', 'red', to=terminal.err)} {message}{mark}")
    if hint:
        terminal.say(f"  {terminal.styled('hint:', 'cyan', to=terminal.err)} {hint}")


def show_diagnostics(error: BlueprintError, terminal: Terminal) -> None:
    """Write a blueprint's findings to stderr, as `flujo validate` shows them."""
    from flujo.cli.diagnostic_rendering import painted, summary
    from flujo.services.checks.validation import rendered

    for finding in error.diagnostics:
        text = rendered(finding, error.facts.get("sources", {}))
        terminal.say(painted(text, terminal, to=terminal.err) + "\n")
    terminal.say(summary(error.diagnostics))


def _safe(text: str, invocation: Invocation) -> str:
    """Return `text` without the project's secrets, as far as its settings can be read."""
    try:
        return invocation.project.redactor(text)
    except FlujoError:
        return text
