"""A runner that supplies the parts that the manual's blocks leave out as `...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import flujo
from flujo.domain.models import Ctx, Out
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import Step
from flujo.services.runs.runner import In

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.models import PipelineResult


ANY_PIPELINE = Pipeline(Step("nothing", lambda data: data), name="manual")


class Flujo(flujo.Flujo[In, Out, Ctx]):
    """A runner that replaces `...` with `left_out`."""

    left_out: ClassVar[Mapping[str, Any]] = {}
    """Arguments of the next runners, by name; arguments of the block override them."""
    input: ClassVar[Any] = None
    """The input of a run for which a block prints `...`."""

    def __init__(self, *omitted: Any, **given: Any) -> None:
        assert all(each is ... for each in omitted)
        super().__init__(**{"pipeline": ANY_PIPELINE, **self.left_out, **given})

    async def run_result_async(self, initial_input: Any = ..., **given: Any) -> PipelineResult[Out, Ctx]:
        value = self.input if initial_input is ... else initial_input
        return await super().run_result_async(value, **given)
