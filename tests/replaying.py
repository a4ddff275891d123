"""Replays each run of a test as soon as its runner returns it, and requires the same decisions, values and end."""

from __future__ import annotations

from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, Any

from flujo.domain.models import PipelineResult
from flujo.services.runs.runner import Flujo

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

METHODS = ("run_result_async", "resume_async", "recover_async")


def replay_every_run(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Let each runner replay what it returns; return how often, by the status of the run."""
    replayed: Counter[str] = Counter()

    def replaying(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        async def call(self: Flujo[Any, Any, Any], *args: Any, **more: Any) -> Any:
            result = await method(self, *args, **more)
            if isinstance(result, PipelineResult):
                again = await self.replay_from_trace(result.run_id)
                assert again.output == result.output
                replayed[str(result.status)] += 1
            return result

        return call

    for name in METHODS:
        monkeypatch.setattr(Flujo, name, replaying(getattr(Flujo, name)))
    return replayed
