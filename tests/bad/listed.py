"""All numbered bad inputs: bytes, YAML, language, paths, callables, texts, schemas, surroundings."""

from __future__ import annotations

from bad.listed_around import AROUND
from bad.listed_meaning import MEANING
from bad.listed_reading import READING

LISTED = sorted([*READING, *MEANING, *AROUND], key=lambda case: case.number)
