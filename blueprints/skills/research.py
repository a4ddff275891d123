"""Tools of the researcher: search the help pages, and keep notes."""

import json
from pathlib import Path
from typing import Annotated, Any

from blueprints.skills import words
from pydantic import Field

import flujo

_PAGES = json.loads(Path(__file__).with_name("help_pages.json").read_text("utf-8"))
NOTES = Path("notes.jsonl")

# A small model repeats itself when nothing bounds a text; then its response is cut off.
Brief = Annotated[str, Field(min_length=1, max_length=100)]


@flujo.tool(effect="read")
def search(question: Brief) -> dict[str, str]:
    """Search the help pages for a question."""
    page: dict[str, str] = words.best(_PAGES, question) or {"title": "none", "text": "No page fits."}
    return {"title": page["title"], "text": page["text"]}


@flujo.tool(effect="idempotent")
def take_note(text: Brief, idempotency_key: str) -> str:
    """Write a finding into the notebook."""
    known = NOTES.read_text("utf-8").splitlines() if NOTES.exists() else []
    notes: list[dict[str, Any]] = [json.loads(line) for line in known]
    if all(note["key"] != idempotency_key for note in notes):
        with NOTES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": idempotency_key, "text": text}) + "\n")
    return "noted"
