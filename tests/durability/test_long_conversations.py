"""A long conversation: its turns stay as small as the first ones, and its resume reads each of them once."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

import flujo
from agents.provider_server import Fault, Response, provider_server
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import GranularStep
from flujo.state.store import SqlStateStore
from support import pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.journal import Entry

TURNS = int(os.environ.get("FLUJO_TURNS", "50"))
DATABASES = ["sqlite", "postgres"] if "FLUJO_TURNS" in os.environ else ["sqlite"]
"""A turn writes the same entries on both."""
TABLES = ("runs", "journal", "blobs", "blob_refs", "intents", "budget_holds")
MOST_QUERIES = 20
"""Reads and writes of a resume with one request, whatever the number of turns."""
OTHER_ENTRIES = 10
"""Entries that a resume reads beside the turns."""

pytestmark = pytest.mark.timeout(7200)


class CountingStore:
    """A store that counts its calls, and the entries that it returns."""

    def __init__(self, store: SqlStateStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        self.entries_read = 0

    async def entries(self, *given: Any, **named: Any) -> Sequence[Entry]:
        """Forward a read of entries."""
        self.calls["entries"] += 1
        found = await self._store.entries(*given, **named)
        self.entries_read += len(found)
        return found

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def counted(*given: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return method(*given, **named)

        return counted


async def stored(store: SqlStateStore) -> int:
    """Return the bytes of all values in all tables."""

    def ask(connection: sa.Connection) -> int:
        return sum(
            len(value) if isinstance(value, bytes | str) else 8
            for table in TABLES
            for row in connection.execute(sa.text(f"SELECT * FROM {store.database.table_prefix}{table}"))
            for value in row
            if value
        )

    return await store.read(ask)


def model(is_down: list[bool]) -> Callable[[dict[str, Any]], Response]:
    """Return a model that calls `look` in each turn but the last, at which it may be down."""

    def answer(request: dict[str, Any]) -> Response:
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if turn < TURNS - 1:
            return Response(tool_call=("look", {"number": turn}))
        return Fault.BAD_REQUEST.value if is_down else Response("All seen.")

    return answer


@pytest.mark.guarantee("G1", "G2")
@pytest.mark.parametrize("store_uri", DATABASES, indirect=True)
async def test_a_turn_costs_the_same_bytes_early_and_late_and_a_resume_reads_it_once(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqlStateStore.open(store_uri)
    marks = {TURNS * tenth // 10: 0 for tenth in (1, 2, 8, 9)}

    @flujo.tool(effect="read")
    async def look(number: int) -> str:
        """Look at a number."""
        if number in marks:
            marks[number] = await stored(store)
        return f"{number:04d} has been seen, and here is what it looks like: " + "." * 100

    agent = AgentSpec(
        "seer",
        "openai-chat:gpt-4o-mini",
        tools=[look],
        instructions="Look.",
        model_settings={"max_tokens": 50},
    )
    tree = pipeline(GranularStep("see", agent, max_turns=TURNS))
    is_down = [True]
    with provider_server() as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        provider.will_answer(model(is_down))
        assert (await start(tree, store, "Go.")).status is RunStatus.FAILED
        is_down.clear()
        requests = len(provider.requests)
        counting: Any = CountingStore(store)
        result = await resume(tree, counting, retry_failed=True)
        assert (result.status, result.output) == (RunStatus.COMPLETED, "All seen.")
        assert len(provider.requests) == requests + 1
        first, second, later, last = marks.values()
        early, late = (second - first) / (TURNS / 10), (last - later) / (TURNS / 10)
        assert 0.9 < late / early < 1.1, (early, late)
        assert TURNS - 1 <= counting.entries_read <= TURNS + OTHER_ENTRIES
        assert counting.calls.total() <= MOST_QUERIES, counting.calls
        sent = json.dumps(provider.requests[-1]["messages"])
        assert all(f"{number:04d} has been seen" in sent for number in range(TURNS - 1))
    assert len(await store.entries(RunId("run"))) > 2 * (TURNS - 1)
    await store.aclose()
