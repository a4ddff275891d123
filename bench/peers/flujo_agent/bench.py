"""A `granular` step of Flujo on SQLite, and the resume of a conversation whose last turn was cut off."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from instant import Instant  # isort: skip - the line above finds it
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from turns import ANSWER, Script, lookup, main, measured

import flujo
from flujo import Flujo, Pipeline, Step
from flujo.agents import providers
from flujo.domain.agents import AgentSpec
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore

flujo.tool(effect="read")(lookup)


class Source:
    """Where the model comes from, in the place of a provider."""

    key_name = None
    secrets = ()
    is_free = False
    has_tool_protocol = True
    answered_with: Mapping[str, Any] = {}

    def __init__(self, model: Model) -> None:
        self._model = model

    async def prepare(self) -> None:
        """Do nothing."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Model]:
        """Yield the model."""
        yield self._model


class Stopping(Instant):
    """Does not return the last response until it is called for the second time."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.reached = asyncio.Event()
        self.stops = False

    async def request(self, *given: Any) -> ModelResponse:
        """Return the next response."""
        if self.stops and self._script.turn == self._script.turns - 1:
            self.reached.set()
            await asyncio.sleep(3600)
        return await super().request(*given)


async def work(folder: Path) -> dict[str, float]:
    database = folder / "state.db"
    migrations.migrate(f"sqlite:///{database}")
    script = Script()
    model = Stopping(script)
    providers.remote_model = lambda *_: Source(model)  # type: ignore[assignment]  # its place alone is known here
    spec = AgentSpec("researcher", "bench:instant", instructions="Look all customers up.", tools=[lookup])
    turns = int(sys.argv[1])
    tree = Pipeline(Step.granular("research", spec, max_turns=turns), "research")
    store = await SqlStateStore.open(f"sqlite:///{database}")
    async with Flujo[Any, Any, Any](tree, store=store) as runner:

        async def talk(name: str, _: int) -> None:
            result = await runner.run_result_async("Go.", run_id=name)
            assert result.output == ANSWER, result.error

        found = await measured(script, talk, database)
        script.turns, script.turn, model.stops = turns, 0, True
        await _stopped(model, asyncio.create_task(runner.run_result_async("Go.", run_id="long")))
    await store.aclose()
    store = await SqlStateStore.open(f"sqlite:///{database}")
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        began, worked = time.perf_counter(), time.process_time()
        await _stopped(model, asyncio.create_task(runner.resume_async("long")))
        found["resume_s"] = time.perf_counter() - began
        found["resume_cpu_s"] = time.process_time() - worked
    await store.aclose()
    return found


async def _stopped(model: Stopping, walk: "asyncio.Task[Any]") -> None:
    """Return when the last request is made, or raise what the run raised."""
    reached = asyncio.create_task(model.reached.wait())
    await asyncio.wait([walk, reached], return_when=asyncio.FIRST_COMPLETED)
    if walk.done():
        raise RuntimeError(f"the run ended early: {walk.result()}")
    walk.cancel()
    await asyncio.wait([walk])
    model.reached.clear()


if __name__ == "__main__":
    main(("flujo", "pydantic-ai-slim"), work)
