"""Step paths: the address of a step in the journal, in output, and on the command line.

    path     = segment { "/" segment } [ range | "!" NAME [ "[" COUNT "]" ] ]
    segment  = NAME { "[" COUNT "]" | ":" NAME }
    range    = "[" COUNT ".." COUNT "]"

`/` leads to a step of a body, `[n]` to an iteration, item or visit, `:name` to a branch or state. `[a..b]`
ends the path of an entry that sums up the items `a` to `b` of a map; nothing lies below it. `!name` ends the
id of a question that is not the step's own. A name is an identifier, or any text in which the special
characters of paths are percent-encoded. So each path has one meaning, and `parent` needs only its text.

Reserved, because no step of a blueprint can have these paths: `turn[n]`, `summary[n]` and `tool[k]` below a
granular step, the branch `:unfinished`, and below the run `:end`, `:failure` and `:finally`. Branches and
states of steps may be called `failure`: a step's path comes before their `:`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NewType
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

StepPath = NewType("StepPath", str)
"""For instance `triage/review[2]/critique` (counts from 0), or `route:refund` for a branch."""

ROOT = StepPath("")

FAILURE, FINALLY = "failure", "finally"
"""The branches in which `on_failure` and `finally` run."""

END = StepPath(":end")
"""The path of decisions about the end of a run: that its pipeline has `finally` (attempt 0), and how it has
ended before its `on_failure` (1) and before its `finally` (2)."""

UNFINISHED = "unfinished"
"""The name that no branch or state has."""

_UNFINISHED = f":{UNFINISHED}"

_OPERATORS = "/[:!"
_ENCODED = re.compile(r"[%/\[\]:.!~#\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPES = re.compile(r"(?:%[0-9A-F]{2})+")
_TYPED_COUNT = re.compile(r"\.(\d+(?:\.\.\d+)?)(?=[/.:!\[]|$)")
_COUNTS = re.compile(r"\[\d+(?:\.\.\d+)?\]")
_LAST_COUNT = re.compile(r"\[(\d+)\]$")
_RANGE = re.compile(r"\[(\d+)\.\.(\d+)\]$")


# Building and taking apart ---------------------------------------------------------------------------------


def child(path: StepPath, name: str) -> StepPath:
    """Return the path of the step `name` in the body at `path`."""
    return StepPath(f"{path}/{encoded(name)}" if path else encoded(name))


def indexed(path: StepPath, index: int) -> StepPath:
    """Return the path of iteration, item or visit number `index` of the composite at `path`."""
    return StepPath(f"{path}[{index}]")


def ranged(path: StepPath, first: int, last: int) -> StepPath:
    """Return the path of the entry for the items `first` to `last` of the map at `path`."""
    return StepPath(f"{path}[{first}..{last}]")


def branch(path: StepPath, name: str) -> StepPath:
    """Return the path of branch or state `name` of the composite at `path`."""
    return StepPath(f"{path}:{encoded(name)}")


def turn(path: StepPath, number: int) -> StepPath:
    """Return the path of a model's response, counted over the whole granular step at `path`."""
    return indexed(child(path, "turn"), number)


def tool(path: StepPath, place: int) -> StepPath:
    """Return the path of a tool call by its place in the turn at `path`."""
    return indexed(child(path, "tool"), place)


def summary(path: StepPath, number: int) -> StepPath:
    """Return the path of summary number `number` of the older turns of the granular step at `path`."""
    return indexed(child(path, "summary"), number)


def doubt(path: StepPath, number: int) -> StepPath:
    """Return the id of the question about the result of sending number `number` of the call at `path`."""
    return indexed(StepPath(f"{path}!doubt"), number)


def limit(path: StepPath, number: int) -> StepPath:
    """Return the id of question number `number` at the limit of turns of the granular step at `path`."""
    return indexed(StepPath(f"{path}!limit"), number)


def budget(path: StepPath, number: int) -> StepPath:
    """Return the id of pause number `number` of the step at `path` at a budget of several runs."""
    return indexed(StepPath(f"{path}!budget"), number)


def stub(path: StepPath) -> StepPath:
    """Return the id of the question about a call that a fork would make at `path`."""
    return StepPath(f"{path}!stub")


def unfinished(path: StepPath) -> StepPath:
    """Return the path of the records about attempts of the step at `path` that have no entry of their own."""
    return StepPath(f"{path}{_UNFINISHED}")


def step_of(path: StepPath) -> StepPath:
    """Return the path of the step whose usage the entry at `path` has: `a:unfinished` → `a`."""
    return StepPath(path.removesuffix(_UNFINISHED))


def parent(path: StepPath) -> StepPath:
    """Return the enclosing path: `a/b[2]/c` → `a/b[2]` → `a/b` → `a` → the run itself.

    A question's name and number count as one part: `a!doubt[0]` → `a`.
    """
    cut = max(path.rfind("/"), path.rfind(":"))
    mark = path.rfind("!", cut + 1)
    cut = mark if mark >= 0 else max(cut, path.rfind("["))
    return StepPath(path[:cut]) if cut > 0 else ROOT


def level(path: StepPath) -> StepPath:
    """Return the level at which a store finds an entry: its parent, or `map[..]` for a range of items.

    Ranges have a level of their own, so that reading them does not read the items.
    """
    return ranges_of(parent(path)) if ".." in path else parent(path)


def ranges_of(path: StepPath) -> StepPath:
    """Return the level of the ranges of the map at `path`."""
    return StepPath(f"{path}[..]")


def name(path: StepPath) -> str:
    """Return the last part of a path, for display: `c`, `[2]`, `:refund`."""
    return shown(path[len(parent(path)) :].removeprefix("/"))


def last_count(path: StepPath) -> int | None:
    """Return the number of the iteration, item or visit at the end of a path."""
    found = _LAST_COUNT.search(path)
    return int(found[1]) if found else None


def bounds(path: StepPath) -> tuple[int, int] | None:
    """Return the first and last item of a range; None for any other path."""
    found = _RANGE.search(path)
    return (int(found[1]), int(found[2])) if found else None


def without_counts(path: StepPath) -> StepPath:
    """Return a path without numbers of iterations, items, visits and ranges: `a/b[2]/c` → `a/b/c`."""
    return StepPath(_COUNTS.sub("", path))


def is_inside(path: StepPath, outer: StepPath) -> bool:
    """Return whether `path` lies below `outer`; everything lies below the run."""
    if not outer:
        return bool(path)
    return path.startswith(outer) and path[len(outer) : len(outer) + 1] in tuple(_OPERATORS)


def is_within(path: StepPath, outer: StepPath) -> bool:
    """Return whether `path` is `outer` or lies below it."""
    return path == outer or is_inside(path, outer)


# Names -----------------------------------------------------------------------------------------------------


def encoded(name: str) -> str:
    """Return a name, percent-encoded for a path; an identifier is unchanged."""
    return name if name.isidentifier() else _ENCODED.sub(_escape, name)


def decoded(segment: str) -> str:
    """Return the name that `encoded` has encoded."""
    return unquote_to_bytes(segment).decode("utf-8", "surrogatepass") if "%" in segment else segment


def operator(path: StepPath) -> str:
    """Return what leads to the last part of a path: `/` for a step, `:` for a branch, `[` for a count."""
    outer = parent(path)
    return path[len(outer)] if outer else "/"


def shown(path: str) -> str:
    """Return a path for display: names unencoded, except characters that a terminal cannot print."""
    return _ESCAPES.sub(_unescape, path) if "%" in path else path


def _escape(found: re.Match[str]) -> str:
    return _percent(found[0])


def _percent(text: str) -> str:
    # A lone surrogate cannot be stored, but the error about it must be able to print its path.
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _unescape(found: re.Match[str]) -> str:
    text = unquote_to_bytes(found[0]).decode("utf-8", "surrogatepass")
    return "".join(each if each.isprintable() else _percent(each) for each in text)


# The command line ------------------------------------------------------------------------------------------


def from_command_line(text: str) -> StepPath:
    """Return the path of a typed text: `loop.2/x` means `loop[2]/x`, because shells interpret brackets."""
    return StepPath(_TYPED_COUNT.sub(r"[\1]", text))


def for_command_line(path: StepPath) -> str:
    """Return the text to type for a path, the inverse of `from_command_line`."""
    return path.replace("[", ".").replace("]", "")


def find(typed: str, known: Iterable[StepPath]) -> StepPath | None:
    """Return the path for a typed text, in its stored or displayed form, with brackets or dots.

    None when no path matches, or when several are displayed alike.
    """
    paths = list(known)
    for exact in (StepPath(typed), from_command_line(typed)):
        if exact in paths:
            return exact
    alike = [path for path in paths if typed in (shown(path), shown(for_command_line(path)))]
    return alike[0] if len(alike) == 1 else None
