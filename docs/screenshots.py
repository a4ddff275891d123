"""Takes the screenshots of the documentation from the pages of `flujo serve`: `python docs/screenshots.py`, or `make docs`.

The pages show runs with a scripted agent, at a time that stands still, so that the same code makes the same pages.
`docs/pictures/pages.json` has the digest of the page of each picture; `tests/docs/test_screenshots.py` compares them with
those of now. Only the pictures need Chromium: without it, this names the pictures that are out of date, and fails if there
are any.
"""

import asyncio
import base64
import hashlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2

from flujo.domain.access import Principal, Role
from flujo.domain.acts import Via
from flujo.domain.approvals import answer_schema, digest
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Move, NewRun, Pause, PauseKind, RunStatus, Write
from flujo.domain.usage import Usage
from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.services.inspection.task_client import TaskClient
from flujo.services.project.project import find_project
from flujo.services.project.system import SystemClock
from flujo.services.workspace import Workspace
from flujo.settings_serve import ProxyTable, ServeTable, UserTable
from flujo.testing import ScriptedAgent, TestClock, scripted_runner

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
DIGESTS = PICTURES / "pages.json"
URL = "http://127.0.0.1:8400"
BEGIN = datetime(2026, 11, 23, 6, tzinfo=UTC)
RUN = RunId("8bed3c2061d7ab004c11d5e0f3927f68")
LETTER = "A-1001 (oak desk lamp, 39.90 EUR) can be refunded in full within five days."
REFUND = {"order": "A-1008", "amount": 75}
REFUND_SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}, "amount": {"type": "number"}}}
ON_THE_PAGES = (("ticket_triage", 9_000, 6), ("refund_desk", 21_000, 95), ("second_opinion", 34_000, 240))
"""The blueprints of the figures: name, cost of a run in millionths of a dollar, seconds."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A page, and the window in which it is shown."""

    path: str
    width: int
    height: int
    is_dark: bool = False


SHOWN = {
    "inbox": Picture("/", 1200, 620),
    "question": Picture(f"/questions/{RUN}/approve", 1000, 900),
    "question-on-a-phone": Picture(f"/questions/{RUN}/approve", 390, 780, is_dark=True),
    "run": Picture(f"/runs/{RUN}", 1000, 1000),
    "figures": Picture("/stats", 1000, 860),
}


class _Shown(Workspace):
    """The project of this repository with a store in memory."""

    def __init__(self, store: Any) -> None:
        super().__init__(find_project(ROOT))
        self._shown = store

    async def store(self) -> Any:
        """Return the store in memory."""
        return self._shown


@asynccontextmanager
async def served() -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of a server in this process, whose runs are those of the pictures."""
    clock = TestClock(BEGIN)
    store = clock.memory_store()
    settings = ServeTable(
        users={"ada": UserTable(role=Role.OPERATOR)},
        proxy=ProxyTable(trusted=("127.0.0.1",), user_header="X-User"),
    )
    with mock.patch.object(SystemClock, "now", clock.now):
        async with _Shown(store) as workspace:
            await _week(store, clock)
            await _questions(store, clock, workspace)
            app = application(Serving(workspace, settings))
            async with httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=app, client=("127.0.0.1", 50_000)),
                base_url=URL,
                headers={"X-User": "ada"},
                cookies={"flujo_visitor": "v" * 43},
            ) as client:
                yield client


async def _week(store: Any, clock: TestClock) -> None:
    """Record the runs of seven days, of which some have failed."""
    for day in range(7):
        for place, (name, cost, seconds) in enumerate(ON_THE_PAGES):
            for number in range(3 + (day * (place + 2) + place) % 5):
                run_id = RunId(f"{name}-{day}-{number}")
                factor = 1 + (day * 3 + number * 5 + place) % 7 / 5
                used = Usage(
                    input_tokens=round(cost * factor / 10),
                    output_tokens=round(cost * factor / 40),
                    requests=2,
                    cost_micro_usd=round(cost * factor),
                )
                run = await store.accept(_new(run_id, name), {})
                await clock.advance(seconds=seconds * factor)
                failed = (day + number + place) % 9 == 8
                status = RunStatus.FAILED if failed else RunStatus.COMPLETED
                await store.write(Write(run_id=run_id, fence=run.fence, move=Move(status=status, usage=used)))
        await clock.advance(BEGIN + timedelta(days=day + 1) - clock.time)


async def _questions(store: Any, clock: TestClock, workspace: Workspace) -> None:
    """Open questions in the last hours; the newest is that of a run of the blueprint in the README."""
    approval = Pause(
        pause_id=StepPath("serve"),
        kind=PauseKind.APPROVAL,
        message="Refund 75 EUR for order A-1008?",
        answer_schema=answer_schema(digest(arguments=REFUND), REFUND, REFUND_SCHEMA, editable=True),
        deadline_s=2 * 86_400,
    )
    await _asked(store, "desk", "refund_desk", approval)
    await clock.advance(hours=2)
    pause = Pause(pause_id=StepPath("edit"), message="Is this letter ready to be sent?", deadline_s=4 * 3600)
    await _asked(store, "letter", "draft_review", pause)
    await clock.advance(minutes=35)
    await _asked(
        store, "reply", "replies", Pause(pause_id=StepPath("pass_on"), message="Which team has to answer?")
    )
    bob = TaskClient(workspace, principal=Principal("bob", Role.ANSWERER, via=Via.WEB))
    await bob.claim_question("reply", "pass_on")

    def answers(value: Any, seconds: float, tokens: int, cost: int) -> ScriptedAgent:
        async def answer(_: Any) -> Any:
            await clock.advance(seconds=seconds)
            return value

        used = Usage(input_tokens=tokens, output_tokens=tokens // 5, requests=1, cost_micro_usd=cost)
        return ScriptedAgent(answer, usage=used, model="SmolLM2-135M-Instruct")

    script = {
        "sorter": answers({"label": "refund"}, 1.6, 198, 900),
        "writer": answers(LETTER, 2.3, 98, 2_100),
    }
    given = {"text": "I want my money back for A-1001, the lamp is broken."}
    async with scripted_runner("ticket_triage", script, project=ROOT, store=store, clock=clock) as runner:
        await runner.run_result_async(given, run_id=RUN)
    await clock.advance(minutes=4)


async def _asked(store: Any, run_id: str, pipeline: str, pause: Pause) -> None:
    """Record a run that waits for an answer."""
    used = Usage(input_tokens=1_200, output_tokens=180, requests=2, cost_micro_usd=14_000)
    run = await store.accept(_new(RunId(run_id), pipeline), {})
    move = Move(status=RunStatus.PAUSED, usage=used)
    await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=(pause,), move=move))


def _new(run_id: RunId, pipeline: str) -> NewRun:
    return NewRun(run_id=run_id, pipeline=pipeline, closure="c" * 64, input=b"{}", context=b"{}")


async def digests() -> dict[str, str]:
    """Return the digest of the page of each picture as it is now."""
    async with served() as client:
        found = {}
        for name, picture in SHOWN.items():
            answer = await client.get(picture.path)
            answer.raise_for_status()
            found[name] = hashlib.sha256(answer.content).hexdigest()
        return found


def outdated() -> str:
    """Return which pictures are not of the page of now, and what takes them; empty when there are none."""
    now, kept = asyncio.run(digests()), json.loads(DIGESTS.read_text("utf-8"))
    old = [name for name in now if now[name] != kept.get(name) or not _file(name).exists()]
    if not old:
        return ""
    names = ", ".join(str(_file(name).relative_to(ROOT)) for name in old)
    return f"out of date: {names}. `make docs` takes them again, where `chromium` is on PATH"


def _file(name: str) -> Path:
    return PICTURES / f"{name}.webp"


async def take(chromium: str) -> dict[str, bytes]:
    """Return each picture as WebP.

    Args:
        chromium: the path of the browser.
    """
    from playwright.async_api import Route, async_playwright

    async with served() as client, async_playwright() as playwright:

        async def answer(route: Route) -> None:
            found = await client.get(route.request.url)
            await route.fulfill(status=found.status_code, headers=dict(found.headers), body=found.content)

        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        pictures = {}
        for name, picture in SHOWN.items():
            context = await browser.new_context(
                viewport={"width": picture.width, "height": picture.height},
                color_scheme="dark" if picture.is_dark else "light",
                java_script_enabled=False,
            )
            await context.route("**", answer)
            page = await context.new_page()
            await page.goto(f"{URL}{picture.path}")
            devtools = await context.new_cdp_session(page)
            said = await devtools.send("Page.captureScreenshot", {"format": "webp", "quality": 80})
            pictures[name] = base64.b64decode(said["data"])
            await context.close()
        await browser.close()
        return pictures


def main() -> None:
    """Take every picture, and write the digests of their pages.

    Raises:
        SystemExit: there is no Chromium, and a picture is out of date.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        if missing := outdated():
            sys.exit(missing)
        sys.stderr.write("the screenshots are up to date; without `chromium` on PATH none is taken\n")
        return
    for name, data in asyncio.run(take(chromium)).items():
        _file(name).write_bytes(data)
    DIGESTS.write_text(json.dumps(asyncio.run(digests()), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
