"""Tickets in a folder, and what an index says about each."""

from pathlib import Path
from typing import Any

from flujo import tool


@tool(effect="read")
def tickets(folder: str) -> list[dict[str, str]]:
    """Return the name and the text of each ticket, by name."""
    found = sorted(Path(folder).glob("*.txt"))
    return [{"name": each.stem, "text": each.read_text("utf-8")} for each in found]


@tool(effect="read")
def entry(text: str) -> dict[str, Any]:
    """Return the first sentence of a ticket and its number of words."""
    subject = " ".join(text.split(".")[0].split())
    return {"subject": subject, "words": len(text.split())}
