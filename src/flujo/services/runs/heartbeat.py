"""The heartbeat file of a worker: its modification time says when the event loop last ran."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.exceptions import SettingsError
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from pathlib import Path

BEAT_S = 5.0
"""How often the file is touched."""

log = logger("flujo.queues")


class HeartbeatFile:
    """Touches a file while the event loop runs; a probe of the process compares the file's age with a limit.

    It never uses the database, so a database that does not respond stops no heartbeat.

    Args:
        path: the file; its folder exists.
        every_s: how often it is touched, in seconds.
    """

    def __init__(self, path: Path, every_s: float = BEAT_S) -> None:
        self._path = path
        self._every_s = every_s
        self._beating: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Create the file, and touch it from now on.

        Raises:
            SettingsError: it cannot be written, or it is there already and is not an empty file.
        """
        try:
            if self._path.exists() and (not self._path.is_file() or self._path.stat().st_size):
                raise self._refused("it exists, and it is not an empty file")
            self._path.touch()
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from error
        self._beating = asyncio.create_task(self._beat(), name="flujo-worker-heartbeat")

    async def aclose(self) -> None:
        """Stop, and remove the file; without `begin`, do nothing."""
        if self._beating is None:
            return
        self._beating.cancel()
        await asyncio.wait([self._beating])
        with suppress(OSError):
            self._path.unlink()

    def _refused(self, reason: str) -> SettingsError:
        return SettingsError(
            f"`{command('--heartbeat-file', str(self._path))}`: {reason}",
            hint="name a new file in a folder that this user can write to",
            file=str(self._path),
        )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                self._path.touch()
            except OSError as error:
                log.warning("cannot touch the heartbeat file %s: %s", self._path, error.strerror)
