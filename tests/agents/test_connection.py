"""Connections to a model: kept for the next request, closed afterwards whatever ends a request."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import ModelRequestParameters

from agents.provider_server import Provider, provider_server
from flujo.agents.connection import Connection
from flujo.agents.providers import remote_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic_ai.models import Model

TURNS = 12
"""More turns of the event loop than it takes to open a model, and to leave it."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        running.will_answer("fine")
        yield running


@pytest.fixture
def make(provider: Provider) -> Callable[[], Model]:
    return lambda: remote_model("openai-chat:gpt-4o-mini", provider.environment).connection.model


async def ask(model: Model) -> None:
    await model.request([ModelRequest.user_text_prompt("hello")], None, ModelRequestParameters())


async def cancel(task: asyncio.Task[Any] | None, turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    assert task is not None
    task.cancel()


async def all_closed(provider: Provider) -> None:
    async with asyncio.timeout(60):
        while provider.connections:  # noqa: ASYNC110 - the threads of the server change it
            await asyncio.sleep(0.01)


async def test_the_next_request_uses_the_same_connection(
    provider: Provider, make: Callable[[], Model]
) -> None:
    connection = Connection(make, linger_s=60)
    for _ in range(3):
        async with connection.open() as model:
            await ask(model)
    assert len(provider.connections) == 1


async def test_it_closes_after_the_last_request_and_opens_again(
    provider: Provider, make: Callable[[], Model]
) -> None:
    connection = Connection(make, linger_s=0)
    for _ in range(2):
        async with connection.open() as first, connection.open() as second:
            await ask(first)
            await ask(second)
            assert provider.connections
        await all_closed(provider)


@pytest.mark.parametrize("moment", ["opening", "leaving"])
async def test_it_closes_whenever_a_request_is_cancelled(
    provider: Provider, make: Callable[[], Model], moment: str
) -> None:
    connection = Connection(make, linger_s=0)

    async def asked(turns: int) -> None:
        cancelling = None
        if moment == "opening":
            cancelling = asyncio.create_task(cancel(asyncio.current_task(), turns))
        async with connection.open() as model:
            await ask(model)
            if moment == "leaving":
                cancelling = asyncio.create_task(cancel(asyncio.current_task(), turns))
        assert cancelling is not None
        await cancelling

    for turns in range(TURNS):
        with suppress(asyncio.CancelledError):
            await asyncio.create_task(asked(turns))
        await all_closed(provider)


@pytest.mark.parametrize("turns", range(TURNS))
def test_it_closes_when_the_loop_ends(provider: Provider, make: Callable[[], Model], turns: int) -> None:
    connection = Connection(make, linger_s=60)

    async def main() -> None:
        async with connection.open() as model:
            await ask(model)
        task = asyncio.create_task(asked())
        await cancel(task, turns)

    async def asked() -> None:
        async with connection.open() as model:
            await ask(model)

    asyncio.run(main())
    asyncio.run(all_closed(provider))


async def test_what_the_model_raises_reaches_the_request(make: Callable[[], Model]) -> None:
    model: Any = make()

    class Broken(type(model)):  # type: ignore[misc]
        async def __aenter__(self) -> Any:
            raise OSError("no certificates")

    model.__class__ = Broken
    connection = Connection(lambda: model)
    with pytest.raises(OSError, match="no certificates"):
        async with connection.open():
            pass
