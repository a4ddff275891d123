"""Refunds orders: a folder under `.flujo/` has one file for each payment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

import flujo

_REFUNDS = Path(__file__).resolve().parents[2] / ".flujo" / "refunds"

Order = Annotated[str, Field(pattern=r"^A-[0-9]{4}$")]
Amount = Annotated[float, Field(gt=0, le=500)]


@flujo.tool(effect="idempotent")
def refund(order: Order, amount: Amount, idempotency_key: str) -> str:
    """Refund an amount of an order, in EUR."""
    _REFUNDS.mkdir(parents=True, exist_ok=True)
    receipt = f"refunded {amount:.2f} EUR for order {order}"
    (_REFUNDS / f"{order}-{idempotency_key[:12]}.txt").write_text(receipt, "utf-8")
    return receipt
