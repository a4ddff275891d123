"""The tools of the agent: typed functions. Their docstrings are what the model reads."""

from typing import Annotated

from pydantic import Field

import flujo

ORDERS = {"A-1001": ("an oak desk lamp", "sent"), "A-1002": ("a chair", "packed")}


@flujo.tool(effect="read")
def find_order(number: Annotated[str, Field(max_length=20)]) -> dict[str, str]:
    """Find an order by its number."""
    item, state = ORDERS.get(number, ("nothing", "unknown"))
    return {"number": number, "item": item, "state": state}
