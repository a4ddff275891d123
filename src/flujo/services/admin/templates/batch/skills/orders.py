"""What import_orders.yaml calls."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STORED = Path("stored")


def lines(data: str) -> Iterator[str]:
    """Yield the lines of a file. A resumed run reads them again, in the same order."""
    with Path(data).open(encoding="utf-8") as file:
        yield from map(str.strip, file)


def read(text: str) -> dict[str, Any]:
    """Return the order of a line. Its schema is checked by the step."""
    order: dict[str, Any] = json.loads(text)
    return order


def store(order: dict[str, Any]) -> str:
    """Store an order. After a crash it may be called again: the same order is stored once."""
    STORED.mkdir(exist_ok=True)
    (STORED / f"{order['id']}.json").write_text(json.dumps(order), "utf-8")
    return str(order["id"])
