"""Lists the messages of the outbox, and sends them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.outbox import MessageState
from flujo.exceptions import MessageNotFound, SettingsError
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.outbox import Message
    from flujo.domain.store import StateStore


async def listed(
    store: StateStore,
    *,
    states: Sequence[MessageState] = (),
    target: str | None = None,
    run: str | None = None,
    limit: int = 100,
) -> list[Message]:
    """Return messages, the newest first.

    Raises:
        RunNotFound: no run, or several, are meant by `run`.
    """
    run_id = None if run is None else (await store.find(run)).run_id
    return await store.messages(states=states, target=target, run_id=run_id, limit=limit)


def require_one_choice(
    ids: Sequence[int],
    *,
    given_up: bool,
    target: str | None,
    words: tuple[str, str, str] = ("`ids`", "`given_up`", "`target`"),
    listing: str = "`TaskClient.messages` returns them",
) -> None:
    """Return if messages are chosen in one way: by ids, or all that were given up.

    Args:
        ids: the ids.
        given_up: whether all are meant that were given up.
        target: only those to this target.
        words: what the caller calls the three.
        listing: how the caller finds ids.

    Raises:
        SettingsError: neither ids nor `given_up`, or both; `target` without `given_up`.
    """
    by_ids, all_of, only_to = words
    if bool(ids) == given_up:
        which = f"both {by_ids} and {all_of} are given" if ids else f"neither {by_ids} nor {all_of} is given"
        raise SettingsError(
            f"{which}, so it is not clear which messages to send again", hint=f"use one of them; {listing}"
        )
    if target is not None and not given_up:
        raise SettingsError(f"{only_to} needs {all_of}", hint=f"omit {only_to}: an id names one message")


async def redeliver(
    store: StateStore, ids: Sequence[int], *, given_up: bool = False, target: str | None = None
) -> int:
    """Make messages due again, and return how many.

    Args:
        store: the store with the messages.
        ids: their ids; none with `given_up`.
        given_up: all messages that were given up.
        target: with `given_up`, only those to this target.

    Raises:
        SettingsError: see `require_one_choice`.
        MessageNotFound: there is no message of an id; nothing is changed.
    """
    require_one_choice(ids, given_up=given_up, target=target)
    if given_up:
        found = await store.messages(states=[MessageState.GIVEN_UP], target=target, limit=MAX_LIMIT)
        return await store.redeliver([message.id for message in found])
    known = {message.id for message in await store.messages(limit=MAX_LIMIT, ids=ids)}
    for each in ids:
        if each not in known:
            raise MessageNotFound(f"there is no message {each} in this database", message_id=each)
    return await store.redeliver(ids)
