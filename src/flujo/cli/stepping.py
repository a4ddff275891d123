"""`flujo run --step`: waits at the terminal after every step, and shows what it has returned."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from flujo.cli.progress import PlainLines
from flujo.domain import paths
from flujo.domain.events import Event, StepEnded, StepStarted
from flujo.domain.outcomes import Success
from flujo.domain.paths import ROOT, StepPath
from flujo.exceptions import SettingsError
from flujo.services.inspection import formatting
from flujo.services.inspection.formatting import as_json as json_text
from flujo.services.inspection.task_client import TaskClient

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.workspace import Workspace

_KEYS = "Enter: next step, o: output, i: input, c: context, e: to the end, q: quit"
_INSIDE = ("turn", "summary", "tool")
"""The kinds of what happens inside a step."""


def require_terminal(terminal: Terminal) -> None:
    """Check that there is a terminal to ask at.

    Raises:
        SettingsError: stdin or stderr is not a terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty() or not terminal.err.isatty():
        raise SettingsError(
            "--step asks at a terminal after every step, and there is none",
            hint="leave `--step` out; `flujo trace` shows every step afterwards",
        )


class Stepping(PlainLines):
    """A display of progress that waits after every step. Nothing new begins while it waits.

    A quit stops the run like Ctrl-C: the steps so far are recorded, and `flujo resume` continues it.

    Args:
        terminal: where the lines and the questions go.
    """

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._around: set[StepPath] = {ROOT}
        """The paths of steps that have begun a step inside."""
        self._one_at_a_time = asyncio.Lock()
        self._to_the_end = False
        self.workspace: Workspace | None = None
        """Reads what a step has got; set once it is open."""

    async def __call__(self, event: Event) -> None:
        """Show an event; after a step, wait for an answer."""
        async with self._one_at_a_time:
            await super().__call__(event)
            if isinstance(event, StepStarted) and event.kind not in _INSIDE:
                above = event.path
                while (above := paths.parent(above)) not in self._around:
                    self._around.add(above)
            if isinstance(event, StepEnded) and self._is_step(event) and not self._to_the_end:
                await self._ask(event)

    def _is_step(self, event: StepEnded) -> bool:
        """Return whether a step of its own has just been executed, and not the steps inside it."""
        was_executed = isinstance(event.outcome, Success) and not event.outcome.skipped and not event.recorded
        return was_executed and event.kind not in _INSIDE and event.path not in self._around

    async def _ask(self, event: StepEnded) -> None:
        output = event.outcome.output if isinstance(event.outcome, Success) else None
        self._terminal.say(f"  output  {formatting.brief(output, 160)}")
        self._terminal.say(f"  {_KEYS}", "dim")
        while True:
            match (await _line()).strip().casefold():
                case "":
                    return
                case "e":
                    self._to_the_end = True
                    return
                case "o":
                    self._show(output)
                case "i":
                    self._show((await self._seen(event.path))[0])
                case "c":
                    self._show((await self._seen(event.path))[1])
                case "q":
                    signal.raise_signal(signal.SIGINT)
                    await asyncio.Event().wait()  # until the signal cancels this task
                case other:
                    self._terminal.say(f"  {other!r} is none of them. {_KEYS}", "yellow")

    async def _seen(self, path: StepPath) -> tuple[Any, Any]:
        """Return the input of a step and the context of the run, as they are recorded."""
        if self.workspace is None:
            return None, None
        detail = await TaskClient(self.workspace).get_task(self.run_id)
        return detail.trace.at(path).input, detail.context

    def _show(self, value: Any) -> None:
        self._terminal.say(value if isinstance(value, str) else json_text(value, indent=True))


async def _line() -> str:
    """Return a line that is typed; the end of stdin is `q`."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline() or "q"
