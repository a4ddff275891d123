"""The shop's till, a folder under `.flujo/`: it pays each refund once, and can say what it has paid."""

from pathlib import Path
from typing import Any

_TILL = Path(__file__).resolve().parents[2] / ".flujo" / "till"


def pay_back(number: str, amount: str, idempotency_key: str) -> str:
    """Pay `amount` back for an order and return the receipt; the key names the payment."""
    _TILL.mkdir(parents=True, exist_ok=True)
    receipt = f"{amount} paid back for order {number}."
    (_TILL / f"{number}-{idempotency_key}.txt").write_text(receipt, "utf-8")
    return receipt


def receipt(data: dict[str, Any], idempotency_key: str) -> dict[str, Any]:
    """Say whether the payment with this key was made, and its receipt; `data` is what was to be paid."""
    paid = _TILL / f"{data['number']}-{idempotency_key}.txt"
    return {"done": True, "result": paid.read_text("utf-8")} if paid.exists() else {"done": False}


def declined(number: str) -> str:
    """Return the reply to a customer whose order is not refunded."""
    return f"Order {number} is not refunded." if number else "There is no such order."
