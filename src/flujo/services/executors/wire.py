"""What travels between the process of a run and a worker: JSON in both directions, and nothing pickled."""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import flujo.exceptions
from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.current_step import ON_REMOTE_WORK
from flujo.domain.executor import Unit
from flujo.domain.journal import CodeFrame
from flujo.domain.remote_work import RemoteWork
from flujo.engine.error_info import text_of
from flujo.exceptions import (
    CallFailed,
    ControlSignal,
    ExecutorError,
    FlujoError,
    PausedException,
    PipelineAbortSignal,
)
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_LINES = 200
"""The maximum number of log lines of a unit that travel back: the last ones."""

Line = tuple[str, int, str]
"""A log line: its logger, level and text."""

_SIGNALS = {kind.__name__: kind for kind in (PausedException, PipelineAbortSignal, ControlSignal)}
"""What a callable stops the run with, by name; the class of those that have no other comes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectOnWorker:
    """What a worker needs to know of the project, the same for all units."""

    root: str
    """The folder from which the project's modules are imported; that of the same path on another host."""
    allow_callables: tuple[str, ...] = ()
    resources: str | None = None
    """`[project] resources`; the worker makes its own, once."""
    state_providers: Mapping[str, str]
    """`[state_providers]`: a worker reads and writes references itself."""
    max_result: int
    """In bytes of JSON."""
    python: str = platform.python_version()
    flujo: str
    log_level: int = logging.WARNING

    def encoded(self) -> bytes:
        """Return it as canonical JSON."""
        return canonical.encode({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def decoded(cls, data: bytes) -> ProjectOnWorker:
        """Return what `encoded` has written."""
        made = cls(**canonical.decode(data))
        return replace(made, allow_callables=tuple(made.allow_callables))


def other_versions(project: ProjectOnWorker, worker: Mapping[str, str]) -> str | None:
    """Return which version of a worker is not that of the process of the run, in words; None if none is.

    Args:
        project: with the versions of the process of the run.
        worker: `python` and `flujo`: the versions of the worker.
    """
    for name, ours in (("Python", project.python), ("Flujo", project.flujo)):
        theirs = worker[name.lower()]
        # A digest of compiled code is that of one minor version of Python.
        if ours.rpartition(".")[0] != theirs.rpartition(".")[0]:
            return f"has {name} {theirs}, and the process of the run has {name} {ours}"
    return None


def to_install(project: ProjectOnWorker) -> str:
    """Return what to do about a worker without Flujo or with other versions."""
    python = project.python.rpartition(".")[0]
    install = command("pip", "install", f"flujo=={project.flujo}")
    return (
        f"on that host: use Python {python}, `{install}`, restart it; then `flujo resume RUN --retry-failed`"
    )


def encoded_unit(unit: Unit, code: str | None) -> bytes:
    """Return a unit with the digest of its code as canonical JSON."""
    return canonical.encode({**unit.to_json(), "code": code})


def decoded_unit(data: bytes) -> tuple[Unit, str | None]:
    """Return the unit and the digest of its code."""
    written = canonical.decode(data)
    return Unit.of_json(written), written["code"]


def output_of(answer: bytes, unit: Unit, where: str) -> Any:
    """Return the output in the answer of a worker, or raise its error; log its lines here as well.

    Call it in the task that has submitted the unit, whose step the lines and the span of the unit are about.

    Args:
        answer: what `worker.execute` returned.
        unit: the unit.
        where: the executor, for messages.

    Raises:
        CallFailed: the callable raised. What stops a run there is also a `PausedException`, a
            `PipelineAbortSignal` or another `ControlSignal`, and stops it here.
        FlujoError: the callable or Flujo raised it there.
    """
    told: dict[str, Any] = canonical.decode(answer)
    _log_here(told["lines"])
    _report(told, unit, where)
    if "error" in told:
        _raise(told["error"], where)
    return told["output"]


def _report(told: Mapping[str, Any], unit: Unit, where: str) -> None:
    """Let telemetry know where the unit was executed."""
    listener = ON_REMOTE_WORK.get()
    if listener is not None:
        host, pid, seconds = told["ran"]
        error = told["error"]["type"] if "error" in told else None
        listener.answered(
            RemoteWork(
                executor=where,
                host=host,
                pid=pid,
                seconds=seconds,
                ended_at=time.time(),
                error=error,
                number=unit.number,
            )
        )


def _log_here(lines: Sequence[Sequence[Any]]) -> None:
    """Log the lines of a worker as if the callable ran here, so that they reach the log and the run."""
    for name, level, text in lines:
        log = logger(name)
        if log.isEnabledFor(level):
            log.handle(log.makeRecord(name, level, "", 0, "%s", (text,), None))


def error_data(error: BaseException, found: tuple[CodeFrame, str] | None, verdict: int) -> dict[str, Any]:
    """Return an exception of a callable as JSON data."""
    kind = type(error)
    own = isinstance(error, FlujoError) and getattr(flujo.exceptions, kind.__name__, None) is kind
    frame, traceback = found or (None, "")
    return {
        "type": kind.__name__,
        "original": f"{kind.__module__}.{kind.__qualname__}",
        "text": text_of(error),
        "signal": next((name for name, signal in _SIGNALS.items() if isinstance(error, signal)), None),
        "is_own": own,
        "hint": error.hint if isinstance(error, FlujoError) else None,
        "retryable": bool(getattr(error, "retryable", True)) if isinstance(error, FlujoError) else True,
        "verdict": verdict,
        "frame": None if frame is None else [frame.file, frame.line, frame.function, frame.source],
        "traceback": traceback,
    }


def _raise(told: Mapping[str, Any], where: str) -> NoReturn:
    frame = told["frame"]
    signal = told.get("signal")
    bases = (CallFailed,) if signal is None else (CallFailed, _SIGNALS[signal])
    kind = type(told["type"], bases, {"__module__": where})
    failed = kind(told["text"])
    failed.original = told["original"]
    failed.frame = None if frame is None else CodeFrame(*frame)
    failed.traceback, failed.verdict = told["traceback"], told["verdict"]
    if not told["is_own"]:
        raise failed
    own: type[FlujoError] = getattr(flujo.exceptions, told["type"])
    facts = {"executor": where} if issubclass(own, ExecutorError) else {}
    raise own(told["text"], hint=told["hint"], retryable=told["retryable"], **facts) from failed
