"""Exceptions as the journal keeps them: bounded, without secrets, and in characters that databases accept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flujo.domain.executor import CodeExit
from flujo.domain.journal import ErrorInfo
from flujo.exceptions import FlujoError, StepFailed
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath

MAX_TEXT = 10_000
"""The maximum number of characters of an exception's text that the journal keeps."""


def error_info(error: BaseException, path: StepPath) -> ErrorInfo:
    """Return an error for the journal, with secrets masked."""
    if isinstance(error, CodeExit):
        error = error.raised
    kind = foreign_text(type(error).__name__)
    if isinstance(error, FlujoError):
        message, hint = foreign_text(error.message), error.hint and foreign_text(error.hint)
        return ErrorInfo(error.code, message, hint, kind, path, retryable=bool(error.retryable))
    return ErrorInfo(StepFailed.code, described(error), StepFailed.hint, kind, path, retryable=True)


def described(error: BaseException) -> str:
    """Return the class and the text of an exception of foreign code; the class alone when it has no text."""
    if isinstance(error, CodeExit):
        error = error.raised
    kind, text = foreign_text(type(error).__name__), text_of(error)
    return f"{kind}: {text}" if text else kind


def text_of(error: BaseException) -> str:
    """Return the text of an exception of foreign code; empty when it has none or cannot be read."""
    try:
        text = foreign_text(str(error))
    except BaseException:  # noqa: BLE001 - foreign code
        return ""
    if not text and isinstance(error, asyncio.CancelledError):
        return "what it awaited was cancelled, and the run was not"
    return text


def foreign_text(text: Any) -> str:
    """Return a text of foreign code that JSON and databases accept: bounded, and without secrets."""
    if not isinstance(text, str):
        return f"<{type(text).__name__}>"
    bounded = str.__getitem__(text, slice(MAX_TEXT))  # of a subclass, a `str`
    bounded += f"… ({str.__len__(text):,} characters)" * (str.__len__(text) > MAX_TEXT)
    return safe_text(bounded)


def safe_text(text: str) -> str:
    """Return a text without secrets, and without characters that JSON or databases refuse."""
    return GATE.text(text.encode("utf-8", "replace").decode().replace("\x00", ""))
