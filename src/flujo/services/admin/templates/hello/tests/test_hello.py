"""The blueprint, run in the memory of the test."""

import asyncio
from pathlib import Path
from typing import Any

from flujo.testing import scripted_runner

PROJECT = Path(__file__).parent.parent


def hello(name: str) -> Any:
    """Return the output of a run."""

    async def run() -> Any:
        async with scripted_runner("hello", project=PROJECT) as runner:
            return (await runner.run_result_async(name)).output

    return asyncio.run(run())


def test_hello_greets_by_name() -> None:
    assert hello("Ada") == "Hello, Ada! Your name has 3 letters."


def test_white_space_is_not_counted() -> None:
    assert hello(" Ada ") == "Hello, Ada! Your name has 3 letters."
