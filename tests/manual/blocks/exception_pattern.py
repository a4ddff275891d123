"""Section 7: what happens to a pause in the bad pattern and in the good one."""

import logging
from typing import Any

from manual.supplied import Flujo

logger = logging.getLogger("manual")


async def bad(runner: Flujo[Any, Any, Any]) -> str | None:
    # As printed: 7, bad ---------------------------------------------------------------------------------
    try:
        await runner.run_result_async(...)
    except Exception: # Swallows PausedException!
        return "Error"
    # ----------------------------------------------------------------------------------------------------
    return None


async def good(runner: Flujo[Any, Any, Any]) -> None:
    # As printed: 7, good --------------------------------------------------------------------------------
    from flujo.exceptions import PausedException, PipelineAbortSignal, FlujoError

    try:
        await runner.run_result_async(...)
    except (PausedException, PipelineAbortSignal):
        raise # Allow signal to bubble up
    except FlujoError as e:
        logger.error(f"Execution Error: {e}")
    # ----------------------------------------------------------------------------------------------------
