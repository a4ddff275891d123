"""The page of a run: one file that loads nothing, with every text of the run as a text."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

import missing
from flujo.cli.trace_page import page
from flujo.client import TaskClient
from flujo.domain.steps import GranularStep, HumanInTheLoopStep, MapStep, Step
from flujo.domain.usage import Usage
from flujo.governance.sink import GATE
from flujo.services.inspection import trace_html
from flujo.state.memory_store import MemoryStateStore
from flujo.testing import ScriptedAgent, ToolCall
from support import Expr, Text, World, call, pipeline, start

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo, Project
    from flujo.domain.pipeline import Pipeline

HOSTILE = (
    "</pre></details></script><script>document.title='taken'</script>"
    "<img src=x onerror=\"document.title='taken'\"><style>*{display:none}</style>\" onclick='x' &amp; \u202egnp"
)
VOID = ("meta", "!doctype")
KEY = "a-key-of-a-&-service"


class Parsed(HTMLParser):
    """The tags, attributes and texts of a page; each tag must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def hostile_run() -> Pipeline:
    """Return a pipeline in which every text that a run can have is hostile."""

    def lookup(name: str) -> str:
        """Look a customer up."""
        raise ValueError(HOSTILE)

    def wrong(data: Any) -> None:
        raise KeyError(HOSTILE)

    usage = Usage(input_tokens=1300, output_tokens=120, requests=1)
    talking = ScriptedAgent([[ToolCall("lookup", {"name": HOSTILE})], HOSTILE], tools=[lookup], usage=usage)
    return pipeline(
        Step(
            "ask", agent=ScriptedAgent([HOSTILE], tools=[lookup], usage=usage), input=Text("Sort {{ input }}")
        ),
        GranularStep("talk", talking),
        MapStep("each", over=Expr("[1]"), body=pipeline(Step("wrong", wrong)), on_error="collect"),
        HumanInTheLoopStep("question", message="Send {{ input }}?"),
        name="hostile",
    )


@pytest.fixture
async def hostile() -> str:
    store = MemoryStateStore()
    await start(hostile_run(), store, HOSTILE)
    return page(await TaskClient(store).get_task("run", transcripts=True))


def test_every_text_is_a_text_and_nothing_is_loaded(hostile: str) -> None:
    parsed = Parsed(hostile)
    assert parsed.tags == {
        *("html", "meta", "title", "style", "h1", "h2", "code", "pre", "dl", "dt", "dd", "div", "span", "b"),
        *("table", "tr", "th", "td", "details", "summary"),
        *("svg", "rect"),
    }
    allowed = {"lang", "charset", "http-equiv", "content", "name", "class", "style", "title", "scope", "open"}
    allowed |= {"x", "width", "height", "aria-hidden", "data-path"}
    assert parsed.attributes <= allowed
    assert "<script>document.title='taken'</script>" in parsed.text
    assert "\u202e" not in hostile, "a text cannot turn the rest of the line around"
    assert "http" not in re.sub("http-equiv", "", hostile)
    assert "default-src 'none'" in hostile


def test_the_page_has_the_timeline_the_costs_the_messages_and_what_waits(hostile: str) -> None:
    text = Parsed(hostile).text
    for each in (
        "Timeline",
        "Costs",
        "Steps",
        "4,260 tokens",
        "scripted",
        "messages",
        "at cli/test_trace_page.py",
        "paused",
    ):
        assert each in text.replace("tests/cli", "cli"), each
    assert hostile.count("<rect ") >= 8
    assert '<details open data-path="question"><summary><b class="paused">question</b>' in hostile


async def test_secrets_are_masked_before_they_are_escaped() -> None:
    store = MemoryStateStore()
    await start(pipeline(call("a", World().add("a"))), store, f"my {KEY}")
    GATE.know([KEY], "SERVICE_KEY")
    text = page(await TaskClient(store).get_task("run", transcripts=True))
    assert "of-a-" not in text


async def test_long_values_and_long_timelines_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_html, "MOST_BARS", 2)
    store = MemoryStateStore()
    each = MapStep(
        "m", over=Expr("[1, 2, 3]"), body=pipeline(call("w", World().add("w", lambda n: "x" * 30_000)))
    )
    await start(pipeline(each), store)
    detail = await TaskClient(store).get_task("run", transcripts=True)
    short, whole = page(detail), page(detail, full=True)
    assert "(30,000 characters; <code>--full</code> shows all)" in short
    assert "5 more steps are not in the timeline" in short
    assert "x" * 30_000 not in short
    assert "x" * 30_000 in whole


@pytest.mark.skipif(shutil.which("chromium") is None, reason=missing.NO_CHROMIUM)
@pytest.mark.timeout(120)
def test_a_browser_shows_the_page_and_executes_nothing_of_it(hostile: str, tmp_path: Path) -> None:
    (tmp_path / "run.html").write_text(hostile, "utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user", "--dump-dom"]
    shown = subprocess.run(
        ["chromium", *words, (tmp_path / "run.html").as_uri()], capture_output=True, timeout=100, check=True
    ).stdout.decode()
    assert "<title>hostile run</title>" in shown
    assert "<script" not in shown
    assert "<img" not in shown


def test_the_command_writes_to_stdout_or_into_a_file(flujo: Flujo, project: Project) -> None:
    assert flujo("run", "flaky", "--input", "hello").exit_code == 1
    printed = flujo("trace", "@last", "--format", "html")
    assert printed.stdout.startswith("<!doctype html>")
    assert re.search(r"skills/work.py:\d+ in needs_file", printed.stdout)
    written = flujo("trace", "@last", "--format", "html", "-o", "run.html")
    assert (written.stdout, written.stderr) == ("", "wrote run.html\n")
    assert (project.root / "run.html").read_text("utf-8") == printed.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-o", "x.html"], 2, "add --format html"),
        (["first", "--format", "html"], 2, "has the whole run"),
        (["--format", "html", "--json"], 2, "has the whole run"),
        (["--format", "html", "-o", "nowhere/x.html"], 2, "cannot be written"),
        (["--format", "pdf"], 2, "pdf"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    flujo: Flujo, project: Project, words: list[str], code: int, says: str
) -> None:
    assert flujo("run", "flaky", "--input", "hello").exit_code == 1
    result = flujo("trace", "@last", *words)
    assert result.exit_code == code
    assert says in result.stderr
    assert not list(project.root.glob("*.html"))
