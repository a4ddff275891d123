"""How a run looks while it runs, from events that are made by hand."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from flujo.cli.progress import LiveTree, PlainLines, outcome_state
from flujo.cli.terminal import Terminal
from flujo.domain.events import Chunk, ItemsKept, RunEnded, RunStarted, StepEnded, StepRetried, StepStarted
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.outcomes import Aborted, BackgroundLaunched, Failure, Paused, Success
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, RunStatus
from flujo.domain.usage import Usage
from flujo.governance.log_lines import configure

if TYPE_CHECKING:
    from flujo.cli.progress import Progress
    from flujo.domain.events import Event

RUN = RunId("0123456789abcdef0123456789abcdef")


def path(text: str) -> StepPath:
    return StepPath(text)


EVENTS: list[Event] = [
    RunStarted(RUN, "triage"),
    StepStarted(path("sort"), "step"),
    Chunk(path("sort"), 1, "ref"),
    StepRetried(path("sort"), 1, ErrorInfo("FLJ302", "the model\ndid not answer"), 0.5),
    StepStarted(path("sort"), "step", 2),
    StepEnded(path("sort"), "step", Success("refund"), 2.14, Usage(300, 12, 1, 0, 1500), 2, model="m"),
    StepEnded(path("extra"), "step", Success(None, skipped=True)),
    StepStarted(path("draft"), "loop"),
    StepStarted(path("draft[0]/write"), "step"),
    StepEnded(path("draft[0]/write"), "step", Success("x"), 61.0, Usage(5, 5, 1, 0, 0, 1)),
    StepEnded(path("draft"), "loop", Success("x"), 61.0),
    StepEnded(path("old"), "step", Success("x"), recorded=True),
    StepEnded(path("approve"), "hitl", Paused((Pause(pause_id=path("approve"), message="Send?"),))),
    StepEnded(path("send"), "step", Failure(ErrorInfo("FLJ401", "no \x1b[31mroute")), 0.3),
    StepEnded(path("stop"), "step", Aborted("enough")),
]


@pytest.fixture(autouse=True)
def _size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


async def play(shown: Progress) -> None:
    with shown:
        for event in EVENTS:
            await shown(event)


async def test_a_pipe_gets_a_line_for_each_event() -> None:
    err = io.StringIO()
    shown = PlainLines(Terminal(err=err))
    await play(shown)
    assert shown.run_id == RUN
    assert err.getvalue() == snapshot("""\
run     triage  0123456789abcdef0123456789abcdef
start   sort
retry   sort  in 0.5s: the model did not answer
start   sort  attempt 2
done    sort  2.1s  312 tokens  $0.0015
skipped extra  0.0s
start   draft
start   draft[0]/write
done    draft[0]/write  1m01s  10 tokens  cost unknown
done    draft  1m01s
kept    old
waiting approve
failed  send  0.3s  no \\x1b[31mroute [FLJ401]
stopped stop  0.0s  enough
""")


async def test_a_terminal_gets_a_tree_at_the_end() -> None:
    err = Screen()
    shown = LiveTree(Terminal(color=False, err=err), clock=lambda: 100.0)
    await play(shown)
    last = "triage" + re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue()).rpartition("triage")[2]
    assert "\n".join(line.rstrip() for line in last.splitlines()) == snapshot("""\
triage  run 0123456789ab
✓ sort                      2.1s  312 tokens  $0.0015
- extra                     skipped
✓ draft                     1m01s
    [0]
    ✓ write                 1m01s  10 tokens  cost unknown
✓ old                       recorded
⏸ approve
✗ send                      0.3s  no \\x1b[31mroute
■ stop                        enough\
""")


async def test_a_download_writes_a_line_every_tenth_to_a_pipe() -> None:
    err = io.StringIO()
    shown = PlainLines(Terminal(err=err))
    for done in range(101):
        shown.download(done * 1_000_000, 100_000_000)
    assert len(err.getvalue().splitlines()) == 11


async def test_a_long_tree_collapses_completed_composites() -> None:
    err = Screen()
    shown = LiveTree(Terminal(color=False, err=err), clock=lambda: 100.0)
    with shown:
        await shown(RunStarted(RUN, "long"))
        for index in range(200):
            await shown(StepEnded(path(f"many[{index}]/x"), "step", Success(1)))
        await shown(StepEnded(path("many"), "loop", Success(1), 3.0))
    final = err.getvalue().rpartition("long  run")[2]
    assert "many" in final
    assert "[7]" not in final


CONVERSATION: list[Event] = [
    RunStarted(RUN, "research"),
    StepStarted(path("ask"), "granular"),
    StepStarted(path("ask/turn[0]"), "turn"),
    StepEnded(path("ask/turn[0]"), "turn", Success("calls"), 1.0, Usage(30, 2, 1)),
    StepStarted(path("ask/turn[0]/tool[0]"), "tool", tool="search"),
    StepEnded(path("ask/turn[0]/tool[0]"), "tool", Success("found"), 0.5),
    StepStarted(path("ask/turn[1]"), "turn"),
    StepEnded(path("ask/turn[1]"), "turn", Success("calls"), 2.0, Usage(60, 2, 1)),
    StepStarted(path("ask/turn[1]/tool[0]"), "tool", tool="search"),
    StepStarted(path("ask/turn[1]/tool[1]"), "tool", tool="post"),
    StepEnded(path("ask/turn[1]/tool[1]"), "tool", Success("sent"), 0.25),
]


def drawn(err: Screen) -> str:
    """Return the last drawing of the tree, as text, without its first line."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue()).rpartition("research  ")[2]
    return "\n".join(line.strip("\r").rstrip() for line in text.split("\n")[1:])


async def test_a_terminal_shows_the_running_turn_and_its_tools_by_name() -> None:
    err, now = Screen(), 100.0
    shown = LiveTree(Terminal(color=False, err=err), clock=lambda: now)
    with shown:
        for event in CONVERSATION:
            await shown(event)
        now += 7.0
        while "7.0s" not in (live := drawn(err)):
            time.sleep(0.01)  # noqa: ASYNC251 - a thread draws the screen some times a second
    assert live == snapshot("""\
⠋ ask                       7.0s
  ✓ turn 1                  2.0s  62 tokens  $0.00
    ⠋ search                7.0s
    ✓ post                  0.2s\
""")
    assert drawn(err) == snapshot("""\
⠋ ask                       7.0s
  ✓ turn 0                  1.0s  32 tokens  $0.00
    ✓ search                0.5s
  ✓ turn 1                  2.0s  62 tokens  $0.00
    ⠋ search                7.0s
    ✓ post                  0.2s
""")


async def test_a_resumed_tree_shows_recorded_calls_below_their_turn() -> None:
    err = Screen()
    shown = LiveTree(Terminal(color=False, err=err), clock=lambda: 100.0)
    with shown:
        await shown(RunStarted(RUN, "research", resumed=True))
        await shown(StepEnded(path("ask/turn[4]/tool[0]"), "tool", Success("x"), recorded=True))
        await shown(StepStarted(path("ask/turn[5]"), "turn"))
    assert drawn(err) == snapshot("""\
  ask
    turn 4
    ✓ tool 0                recorded
  ⠋ turn 5                  0.0s
""")


async def test_a_pipe_names_the_tool_that_starts() -> None:
    err = io.StringIO()
    with PlainLines(Terminal(err=err)) as shown:
        for event in CONVERSATION[:5]:
            await shown(event)
    assert err.getvalue().splitlines()[-1] == snapshot("start   ask/turn[0]/tool[0]  search")


async def test_a_resumed_run_says_what_is_kept() -> None:
    plain, screen = io.StringIO(), Screen()
    for shown in (PlainLines(Terminal(err=plain)), LiveTree(Terminal(err=screen), time.monotonic)):
        with shown:
            await shown(ItemsKept(path("each"), 1500))
            await shown(StepEnded(path("report"), "step", BackgroundLaunched("b-1"), recorded=True))
    assert plain.getvalue() == snapshot("""\
kept    each  1,500 items
kept    report
""")
    assert "1,500 items kept" in screen.getvalue()
    assert "recorded" in screen.getvalue()
    assert outcome_state(BackgroundLaunched("b-1")) == "launch"


async def test_a_message_of_a_failure_stands_in_one_line() -> None:
    lost = Failure(ErrorInfo("FLJ401", "no answer", path="all[0]/send"))

    def failed(path: str, number: int) -> StepEnded:
        error = ErrorInfo("FLJ401", f"no answer to {number}", path="all")
        return StepEnded(StepPath(path), "step", Failure(error), 1.0)

    going_on: list[Event] = [failed("all[0]", 1), failed("all[1]", 2), StepStarted(StepPath("next"), "step")]
    assert [line for line in await plain(*going_on) if line.startswith("failed")] == [
        "failed  all[0]  1.0s  no answer to 1 [FLJ401]",
        "failed  all[1]  1.0s  no answer to 2 [FLJ401]",
    ]
    inner, outer = (StepEnded(StepPath(path), "step", lost, 1.0) for path in ("all[0]/send", "all"))
    ended = RunEnded(RunId("r1"), RunStatus.FAILED)
    assert await plain(inner, outer, ended) == [
        "failed  all[0]/send  1.0s  [FLJ401]",
        "failed  all  1.0s  [FLJ401]",
    ]
    assert (await plain(inner, outer, StepStarted(StepPath("next"), "step")))[:2] == [
        "failed  all[0]/send  1.0s  no answer [FLJ401]",
        "failed  all  1.0s  [FLJ401]",
    ]


async def plain(*events: Event) -> list[str]:
    err = io.StringIO()
    with PlainLines(Terminal(out=io.StringIO(), err=err)) as lines:
        for event in events:
            await lines(event)
    return err.getvalue().splitlines()


async def test_without_colour_the_tree_has_no_styles_and_with_it_some() -> None:
    plain, painted = Screen(), Screen()
    for err, color in ((plain, False), (painted, True)):
        await play(LiveTree(Terminal(color=color, err=err), clock=lambda: 100.0))
    styles = re.compile(r"\x1b\[[0-9;]*m")
    assert styles.findall(plain.getvalue()) == []
    assert "\x1b[1m" in styles.findall(painted.getvalue())


async def test_a_log_line_stands_above_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Screen()
    monkeypatch.setattr(sys, "stderr", err)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    configure("text", "", lambda: sys.stderr)
    with LiveTree(Terminal(color=False, err=err), clock=lambda: 100.0) as shown:
        await shown(EVENTS[0])
        shown._live.refresh()
        logging.getLogger("flujo.x").warning("it is late")
    lines = err.getvalue().splitlines()
    (line,) = [each for each in lines if "it is late" in each]
    assert re.fullmatch(r"(?:\x1b\[[0-9;?]*[A-Za-z]|\r)*\S+Z WARNING flujo\.x it is late\s*", line)
    assert "triage" in "".join(lines[lines.index(line) + 1 :])
