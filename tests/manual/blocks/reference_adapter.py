"""Section 9: the reference implementation."""

import logging

from flujo import Pipeline, PipelineContext, UsageLimits
from flujo.exceptions import PausedException, PipelineAbortSignal
from manual.supplied import Flujo

logger = logging.getLogger("manual")
my_pipeline = Pipeline(name="adapter")


class MyTypedContext(PipelineContext):
    """The context that the adapter seeds."""

    user_id: str
    source: str


# As printed: 9 ------------------------------------------------------------------------------------------
class FlujoProductionAdapter:
    def __init__(self, persist: bool = True):
        self._runner = Flujo(
            pipeline=my_pipeline,
            context_model=MyTypedContext,
            usage_limits=UsageLimits(total_cost_usd_limit=1.0),
            persist_state=persist
        )

    async def process_request(self, input_data: str, user_id: str) -> str:
        # Seed context for auditability
        initial_ctx = {"user_id": user_id, "source": "api"}

        try:
            result = await self._runner.run_result_async(
                initial_input=input_data,
                initial_context_data=initial_ctx
            )

            if result.success:
                return result.output
            return "Processing Failed"

        except (PausedException, PipelineAbortSignal):
            # Propagate pause signal to upper layers
            raise
        except Exception as e:
            # Log actual errors
            logger.error(f"Critical failure: {e}")
            raise

    async def close(self):
        await self._runner.aclose()
# --------------------------------------------------------------------------------------------------------
