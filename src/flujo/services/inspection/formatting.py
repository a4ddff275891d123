"""Formats values for people: durations, tokens, cost, times, and safe short text."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flujo.domain.wording import dollars
from flujo.governance.screen import visible_json, visible_line
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.journal import CodeFrame
    from flujo.domain.usage import Usage


def seconds(value: float) -> str:
    """Return a readable duration: `0.4s`, `12s`, `3m05s`, `2h10m`."""
    if value < 10:
        return f"{value:.1f}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def where_ran(units: Sequence[Mapping[str, Any]], most: int | None = None) -> Iterator[str]:
    """Yield where each unit was executed: `cores: host node-7, process 4711, 0.2s`.

    Of more than `most`, the rest is counted.
    """
    for ran in units[:most]:
        where = f"{ran['executor']}: host {ran['host']}, process {ran['pid']}"
        yield visible_line(f"{where}, {seconds(ran['seconds'])}")
    if most is not None and len(units) > most:
        yield f"and {len(units) - most} more"


def usage(used: Usage, unconfirmed: Usage | None = None) -> str:
    """Return tokens and cost, or `""` without usage. An unknown cost is shown as unknown, never as zero.

    `unconfirmed` is an upper bound for additional usage.
    """
    words = [_usage(used)] if used.total_tokens or used.requests or used.cost_micro_usd else []
    if unconfirmed:
        words.append(f"at most {_usage(unconfirmed)} more, unconfirmed")
    return "  ".join(words)


def _usage(used: Usage) -> str:
    words = [f"{used.total_tokens:,} tokens"]
    if used.requests or used.cost_micro_usd:
        words.append("cost unknown" if used.cost_usd is None else dollars(used.cost_usd))
    return "  ".join(words)


def bar(score: float) -> str:
    """Return a score from 0 to 1 as a bar of constant width."""
    full = round(score * _BAR)
    return "█" * full + "░" * (_BAR - full)


_BAR = 10
"""The characters of a bar."""


def moment(epoch: float) -> str:
    """Return a time in the local time zone, with its offset; empty for 0."""
    return zoned(datetime.fromtimestamp(epoch, UTC).astimezone()) if epoch else ""


def zoned(time: datetime) -> str:
    """Return a time with the offset of its zone: `2026-11-29 10:00:00Z`, `2026-11-29 11:00:00+01:00`."""
    return time.isoformat(" ", "seconds").replace("+00:00", "Z")


def brief(value: Any, limit: int = 72) -> str:
    """Return a value as one line of at most `limit` characters without invisible characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # Cut first, because the text may be megabytes long; and mask before the second cut, which might leave the
    # first half of a mail address.
    seen = GATE.result(text[: limit * 8]) if GATE.hides_personal_data else text[: limit * 4]
    line = visible_line(" ".join(re.split(r"[ \t\r\n]+", seen))).strip()
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def short_id(run_id: str) -> str:
    """Return a run id to type: the first 12 characters of a generated id, any other id in full."""
    return run_id[:12] if len(run_id) == 32 and run_id.isalnum() else run_id


def code_place(frame: CodeFrame | None) -> str:
    """Return a place in the code of the user, with its line; empty for none."""
    if frame is None:
        return ""
    return f"{frame}: {frame.source}" if frame.source else str(frame)


def as_json(value: Any, *, indent: bool = False) -> str:
    """Return `value` as JSON text; other objects are written as `str`."""
    return visible_json(json.dumps(value, ensure_ascii=False, default=str, indent=2 if indent else None))
