"""Renders forks and differences of runs."""

from __future__ import annotations

from dataclasses import asdict
from itertools import repeat
from typing import TYPE_CHECKING, Any

from flujo.cli.lock_rendering import marked
from flujo.cli.run_command import result_data
from flujo.domain.paths import shown
from flujo.domain.wording import plural
from flujo.services.inspection import formatting
from flujo.services.inspection.views import usage_data
from flujo.services.replay.fork import outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.services.cases.judges import Judged
    from flujo.services.replay.fork import ForkedRun, Outcome
    from flujo.services.replay.run_diff import RunDiff, Side

_MOST = 20
"""How many differences are listed; the rest is counted."""
_VALUE = 60


# Forks ---------------------------------------------------------------------------------------------------


def fork_data(fork: ForkedRun) -> dict[str, Any]:
    """Return a fork as JSON data."""
    return {**result_data(fork.result), **facts_data(fork)}


def facts_data(fork: ForkedRun) -> dict[str, Any]:
    """Return as JSON data what is only known of forks."""
    return {
        "parent": fork.forked.parent,
        "at": fork.forked.at,
        "copied": fork.forked.copied,
        "changes": dict(fork.forked.changes),
        "own_usage": usage_data(fork.used),
        "seconds": round(fork.seconds, 3),
        "stubbed": [{"path": each.path, "tool": each.tool, "by": each.by} for each in fork.stubbed],
    }


def outcomes_data(
    outcomes: Sequence[Outcome], scores: Sequence[Sequence[Judged]] = ()
) -> list[dict[str, Any]]:
    """Return the distinct outcomes of several forks as JSON data."""
    return [
        {
            "status": each.status,
            "output": each.output,
            "error": each.error,
            "count": len(each.runs),
            "own_usage": usage_data(each.used),
            "seconds": round(each.seconds, 3),
            "runs": [run.result.run_id for run in each.runs],
            **({"scores": [asdict(one) for one in judged]} if scores else {}),
        }
        for each, judged in zip(outcomes, scores or repeat(()), strict=False)
    ]


def say_stubbed(terminal: Terminal, fork: ForkedRun) -> None:
    """Write which calls a fork has not made."""
    if not fork.stubbed:
        return
    terminal.say(f"{plural(len(fork.stubbed), 'call')} with an effect not made:")
    for each in fork.stubbed:
        by = "recorded result" if each.by == "recorded" else "answer of a human"
        terminal.say(f"  {shown(each.path)}  {each.tool}  ({by})")


def show_several(
    terminal: Terminal, forks: Sequence[ForkedRun], scores: Sequence[Sequence[Judged]] = (), *, as_json: bool
) -> None:
    """Write how often several forks ended alike, and the scores of their outputs."""
    found = outcomes(forks)
    if as_json:
        data = outcomes_data(found, scores)
        terminal.json({"outcomes": data, "forks": [fork_data(each) for each in forks]})
    else:
        show_outcomes(terminal, found, scores)


def show_outcomes(
    terminal: Terminal, outcomes: Sequence[Outcome], scores: Sequence[Sequence[Judged]] = ()
) -> None:
    """Write the distinct outcomes of several forks as a table, and why an output has no score."""
    judged = {each.evaluator: each.evaluator.upper() for row in scores for each in row}
    terminal.table(
        {
            "count": "COUNT",
            "status": "STATUS",
            **judged,
            "spent": "SPENT",
            "seconds": "SECONDS",
            "run": "RUN",
            "output": "OUTPUT",
        },
        [
            {
                "count": len(each.runs),
                "status": each.status,
                **{one.evaluator: "-" if one.score is None else f"{one.score:.2f}" for one in row},
                "spent": formatting.usage(each.used) or "-",
                "seconds": formatting.seconds(each.seconds),
                "run": formatting.short_id(each.runs[0].result.run_id),
                "output": formatting.brief(each.error or each.output, _VALUE),
            }
            for each, row in zip(outcomes, scores or repeat(()), strict=False)
        ],
    )
    for one in dict.fromkeys(each for row in scores for each in row if each.score is None):
        terminal.say(f"{one.evaluator}: no score: {one.reason}")


# Differences ---------------------------------------------------------------------------------------------


def diff_data(diff: RunDiff) -> dict[str, Any]:
    """Return the differences of two runs as JSON data."""
    found = [
        {"path": each.path, "what": each.what, "one": each.one, "other": each.other}
        for each in diff.differences
    ]
    return {
        "one": _side_data(diff.one),
        "other": _side_data(diff.other),
        "first": found[0] if found else None,
        "differences": found,
        "prompts": [
            {"agent": each.agent, "words": [{"kind": kind, "text": text} for kind, text in each.pieces]}
            for each in diff.prompts
        ],
    }


def _side_data(side: Side) -> dict[str, Any]:
    return {
        "run_id": side.run_id,
        "status": side.status,
        "output": side.output,
        "usage": usage_data(side.used),
        "seconds": round(side.seconds, 3),
    }


def show_run_diff(terminal: Terminal, diff: RunDiff) -> None:
    """Write the differences of two runs to stdout."""
    one, other = diff.one, diff.other
    terminal.table(
        {"what": "", "one": formatting.short_id(one.run_id), "other": formatting.short_id(other.run_id)},
        [
            {"what": "status", "one": one.status, "other": other.status},
            {
                "what": "output",
                "one": formatting.brief(one.output, _VALUE),
                "other": formatting.brief(other.output, _VALUE),
            },
            {
                "what": "spent",
                "one": formatting.usage(one.used) or "-",
                "other": formatting.usage(other.used) or "-",
            },
            {
                "what": "seconds",
                "one": formatting.seconds(one.seconds),
                "other": formatting.seconds(other.seconds),
            },
        ],
    )
    for change in diff.prompts:
        terminal.data(terminal.styled(f"agent {change.agent}: instructions", "bold", to=terminal.out))
        text = "".join(marked(terminal, kind, part) for kind, part in change.pieces)
        for line in text.removesuffix("\n").split("\n"):
            terminal.data(f"  {line}")
    if not diff.differences:
        terminal.data("no step differs")
        return
    first = diff.differences[0]
    terminal.data(f"first difference: `{shown(first.path)}`, its {first.what}")
    rows = [
        {
            "path": shown(each.path),
            "what": each.what,
            "one": formatting.brief(each.one, _VALUE),
            "other": formatting.brief(each.other, _VALUE),
        }
        for each in diff.differences[:_MOST]
    ]
    terminal.table({"path": "PATH", "what": "DIFFERS", "one": "ONE", "other": "OTHER"}, rows)
    if len(diff.differences) > _MOST:
        terminal.say(f"and {len(diff.differences) - _MOST:,} more; `--json` lists all")
