"""Questions in the database of a server, for tests of its pages."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.approvals import answer_schema, digest
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, PauseKind, RunStatus, Write
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from flujo.domain.store import StateStore
    from flujo.services.workspace import Workspace

ARGUMENTS = {"order": "17", "amount": 42}
PARAMETERS = {
    "type": "object",
    "required": ["order", "amount"],
    "properties": {
        "order": {"type": "string", "maxLength": 9},
        "amount": {"type": "integer", "maximum": 100},
    },
}


def question(schema: Any = None, message: str = "Refund **the order**?", **changes: Any) -> Pause:
    """Return a question at the step `ask`."""
    encoded = None if schema is None else canonical.encode(schema)
    return Pause(pause_id=StepPath("ask"), message=message, answer_schema=encoded, **changes)


def approval(*, editable: bool = True, arguments: Any = ARGUMENTS) -> Pause:
    """Return the question about a call, as the engine asks it."""
    bound_to = digest(arguments=arguments)
    written = canonical.encode(arguments).decode()
    return Pause(
        pause_id=StepPath("ask"),
        kind=PauseKind.APPROVAL,
        message=f"step 'ask' wants to call `refund`.\narguments: {written}\ndigest:    {bound_to}",
        answer_schema=answer_schema(bound_to, arguments, PARAMETERS, editable=editable),
    )


def opened(browser: TestClient, workspace: Workspace, run_id: str, *pauses: Pause, **facts: Any) -> None:
    """Begin a run in the database of a server, and pause it with questions."""

    async def open_them() -> None:
        store = await workspace.store()
        run = await store.accept(new_run(run_id, **facts), {})
        await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=pauses))
        await store.write(move(run, RunStatus.PAUSED))

    call(browser, open_them)


def answer_of(browser: TestClient, workspace: Workspace, run_id: str) -> Any:
    """Return the answer to the first question of a run; None while it is open."""

    async def pauses() -> list[Pause]:
        store: StateStore = await workspace.store()
        return await store.pauses(run_id)  # type: ignore[arg-type]

    [first, *_] = call(browser, pauses)
    return None if first.answer is None else json.loads(first.answer)


def call(browser: TestClient, function: Any) -> Any:
    """Call a coroutine function in the event loop of the server."""
    assert browser.portal is not None
    return browser.portal.call(function)


def fields(page: str) -> dict[str, str]:
    """Return the hidden fields and the filled-in texts of a page by name, as a browser sends them."""
    found = {}
    for tag in re.findall(r"<input [^>]*>", page):
        attributes = {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        if attributes.get("type") in ("checkbox", "radio") and " checked" not in tag:
            continue
        if "name" in attributes:
            found[attributes["name"]] = attributes.get("value", "on")
    for name, text in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL):
        found[unescape(name)] = unescape(text)
    for name, inside in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', page, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', inside)
        found[unescape(name)] = chosen[1] if chosen else ""
    return found
