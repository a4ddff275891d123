"""The part of `TaskClient` for the messages about runs: which were delivered, and to send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.access import Right
from flujo.domain.outbox import MessageState
from flujo.services.given import choice, page_size, several, text_or_none, whole_number
from flujo.services.inspection.client_base import ClientBase
from flujo.services.inspection.messages import listed, redeliver
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.outbox import Message


class OutboxClient(ClientBase):
    """Lists the messages of the outbox, and sends them again."""

    async def messages(
        self,
        states: Sequence[MessageState] = (),
        *,
        target: str | None = None,
        run_id: str | None = None,
        limit: int = 100,
    ) -> list[Message]:
        """Return messages about runs that webhooks and callables get, the newest first.

        Args:
            states: the states that are listed. Default: all.
            target: the name of a `[notify.NAME]`.
            run_id: the run that they are about.
            limit: the maximum number of messages, up to 10,000.

        Raises:
            RunNotFound: the run does not exist.
            AccessDenied: without a run, the principal is limited to some runs.
            SettingsError: an argument has the wrong type or an unknown value.
        """
        among = [choice(MessageState, each, "states") for each in several(states, "states")]
        target, most = text_or_none(target, "target"), page_size(limit, MAX_LIMIT)
        if run_id is None:
            self._require_everywhere(Right.READ)
        else:
            run_id = await self._allowed(Right.READ, run_id)
        return await listed(await self._store(), states=among, target=target, run=run_id, limit=most)

    async def redeliver(
        self, ids: Sequence[int] = (), *, given_up: bool = False, target: str | None = None
    ) -> int:
        """Make messages due again, which a worker or an open runner sends; return how many.

        Args:
            ids: their ids; none with `given_up`.
            given_up: all messages that were given up.
            target: with `given_up`, only those to this target.

        Raises:
            SettingsError: neither ids nor `given_up`, or both; `target` with ids; a wrong type.
            MessageNotFound: there is no message of an id; nothing is changed.
        """
        self._require_everywhere(Right.OPERATE)
        numbers = [whole_number(each, "ids") for each in several(ids, "ids")]
        target = text_or_none(target, "target")
        return await redeliver(await self._store(), numbers, given_up=bool(given_up), target=target)
