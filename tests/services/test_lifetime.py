"""A lifetime opens one thing at a time, closes each once, and refuses every use afterwards."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import RunnerClosed
from flujo.services.lifetime import Lifetime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Things:
    """Opens slowly, one after another, and writes down what happens."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lifetime = Lifetime("this thing")

    @asynccontextmanager
    async def thing(self, name: str) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        self.told.append(f"open {name}")
        yield
        self.told.append(f"close {name}")

    async def open(self, name: str) -> None:
        async with self.lifetime.opening() as exits:
            await exits.enter_async_context(self.thing(name))


async def test_the_newest_is_closed_first_and_each_once() -> None:
    things = Things()
    await asyncio.gather(things.open("a"), things.open("b"))
    await asyncio.gather(things.lifetime.close(), things.lifetime.close())
    await things.lifetime.close()
    assert things.told == ["open a", "open b", "close b", "close a"]


async def test_nothing_is_opened_after_it_is_closed() -> None:
    things = Things()
    await things.lifetime.close()
    with pytest.raises(RunnerClosed, match="this thing is closed"):
        await things.open("a")
    assert things.told == []


async def test_what_is_being_opened_when_it_is_closed_is_closed_and_refused() -> None:
    things = Things()
    opening = [asyncio.create_task(things.open(name)) for name in "ab"]
    await asyncio.sleep(0)
    await things.lifetime.close()
    refused = await asyncio.gather(*opening, return_exceptions=True)
    assert [type(each) for each in refused] == [RunnerClosed, RunnerClosed]
    assert things.told == ["open a", "close a"]


async def test_closing_continues_when_its_caller_is_cancelled_and_nothing_new_opens() -> None:
    things, may_stop = Things(), asyncio.Event()

    async def stop() -> None:
        with pytest.raises(RunnerClosed):
            await things.open("b")
        await may_stop.wait()
        things.told.append("stopped")

    await things.open("a")
    closing = asyncio.create_task(things.lifetime.close(stop))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    may_stop.set()
    await things.lifetime.close()
    assert things.told == ["open a", "stopped", "close a"]


async def test_a_released_resource_can_be_opened_again() -> None:
    things = Things()
    await things.open("a")
    await things.lifetime.release()
    await things.open("b")
    await things.lifetime.close()
    assert things.told == ["open a", "close a", "open b", "close b"]
