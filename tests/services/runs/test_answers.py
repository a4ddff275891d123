"""Which of several open questions an answer goes to, and that a doubtful one goes to none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import HumanInTheLoopStep, ParallelStep, Text
from flujo.exceptions import AmbiguousPause, RunNotFound
from flujo.services.runs.runner import Flujo
from support import pipeline

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore

RUN = RunId("run")


def asking() -> ParallelStep:
    """Return two questions at once."""
    ask = {name: HumanInTheLoopStep(name="ok", message=Text(f"{name}?")) for name in ("left", "right")}
    return ParallelStep(name="both", branches={name: pipeline(step) for name, step in ask.items()})


async def test_an_answer_that_names_none_of_several_questions_goes_to_none(store: StateStore) -> None:
    async with Flujo[Any, Any, Any](pipeline(asking()), store=store) as runner:
        await runner.run_result_async(None, run_id=RUN)
        with pytest.raises(AmbiguousPause) as refused:
            await runner.resume_async(RUN, "yes")
        assert refused.value.facts["pauses"] == ("both:left/ok", "both:right/ok")
        assert [pause.answer for pause in await store.pauses(RUN)] == [None, None]
        with pytest.raises(RunNotFound):
            await runner.resume_async(RUN, "yes", pause_id="both:middle/ok")
        half = await runner.resume_async(RUN, "R", pause_id="both:right/ok")
        assert half.status is RunStatus.PAUSED
        done = await runner.resume_async(RUN, "L")  # the only one left needs no name
    assert done.output == {"left": "L", "right": "R"}
