"""The outbox in this process's memory: the same rules as in SQL."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from flujo.domain.outbox import Message, MessageState
from flujo.state import codec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.outbox import Notice, Tried


class MemoryOutbox:
    """The messages of a database in memory, by id."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._messages: dict[int, Message] = {}

    def add(self, run_id: RunId, notices: Sequence[Notice], now: float) -> None:
        """Keep messages about a move that happens now."""
        for notice in notices:
            new = next(self._ids)
            self._messages[new] = Message(
                id=new,
                run_id=run_id,
                target=notice.target,
                event=notice.event,
                payload=notice.payload,
                created_at=now,
                available_at=now,
                key=codec.message_key(new, codec.message_row(run_id, notice)["digest"]),
            )

    def matching(
        self,
        states: Collection[MessageState],
        target: str | None,
        run_id: RunId | None,
        ids: Collection[int] | None,
        limit: int,
    ) -> list[Message]:
        """Return the messages that match, the newest first."""
        found = [
            message
            for message in reversed(self._messages.values())
            if (not states or message.state in states)
            and target in (None, message.target)
            and run_id in (None, message.run_id)
            and (ids is None or message.id in ids)
        ]
        return found[:limit]

    def take(
        self, targets: Collection[str], owner: str, lease_s: float, limit: int, now: float
    ) -> list[Message]:
        """Take due messages for `owner`, the oldest first."""
        due = [
            message
            for message in self._messages.values()
            if message.state is MessageState.PENDING
            and message.available_at <= now
            and message.target in targets
        ]
        due.sort(key=lambda message: (message.available_at, message.id))
        for message in due[:limit]:
            taken = replace(message, available_at=now + lease_s, tries=message.tries + 1, owner=owner)
            self._messages[message.id] = taken
        return sorted((self._messages[each.id] for each in due[:limit]), key=lambda message: message.id)

    def settle(self, message: Message, tried: Tried, now: float) -> bool:
        """Record the result of a try, unless the message was taken or settled since then."""
        there = self._messages.get(message.id)
        if there is None or there.tries != message.tries or there.state is not MessageState.PENDING:
            return False
        self._messages[message.id] = replace(
            there,
            error=tried.error,
            delivered_at=now if tried.state is MessageState.DELIVERED else None,
            given_up_at=now if tried.state is MessageState.GIVEN_UP else None,
            available_at=there.available_at if tried.retry_s is None else now + tried.retry_s,
        )
        return True

    def redeliver(self, ids: Collection[int], now: float) -> int:
        """Make messages due at once, as new ones are."""
        found = [message for message in self._messages.values() if message.id in ids]
        for message in found:
            new = replace(message, delivered_at=None, given_up_at=None, tries=0, available_at=now)
            self._messages[message.id] = new
        return len(found)
