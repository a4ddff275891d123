"""Every shape of a run, replayed, exported and forked: nothing differs, and nothing before a fork happens again."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from durability import crash_programs
from durability.crash_programs import ENDS, SETTINGS, SHAPES, Effects, ended, sent_event
from durability.crash_servers import Shop, shop
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.paths import FAILURE, FINALLY, StepPath, bounds
from flujo.domain.run import RunStatus
from flujo.services.project.project import find_project
from flujo.services.recorded.replay import replay
from flujo.services.replay.export import export_run
from flujo.services.replay.run_file import RunFile
from flujo.services.runs.replays import replayed
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from durability.world import World
    from flujo.domain.models import PipelineResult

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""A run is forked at each of its paths when this is set, and otherwise at those of its top-level steps alone."""
WHOLE = RunId("run-0")
INSIDE = {
    **dict.fromkeys(("propose", "evaluate"), "search"),
    **dict.fromkeys(("spare", "fallback"), "broken"),
    **dict.fromkeys(("x", "deep", "after"), "talk"),
}
"""The top-level steps of effects that no step of the tree has: those of agents, fallbacks and tools."""


class Heard:
    """A world in this process: what happened, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def effect(self, key: str, args: Any = None, mode: str = "answer") -> None:
        self.log.append(key)

    def effects(self, prefix: str = "") -> list[str]:
        return [key.removeprefix(prefix) for key in self.log if key.startswith(prefix)]

    def calls(self) -> Counter[str]:
        """Return how often each effect of run 0 happened."""
        return Counter(key for key in self.effects("0:") if not key.startswith("ack "))


class Shaped:
    """A run of one shape, and its forks, in one database."""

    def __init__(self, shape: str, store: SqlStateStore, shop: Shop | None) -> None:
        self._build = SHAPES[shape]
        self._shop = shop
        self.store = store
        self._events = 0

    @asynccontextmanager
    async def running(self, world: Any) -> AsyncIterator[tuple[Effects, Flujo[Any, Any, Any]]]:
        """Lend a runner whose effects happen in `world`."""
        effects = Effects(world, "0", self._shop)
        if self._build is crash_programs.awaiting:
            self._events += 1
            await self.store.send_event(sent_event(f"early {self._events}", "early", key="0"))
        async with Flujo[Any, Any, Any](
            self._build(effects), store=self.store, hooks=[effects.acknowledge], range_length=2
        ) as runner:
            yield effects, runner

    async def whole(self, world: Any) -> PipelineResult[Any, Any]:
        """Execute the run to its end, and replay it."""
        async with self.running(world) as (effects, runner):
            if self._build is crash_programs.queueing:
                await crash_programs.worked_off(runner, self.store, WHOLE)
            result = await runner.run_result_async(1, run_id=WHOLE)
            result = await ended(self._build, result, effects, runner, self.store)
            await runner.replay_from_trace(WHOLE)  # raises at a difference
            return result

    async def forked(self, world: Any, at: str) -> PipelineResult[Any, Any]:
        """Fork the run with nothing changed, execute the fork to its end, and replay it."""
        async with self.running(world) as (effects, runner):
            result = await runner.fork_async(WHOLE, at=at, live_effects=True)
            result = await ended(self._build, result, effects, runner, self.store)
            await runner.replay_from_trace(result.run_id)  # raises at a difference
            return result

    async def differences(self, source: Any, folder: Path) -> Any:
        """Return how a replay of the run from a file differs; what it would call is not there."""
        nowhere: Any = None
        pipeline = self._build(Effects(nowhere, "0", self._shop))
        async with Workspace(find_project(folder)) as workspace:
            return (await replay(source, WHOLE, replayed(workspace, pipeline, is_pinned=False))).differences

    async def points(self) -> list[str]:
        """Return the paths of the top-level steps that the run has reached, in order; with `EVERY`, all paths.

        Those of `on_failure` and `finally` are left out: a fork there has tests of its own.
        """
        reached: dict[str, None] = {}
        for entry in await self.store.entries(WHOLE):
            is_step = entry.kind is not EntryKind.DECISION and not entry.path.startswith(":")
            if is_step and bounds(entry.path) is None:
                path = StepPath(entry.path.partition("!")[0])
                reached[path if EVERY else _top(path)] = None
        return list(reached)

    def after(self, at: str, calls: Counter[str]) -> Counter[str]:
        """Return those of the effects of a run that the top-level step of a path causes, and the steps after it."""
        nowhere: Any = None
        pipeline = self._build(Effects(nowhere, "0"))
        top = INSIDE | {step.name: _top(path) for path, step in pipeline.walk()}
        order = [*(step.name for step in pipeline.steps), f":{FAILURE}", f":{FINALLY}"]
        first = order.index(_top(at))
        return Counter(
            {each: times for each, times in calls.items() if order.index(top[_top(each)]) >= first}
        )


def _top(path: str) -> str:
    """Return the name of the top-level step of a path, or of an effect."""
    found = re.match(r":?[a-z0-9]+", path)
    assert found is not None, path
    return found[0]


@pytest.fixture
async def shaped(
    shape: str, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shaped]:
    (tmp_path / "flujo.toml").write_text(SETTINGS.get(shape, ""), "utf-8")
    monkeypatch.chdir(tmp_path)
    store = await SqlStateStore.open(sqlite_uri)
    await store.write_apart(crash_programs.make_table)
    with ExitStack() as exits:
        there = Shop(exits.enter_context(shop(tmp_path)), tmp_path) if shape == "granular_mcp" else None
        yield Shaped(shape, store, there)
        if there is not None:
            await there.aclose()
    await store.aclose()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_run_of_every_shape_is_replayed_exported_and_forked(
    shape: str, shaped: Shaped, tmp_path: Path, outside: World
) -> None:
    world = Heard()
    whole = await shaped.whole(world)
    assert whole.status is ENDS.get(shape, RunStatus.COMPLETED)
    before = await shaped.store.entries(WHOLE)

    file = RunFile.read(await export_run(shaped.store, WHOLE), "a file")
    assert list(file.runs[WHOLE].entries) == before
    assert await shaped.differences(file, tmp_path) == []

    for at in await shaped.points():
        again = Heard()
        fork = await shaped.forked(again, at)
        assert (fork.status, fork.output) == (whole.status, whole.output), at
        wanted = shaped.after(at, world.calls())
        assert again.calls() == wanted if at == _top(at) else again.calls() <= wanted, at
    assert await shaped.store.entries(WHOLE) == before
