"""Executes a run that may have ended its worker in a child process, where it can end no other run."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Tell = Callable[[Mapping[str, Any]], None]

OF_QUEUES = "-"
REST_S = 5.0
"""How long no further child is started after one that found no run which it could execute."""
_END_S = 20.0
"""How long a child that is stopped may take to release its run."""

log = logger("flujo.queues")


class Isolation:
    """Starts a child process for a suspect: a run that was cut off twice together with others.

    There is one child at a time. It is a worker of its own, which claims one suspect and ends with it, so its
    death is the death of a process that executed nothing else. It claims by itself, within the limits of the
    queues; what is known before only says that a child is worth its start.

    Args:
        command: the command line of a child, to which the suspect is added. It writes its events as lines of
            JSON to stdout.
        suspect: returns the suspect that a child executes, or `OF_QUEUES` for the next one of the queues, or
            None.
        tell: called with each event of a child, and with `failed` when it was ended by its run.
    """

    def __init__(
        self,
        command: Sequence[str],
        suspect: Callable[[], Awaitable[str | None]],
        tell: Tell,
    ) -> None:
        self._command = command
        self._suspect = suspect
        self._tell = tell
        self._child: asyncio.Task[None] | None = None
        self._process: subprocess.Process | None = None
        self._rests_until = 0.0
        self._is_closed = False

    async def look(self) -> int:
        """Start a child if there is a suspect and no other child; return how many were started.

        Raises:
            StateError: the database cannot be read.
        """
        is_resting = asyncio.get_running_loop().time() < self._rests_until
        if self._child is not None or self._is_closed or is_resting:
            return 0
        if (suspect := await self._suspect()) is None:
            return 0
        self._child = asyncio.create_task(self._attended(suspect), name="flujo-isolated")
        return 1

    async def settled(self) -> None:
        """Wait until the child has ended."""
        if self._child is not None:
            await asyncio.wait([self._child])

    async def aclose(self) -> None:
        """Stop the child, which releases its run. Idempotent."""
        self._is_closed = True
        self._signal(signal.SIGTERM)
        if self._child is not None:
            _, left = await asyncio.wait([self._child], timeout=_END_S)
            if left:
                self._signal(signal.SIGKILL)
            await self.settled()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _attended(self, suspect: str) -> None:
        """Start a child, pass its events on, and say what has ended it."""
        try:
            self._process = await subprocess.create_subprocess_exec(
                *self._command,
                suspect,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C means the worker, which stops its child itself
            )
            if self._is_closed:
                self._signal(signal.SIGTERM)
            begun = await self._heard(self._process)
            code = await self._process.wait()
            if begun is None:
                self._rests_until = asyncio.get_running_loop().time() + REST_S
                if code and not self._is_closed:
                    log.warning("a process for a run that is executed alone ended with %s", _how(code))
            elif code and begun:
                detail = f"it ended its process, in which it was alone: {_how(code)}"
                self._tell({**begun, "event": "failed", "detail": detail})
        except OSError as error:
            self._rests_until = asyncio.get_running_loop().time() + REST_S
            log.warning("could not start a process for a run that is executed alone: %s", error)
        finally:
            self._process = self._child = None

    async def _heard(self, process: subprocess.Process) -> Mapping[str, Any] | None:
        """Pass the events of a child on.

        Returns:
            The run that has begun and not ended; empty when it has ended, None when none has begun.
        """
        begun: Mapping[str, Any] | None = None
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        async for line in process.stdout:
            event = json.loads(line)
            if "error" in event:
                continue  # of the child itself, which has written it to stderr too
            self._tell(event)
            if event["event"] == "begun":
                begun = event
            elif begun is not None or event["event"] == "ended":
                begun = {}
        return begun


def _how(code: int) -> str:
    """Return in words how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
