"""Section 4: resources instead of global variables."""

from typing import Any

from flujo import AppResources
from manual.supplied import Flujo


class Connection:
    """A connection that notes what it was asked to do."""

    def __init__(self) -> None:
        self.executed: list[Any] = []

    async def execute(self, statement: Any) -> None:
        self.executed.append(statement)


pool = Connection()

# As printed: 4 ------------------------------------------------------------------------------------------
class ServiceResources(AppResources):
    db_conn: Any
    search_client: Any

# Usage in Step
async def my_step(data, context, resources: ServiceResources):
    await resources.db_conn.execute(...)

# Injection
runner = Flujo(..., resources=ServiceResources(db_conn=pool))
# --------------------------------------------------------------------------------------------------------
