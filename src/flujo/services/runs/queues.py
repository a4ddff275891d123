"""The queues of a project: their limits, and the place of a run in one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.queues import DEFAULT_QUEUE, ClaimOrder, Queued, priority_problem
from flujo.domain.values import Expr
from flujo.domain.wording import suggest
from flujo.exceptions import ExpressionFailed, ExpressionSyntax, InputRejected, QueueUnknown, SettingsError
from flujo.governance.logs import logger
from flujo.services.given import seconds, text, whole_number
from flujo.services.runs.input_values import value_of_input
from flujo.settings_tables import QueueTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.ports import Binding, Clock
    from flujo.domain.store import QueueStore
    from flujo.settings import Settings

log = logger("flujo.runs")


def queue_table(settings: Settings, queue: Any) -> QueueTable:
    """Return the settings of a queue.

    Raises:
        QueueUnknown: it is neither `default` nor in the settings.
    """
    name = text(queue, "queue")
    if name in settings.queues:
        return settings.queues[name]
    if name == DEFAULT_QUEUE:
        return QueueTable()
    meant = suggest(name, [DEFAULT_QUEUE, *settings.queues], what="there are", cutoff=0.6)
    raise QueueUnknown(
        f"there is no queue {name!r} in the settings",
        hint=f"write a table `[queues.{name}]` in flujo.toml; {meant}",
        queue=name,
    )


def claim_order(settings: Settings, queues: Sequence[str]) -> ClaimOrder:
    """Return what a worker of these queues claims; the caller sets the limit.

    Raises:
        QueueUnknown: see `queue_table`.
    """
    limits = {name: queue_table(settings, name).limits for name in queues}
    return ClaimOrder(queues=tuple(limits.items()), limit=1)


def place(
    settings: Settings, binding: Binding, encoded: bytes, *, queue: Any, priority: Any, delay_s: Any
) -> Queued:
    """Return the place of a new run with this input, which is canonical JSON.

    Raises:
        QueueUnknown: see `queue_table`.
        SettingsError: the priority or the delay is out of range, or `per_key` is not an expression.
        InputRejected: `per_key` has no value for this input.
    """
    table = queue_table(settings, queue)
    number = whole_number(priority, "priority")
    if problem := priority_problem(number, "the run"):
        raise SettingsError(problem[0], hint=problem[1])
    delay = seconds(delay_s, "delay_s")
    if not math.isfinite(delay):
        raise SettingsError("`delay_s` is not a finite number", hint="pass a number of seconds")
    key = None if table.per_key is None else _key(binding, table.per_key, queue, encoded)
    return Queued(queue=queue, key=key, priority=number, delay_s=delay)


def place_of_task(settings: Settings, binding: Binding, queue: str, priority: int, encoded: bytes) -> Queued:
    """Return the place of a background task; see `place`."""
    return place(settings, binding, encoded, queue=queue, priority=priority, delay_s=0)


def _key(binding: Binding, expression: str, queue: str, encoded: bytes) -> str:
    """Return the value of `per_key` as text: that of a text itself, of others their JSON."""
    try:
        value = value_of_input(Expr(expression), binding, canonical.decode(encoded))
    except ExpressionSyntax as error:
        raise SettingsError(
            f"`per_key` of [queues.{queue}] is not an expression: {error.message}",
            hint="write a path of the input, for instance `input.customer`",
        ) from error
    except ExpressionFailed as error:
        raise InputRejected(
            f"`per_key` of queue {queue!r} has no value for this input: {error.message}",
            hint="an input without it needs another expression: `get(input, 'customer', '')`",
        ) from error
    return value if isinstance(value, str) else canonical.encode(value, what="per_key").decode()


LOOK_FOR_WORKERS_S = 30.0
"""How often a process looks at most whether a queue has a worker, because it puts runs into it."""


class WorkerCheck:
    """Reports a queue that no worker serves to the log `flujo.runs`, when this process puts runs into it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}

    async def look(self, store: QueueStore, run_id: RunId, queue: str) -> None:
        """Report that no worker takes a run; at most twice a minute for each queue."""
        now = self._clock.monotonic()
        if now < self._next.get(queue, now):  # not for each of a thousand runs
            return
        self._next[queue] = now + LOOK_FOR_WORKERS_S
        if note := await no_worker_note(store, queue):
            log.warning("run %s waits: %s", run_id, note)


async def no_worker_note(store: QueueStore, queue: str) -> str | None:
    """Return the sentence that no worker takes the runs of a queue; None when one is alive."""
    if any(queue in worker.queues for worker in await store.workers()):
        return None
    named = () if queue == DEFAULT_QUEUE else ("--queue", queue)
    return f"no worker of queue `{queue}` is alive; `{command('flujo', 'worker', *named)}` starts one"
