"""The log says when a runner is opened which cached steps are never cached."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flujo.domain.models import AppResources
from flujo.domain.steps import CachePolicy, CallableRef
from flujo.services.runs.runner import Flujo
from support import call, pipeline


class Tenant(AppResources):
    name: str


def keyless(data: Any, resources: Tenant) -> str:
    return resources.name


@pytest.mark.guarantee("G21")
async def test_the_log_says_it_when_a_runner_is_opened_before_any_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(data: Any) -> Any:
        raise ValueError("before the cached step")

    tree = pipeline(
        call("first", CallableRef("x:fails", fails)),
        call("ask", CallableRef("x:y", keyless), cache=CachePolicy()),
    )
    async with Flujo[Any, Any, Any](tree, persist_state=False, resources=Tenant(name="a")) as runner:
        with caplog.at_level(logging.WARNING, "flujo.cache"):
            await runner.run_result_async(1)
            await runner.run_result_async(1)
    (found,) = (message for message in caplog.messages if "not cached" in message)
    assert found.startswith(
        "step 'ask' is not cached: `x:y` takes `resources`, and Tenant has no `cache_key`"
    )
