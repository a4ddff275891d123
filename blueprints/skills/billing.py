"""Says what the shop's rules allow: a full refund within 14 days of delivery."""

from typing import Any

_DAYS = 14


def refund_offer(order: dict[str, Any]) -> str:
    """Return, in one or two sentences, what may be promised about a refund of `order`."""
    if not order["known"]:
        named = order["number"]
        return (
            f"Order {named} is not in our books."
            if named
            else "We need the order number (A- and four digits)."
        )
    what = f"Order {order['number']} ({order['item']}, {order['amount']})"
    if order["state"] == "refunded":
        return f"{what} was refunded already."
    if order["state"] == "in transit":
        return f"{what} is on its way. You can refuse the parcel and get a full refund."
    if order["days_since_delivery"] <= _DAYS:
        return f"{what} can be refunded in full. The money is back within five days."
    return f"{what} is past the {_DAYS} days for a refund. We can offer a repair."
