"""Words for messages: lists of names, counts, shortened values, and "did you mean"."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

_MOST_COMPARED = 200
_LONGEST_NAME = 60

IS_NOT_CACHED = " is not cached: "
"""Stands between a step and why its answers have no key, in findings."""


def plural(count: int, word: str, many: str = "") -> str:
    """Return a count with its noun: `1 run`, `2 runs`, `2 entries` for `many="entries"`."""
    return f"{count:,} {word if count == 1 else many or f'{word}s'}"


def listed(names: Iterable[Any], last: str = "", *, most: int = 12) -> str:
    """Return names in backticks: "`a`, `b`, `c`", or with `last="or"`: "`a`, `b` or `c`".

    Of more than `most` names, the rest is counted: "`a`, `b` and 4 more".
    """
    every = list(names)
    shown = [f"`{short(str(name), _LONGEST_NAME)}`" for name in every[:most]]
    if len(every) > most:
        last, more = last or "and", f"{len(every) - most:,} more"
        shown.append(more)
    if not last or len(shown) < 2:
        return ", ".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def span(seconds: float) -> str:
    """Return a duration in the largest unit that divides it, as a blueprint writes it: `72h`, `90s`."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g}{name}"
    return f"{seconds:g}s"


def size(count: float) -> str:
    """Return a number of bytes in the largest unit of which there is at least one: `12 KiB`, `88.6 MiB`."""
    units = ["B", "KiB", "MiB", "GiB"]
    while round(count, 1) >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{round(count, 1):g} {units[0]}"


def dollars(usd: float) -> str:
    """Return an amount in dollars with 2 digits, or 4 below one dollar."""
    if usd == 0:
        return "$0.00"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}" if usd >= 0.0001 else "<$0.0001"


def short(text: str, most: int = 60) -> str:
    """Return a text of at most `most` characters; `…` stands for the end of a longer one."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def reason(error: BaseException) -> str:
    """Return why something failed, in one line and without the number of an error of the operating system.

    Its words are preferred: a library that gives up raises an error of its own from them.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            about = f"{cause.filename}: " if isinstance(cause.filename, str) else ""
            return f"{about}{cause.strerror}"
        cause = cause.__cause__
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def repr_short(value: Any, most: int = 60) -> str:
    """Return the `repr` of a value, shortened."""
    return short(repr(value), most)


def json_short(value: Any, most: int = 60) -> str:
    """Return JSON data as JSON, with its keys sorted, shortened."""
    return short(json.dumps(value, ensure_ascii=False, sort_keys=True), most)


def kind_of(value: Any) -> str:
    """Return the type of a JSON value in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Return the known word that is most like `word`, whatever its case, or None.

    `cutoff` is the least likeness, from 0 to 1.
    """
    words = known if isinstance(known, Sequence) else list(known)
    # Comparing thousands of words takes seconds, and most spelling mistakes leave one end of a word right.
    if len(words) > _MOST_COMPARED:
        alike = (each for each in words if each.startswith(word[:1]) or each.endswith(word[-1:]))
        words = list(islice(alike, _MOST_COMPARED))
    folded = {each.casefold(): each for each in words}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Return "did you mean `x`?" for the nearest known word, or None when no word is near."""
    near = nearest(word, known, cutoff=cutoff)
    return None if near is None else f"did you mean `{near}`?"


def suggest(word: str, known: Iterable[str], *, what: str = "known", cutoff: float = 0.7) -> str:
    """Return the hint for an unknown word: the nearest known word, or a list of the known words."""
    words = list(known)
    return did_you_mean(word, words, cutoff=cutoff) or (f"{what}: {listed(words, 'and')}" if words else "")
