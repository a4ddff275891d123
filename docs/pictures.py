"""Writes the pictures of the documentation from a real run: `python docs/pictures.py [FOLDER]`, or `make docs`.

Agents answer from a script, and durations are those of the list below, so that the same code writes the same bytes.
`tests/docs/test_pictures.py` fails when a picture is out of date.
"""

import asyncio
import io
import re
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.text import Text

from flujo.cli.outline import show_outline
from flujo.cli.progress import LiveTree
from flujo.cli.terminal import Terminal
from flujo.domain.events import Chunk, RunStarted, StepEnded, StepStarted
from flujo.domain.usage import Usage
from flujo.services.checks.validation import compiled_or_refused
from flujo.services.inspection.tool_effects import declared_effects, notes
from flujo.services.project.project import find_project
from flujo.testing import ScriptedAgent, scripted_runner

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
RUN = "8bed3c2061d7ab004c11d5e0f3927f68"
COLUMNS = 96
SECONDS = {"sort": 1.6, "draft[0]/write": 2.3, "draft[0]/check": 0.1}
SHOWN_UNTIL = "draft[0]/write"
"""The picture shows the moment at which this step gets the answer of its model."""
LETTER = "A-1001 (oak desk lamp, 39.90 EUR) can be refunded in full within five days."


class Screen(io.StringIO):
    """A stream that counts as a terminal."""

    def isatty(self) -> bool:
        """Return true."""
        return True


def live_tree() -> str:
    """Return the picture of a run while a model writes."""
    return _picture(asyncio.run(_last_frame()), "flujo run ticket_triage --input-file ticket.txt")


async def _last_frame() -> str:
    """Run the blueprint, show its events on a screen, and return the last frame."""
    events: list[Any] = []

    async def keep(event: Any) -> None:
        events.append(event)

    sorter = ScriptedAgent([{"label": "refund"}], usage=Usage(input_tokens=198, output_tokens=8, requests=1))
    script = {"sorter": sorter, "writer": LETTER}
    given = {"text": "I want my money back for A-1001, the lamp is broken."}
    async with scripted_runner("ticket_triage", script, project=ROOT) as runner:
        await runner.run_result_async(given, run_id=RUN, sink=keep)
    screen, now = Screen(), 0.0
    tree = LiveTree(Terminal(err=screen), clock=lambda: now)
    with tree:
        for event in events:
            path = str(getattr(event, "path", ""))
            await tree(
                replace(event, seconds=SECONDS.get(path, 0.0)) if isinstance(event, StepEnded) else event
            )
            if isinstance(event, StepStarted) and path == SHOWN_UNTIL:
                await tree(Chunk(event.path, 1, LETTER[:36]))
                now = SECONDS[path]
                break
    title = next(event.pipeline for event in events if isinstance(event, RunStarted))
    frames = re.sub(r"\x1b\[[0-9;?]*[A-ln-zA-Z]", "", screen.getvalue())
    return "\x1b[1m" + title + frames.rpartition(title)[2]


def graph() -> str:
    """Return the picture of a blueprint."""
    project = find_project(ROOT)
    pipeline = compiled_or_refused(project, project.locate("ticket_triage", ROOT))
    screen = Screen()
    about = partial(notes, effects=declared_effects(project))
    show_outline(Terminal(out=screen, err=screen), pipeline, unfold=False, notes=about)
    return _picture(screen.getvalue(), "flujo graph ticket_triage")


def _picture(text: str, title: str) -> str:
    """Return a text with colours as an SVG that uses the fonts of its reader."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(text.replace("\r", "").strip("\n")), no_wrap=True, overflow="ellipsis")
    svg = console.export_svg(title=title, unique_id="flujo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace(
        "Fira Code, ", "ui-monospace, Menlo, Consolas, "
    )
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def main(folder: Path = PICTURES) -> None:
    """Write every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with mock.patch.dict("os.environ", variables), redirect_stdout(sys.stderr):
        for picture in (live_tree, graph):
            (folder / f"{picture.__name__.replace('_', '-')}.svg").write_text(picture(), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
