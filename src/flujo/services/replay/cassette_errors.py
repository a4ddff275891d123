"""Errors of requests and calls as a cassette has them, and the exceptions that they are played as."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from flujo.exceptions import FlujoError, OutputTruncated, StepFailed
from flujo.governance.events import read_error
from flujo.services.replay.cassette import RecordedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.journal import Entry


def error_of(entry: Entry) -> RecordedError | None:
    """Return the error of a failed attempt; what each error of its class has is left out."""
    if entry.error is None:
        return None
    error = read_error(entry.error)
    kind = _flujo_class(error.type, error.code)
    if kind is None:
        is_foreign = error.code == StepFailed.code  # any exception of other code may be tried again
        hint, retryable = (StepFailed.hint if is_foreign else None), is_foreign
    else:
        hint, retryable = kind.hint, kind.retryable
    return RecordedError(
        type=error.type,
        code=error.code,
        message=error.message,
        hint=None if error.hint == hint else error.hint,
        retryable=None if error.retryable == retryable else error.retryable,
    )


def exception_of(error: RecordedError) -> Exception:
    """Return the exception whose record in a journal is this error."""
    kind = _flujo_class(error.type, error.code)
    if kind is None and error.code == StepFailed.code:
        return _foreign(error.type, error.message)
    if kind is None:
        kind = type(error.type, (FlujoError,), {"code": error.code})
    facts = {} if error.retryable is None else {"retryable": error.retryable}
    return kind(error.message, hint=error.hint, **facts)


def unprefixed(error: RecordedError, agent: str) -> RecordedError:
    """Return the error of the last answer that was cut off, without the name of the agent before it."""
    if error.type != OutputTruncated.__name__:
        return error
    message = error.message.removeprefix(f"agent {agent!r}: ")
    return RecordedError(type=error.type, code=error.code, message=message, hint=error.hint)


def _foreign(name: str, message: str) -> Exception:
    """Return an exception of other code: of the built-in class of its name, as far as there is one."""
    text = "" if message == name else message.removeprefix(f"{name}: ")
    found = getattr(builtins, name, Exception)
    is_base = isinstance(found, type) and issubclass(found, Exception)
    base = found if is_base and not issubclass(found, BaseExceptionGroup) else Exception
    # Its own class, because the text of a `KeyError` or an `OSError` is made from its arguments.
    said: dict[str, Any] = {"__init__": lambda _: None, "__str__": lambda _: text}
    kind: Any = type(name, (base,), said)
    made: Exception = kind()
    return made


def _flujo_class(name: str, code: str) -> type[FlujoError] | None:
    return next((each for each in _classes() if (each.__name__, each.code) == (name, code)), None)


def _classes(root: type[FlujoError] = FlujoError) -> Iterator[type[FlujoError]]:
    yield root
    for each in root.__subclasses__():
        yield from _classes(each)
