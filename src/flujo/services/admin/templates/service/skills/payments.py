"""What refund.yaml calls: replace it with the API of your payment provider."""

import flujo


@flujo.tool(effect="idempotent")
def refund(order: str, amount: float, idempotency_key: str) -> str:
    """Refund an amount. The provider gets the key, and pays once for each key."""
    return f"{order}: {amount:.2f} EUR, receipt {idempotency_key[:8]}"
