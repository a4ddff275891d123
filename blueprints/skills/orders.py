"""Finds the order that a ticket speaks of, in the small table beside this file."""

import json
import re
from pathlib import Path
from typing import Any

_ORDERS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("orders.json").read_text("utf-8"))
_NUMBER = re.compile(r"\bA-\d{4}\b", re.IGNORECASE)


def find(text: str) -> dict[str, Any]:
    """Return `{number, known, ...}` of the first order in `text`; `number` is "" when there is none."""
    for number in map(str.upper, _NUMBER.findall(text)):
        if number in _ORDERS:
            return {"number": number, "known": True, **_ORDERS[number]}
    named = _NUMBER.search(text)
    return {"number": named.group().upper() if named else "", "known": False}
