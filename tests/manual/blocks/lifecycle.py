"""Section 7: the runner is wired into the application's lifespan."""

from contextlib import asynccontextmanager

from fastapi import FastAPI

from manual.supplied import Flujo

adapter: "FlujoAdapter"

# As printed: 7, lifecycle -------------------------------------------------------------------------------
class FlujoAdapter:
    def __init__(self):
        self.runner = Flujo(...)

    async def shutdown(self):
        await self.runner.aclose() # Drains Postgres pool

@asynccontextmanager
async def lifespan(app: FastAPI):
    # Startup
    yield
    # Shutdown
    await adapter.shutdown()
# --------------------------------------------------------------------------------------------------------
