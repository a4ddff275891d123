"""Reports an error on stderr, with `--json` on stdout too, and chooses the exit code."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from flujo.cli.confirmation import Declined
from flujo.cli.diagnostic_rendering import painted, summary
from flujo.cli.exit_codes import ExitCode, of_error
from flujo.cli.invocation import Invocation
from flujo.cli.json_fields import WANTS_JSON
from flujo.domain.commands import command
from flujo.exceptions import BlueprintError, FlujoError, SettingsError
from flujo.governance.screen import visible
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from typer import Context, TyperException

    from flujo.cli.terminal import Terminal


def report(error: BaseException, ctx: Context) -> ExitCode:
    """Report an error, with `--debug` its traceback and with `--json` as JSON too; return its exit code."""
    _learn_secrets()
    invocation = ctx.find_object(Invocation) or Invocation()
    code = of_error(error)
    if ctx.meta.get(WANTS_JSON):
        invocation.terminal.failure(error_data(error, code))
    _explain(error, invocation)
    return code


def _explain(error: BaseException, invocation: Invocation) -> None:
    terminal = invocation.terminal
    show_traceback(error, invocation)
    if isinstance(error, BlueprintError) and error.diagnostics:
        show_diagnostics(error, terminal)
    elif isinstance(error, FlujoError):
        say_error(terminal, error.message, code=error.code, hint=error.hint or "")
    elif isinstance(error, OSError):
        words = [str(error.filename)] if error.filename else []
        say_error(terminal, ": ".join([*words, error.strerror or str(error)]), hint=_TRACEBACK)
    elif isinstance(error, KeyboardInterrupt | Declined):
        terminal.say(str(error) or "interrupted")
    else:
        say_error(terminal, f"{type(error).__name__}: {error}", hint=_BUG)


def report_usage(error: TyperException) -> None:
    """Mask secrets and escape controls in a usage error, which typer prints; with `--json` write it as JSON.

    The error quotes arguments.
    """
    _learn_secrets()
    error.message = visible(GATE.text(error.message))
    ctx = getattr(error, "ctx", None)
    if ctx is not None and ctx.meta.get(WANTS_JSON):
        terminal = (ctx.find_object(Invocation) or Invocation()).terminal
        hint = f"`{command(*ctx.command_path.split(), '--help')}` shows the options"
        if "extra argument" in error.message:
            hint += "; fields are selected with `--json=FIELDS`"
        terminal.failure(
            _as_data(SettingsError.code, error.format_message(), hint, error.exit_code, "UsageError")
        )


def error_data(error: BaseException, code: int) -> dict[str, Any]:
    """Return an error as JSON data: what it is, what to do, its exit code, and its place if that is known."""
    kind = type(error).__name__
    if not isinstance(error, FlujoError):
        named = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        text = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        return _as_data(None, f"{named}{text}", None, code, kind)
    data = _as_data(error.code, error.message, error.hint, code, kind)
    data |= {name: value for name in _PLACE if (value := getattr(error, name, None)) is not None}
    if isinstance(error, BlueprintError) and error.diagnostics:
        from flujo.services.checks.validation import as_data

        first = next((each for each in error.diagnostics if each.is_error), error.diagnostics[0])
        data |= {"file": first.span.file, "line": first.span.line, "column": first.span.column}
        data["diagnostics"] = [as_data(each) for each in error.diagnostics]
    return data


_PLACE = ("run_id", "path", "file", "line", "column", "field")
"""The facts of errors that say where they happened."""


def _as_data(code: str | None, message: str, hint: str | None, exit_code: int, kind: str) -> dict[str, Any]:
    return {
        "code": code,
        "type": kind,
        "message": GATE.text(message),
        "hint": None if hint is None else GATE.text(hint),
        "exit_code": int(exit_code),
    }


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
    from flujo.services.checks.validation import rendered

    for finding in error.diagnostics:
        text = rendered(finding, error.sources)
        terminal.say(painted(text, terminal, to=terminal.err) + "\n")
    terminal.say(summary(error.diagnostics))
