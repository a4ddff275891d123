"""Renders why a run took its way: decisions with their values, retries, answers, and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.domain.usage import NOTHING
from flujo.domain.wording import plural
from flujo.services.inspection import formatting
from flujo.services.inspection.views import decoded, usage_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.cli.terminal import Terminal
    from flujo.services.inspection.recorded_scope import Reading
    from flujo.services.inspection.why import Account, Decision, Retried

_VALUE = 80
"""How many characters of a value are shown."""


def show_account(terminal: Terminal, account: Account) -> None:
    """Write an explanation to stdout."""
    where = f"  {shown(account.path)}" if account.path else ""
    title = f"{formatting.short_id(account.run_id)}{where}  {account.end}"
    terminal.data(terminal.styled(title, "bold", to=terminal.out))
    for decision in account.decisions:
        terminal.data(f"{shown(decision.path)}  {decision.effect}")
        for line in _of_decision(decision):
            terminal.data(f"  {line}")
    for line in _of_answer(account):
        terminal.data(line)
    for each in account.retried:
        for line in _of_retries(each):
            terminal.data(line)
    if not (account.decisions or account.retried or account.answer or account.path):
        terminal.data("no decisions: each step was executed once, in order")
    if account.note:
        terminal.say(f"note: {account.note}", "yellow")
    run = account.file or formatting.short_id(account.run_id)
    terminal.next(command("flujo", "trace", run, *([shown(account.path)] if account.path else [])))


def _of_decision(decision: Decision) -> Iterator[str]:
    if decision.expression is not None:
        yield f"{decision.key}: {decision.expression}"
        value = formatting.brief(decision.value, _VALUE)
        if decision.substituted not in (decision.expression, value):
            yield f"  = {decision.substituted}"
        yield f"  = {value}"
    elif decision.callable is not None:
        yield f"{decision.key}: `{decision.callable}` returned {formatting.brief(decision.value, _VALUE)}"
    for reading in decision.readings:
        yield f"{reading.name}: {_origin(reading)}"


def _origin(reading: Reading) -> str:
    """Return where a value came from: its step, with the prompt of an agent, or who answered."""
    facts = [
        reading.origin,
        f"answered by {reading.by}" if reading.by else "",
        reading.model or "",
        f"asked {formatting.brief(reading.input, _VALUE)}" if reading.input is not None else "",
    ]
    return "  ".join(filter(None, facts))


def _of_answer(account: Account) -> Iterator[str]:
    """Yield where the output of a single step came from."""
    step, answer = account.step, account.answer
    if answer is not None:
        by = f" by {answer.by}" if answer.by else ""
        how = "its deadline passed" if answer.is_expired else f"answered{by}"
        asked = formatting.brief(answer.message, _VALUE)
        yield f"{how} {formatting.moment(answer.answered_at or 0.0)}: {asked}"
    if not account.path or step.children or step.status != "completed":
        return
    cached = "from the cache" if step.detail.get("cached") else ""
    attempts = f"attempt {step.attempts}" if step.attempts > 1 else ""
    spent = formatting.usage(step.usage, NOTHING)
    if step.input is not None and answer is None:
        yield f"input: {formatting.brief(step.input, _VALUE)}"
    facts = filter(None, [formatting.brief(step.output, _VALUE), cached, attempts, step.model or "", spent])
    yield f"output: {'  '.join(facts)}"


def _of_retries(retried: Retried) -> Iterator[str]:
    cost = formatting.usage(retried.usage, NOTHING)
    facts = [plural(retried.failed, "failed attempt"), formatting.seconds(retried.seconds), cost]
    yield f"{shown(retried.path)}  {'  '.join(filter(None, facts))}"
    yield from (f"  {number}: {reason}" for number, reason in enumerate(retried.reasons, 1))


def account_data(account: Account) -> dict[str, Any]:
    """Return an explanation as JSON data."""
    answer = account.answer
    return {
        "run_id": account.run_id,
        "path": account.path,
        "end": account.end,
        "decisions": [
            {
                "path": each.path,
                "key": each.key,
                "value": each.value,
                "effect": each.effect,
                "expression": each.expression,
                "substituted": each.substituted,
                "callable": each.callable,
                "read": [_reading_data(reading) for reading in each.readings],
            }
            for each in account.decisions
        ],
        "retried": [
            {
                "path": each.path,
                "failed": each.failed,
                "seconds": round(each.seconds, 3),
                "usage": usage_data(each.usage),
                "reasons": list(each.reasons),
            }
            for each in account.retried
        ],
        "answer": answer
        and {
            "message": answer.message,
            "answer": decoded(answer.answer),
            "by": answer.by,
            "answered_at": answer.answered_at,
        },
        "input": account.step.input if account.path else None,
        "output": account.step.output if account.path else None,
        "note": account.note,
    }


def _reading_data(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "value": reading.value,
        "known": reading.is_known,
        "origin": reading.origin,
        "path": reading.path,
        "input": reading.input,
        "model": reading.model,
        "by": reading.by,
    }
