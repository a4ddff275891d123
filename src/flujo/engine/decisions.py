"""Decisions of composites, recorded in the journal, so that a resumed run decides the same or fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.domain.executor import GRACE_S, BatchedItems
from flujo.domain.journal import Entry, EntryKind
from flujo.domain.paths import indexed, last_count, shown
from flujo.domain.steps import CallableRef, Logic
from flujo.domain.wording import short
from flujo.engine.error_info import described
from flujo.exceptions import ControlSignal, ExpressionFailed, FlujoError, JournalConflict, StepFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

    from flujo.domain.paths import StepPath
    from flujo.domain.values import Limit
    from flujo.engine.frame import Frame

_END = object()
_SHOWN = 60
"""The maximum length of a value in an error."""
_SAME_ITEMS = "make it yield the same items in the same order on each call"
_KINDS = {dict: "a map", str: "a text", bool: "a boolean", type(None): "null"}


class Recorded(Protocol):
    """The items whose results are recorded in ranges, by the first item of each range."""

    length: int
    """The number of items of a range."""
    ahead: int
    """How many items of an iterator are read and recorded at once."""

    def covers(self, first: int) -> bool:
        """Return whether the results of a range are recorded."""
        ...

    def take(self, first: int, items: Sequence[Any] | None) -> None:
        """Take the results of a range; `items` are its items now, None when the journal has them."""
        ...

    def go_on(self, index: int) -> bool:
        """Return whether a range is recorded that begins with the item `index` or a later one."""
        ...

    async def enter(self, first: int, count: int) -> None:
        """Read the entries of the items of any other range, before they are executed."""
        ...


async def decide(
    rule: Logic,
    frame: Frame,
    path: StepPath,
    *,
    attempt: int = 1,
    check: Callable[[Any], object] = lambda _: None,
) -> Any:
    """Return the value of a key that holds logic, and record it as a decision.

    A pure expression has the same value again, so its decision is committed together with the next entry
    that is waited for, and a resumed run compares the two. A callable's decision is durable before the run
    acts on it. A value for which `check` raises is not recorded, so that a retry evaluates again.

    Raises:
        JournalConflict: the journal has another value of this expression.
    """
    if not isinstance(rule, CallableRef):
        value = frame.evaluate(rule)
        check(value)
        return _keep(frame, path, attempt, value, rule.source)

    async def ask() -> Entry:
        answer = _json(rule, await _answer(rule, frame))
        check(answer)
        return decision(frame, path, attempt, answer)

    entry = await frame.run.journal.once(path, EntryKind.DECISION, ask, attempt=attempt)
    return canonical.decode(entry.output or b"null")


async def value_of(rule: Logic, frame: Frame) -> Any:
    """Return the value of a key that holds logic, unrecorded; no path of the run may depend on it."""
    if isinstance(rule, CallableRef):
        return _json(rule, await _answer(rule, frame))
    return frame.evaluate(rule)


def limit_of(given: int | Limit, frame: Frame, *, what: str) -> int:
    """Return the number of a limit.

    It is not recorded: an expression reads recorded values only, so it has the same value after a resume.

    Raises:
        ExpressionFailed: the value of its expression is not a whole number from 1 to its maximum.
    """
    if isinstance(given, int):
        return given
    value = frame.evaluate(given.value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number
    if type(value) is not int or not 1 <= value <= given.max:
        raise ExpressionFailed(
            f"{what}, `{given.value}`, is {short(repr(value), _SHOWN)}, not a whole number from 1 to "
            f"{given.max}",
            hint="limit it in the expression, for instance `input.n > 9 ? 9 : input.n`, or raise `max`",
        )
    return int(value)


async def decide_flag(rule: Logic, frame: Frame, path: StepPath, *, what: str, attempt: int = 1) -> bool:
    """Return the value of a key that is true or false.

    Raises:
        ExpressionFailed: it is neither true nor false.
    """

    def check(value: Any) -> None:
        if not isinstance(value, bool):
            raise ExpressionFailed(
                f"{what} is {value!r}, which is neither true nor false",
                hint="compare it with something, for instance `… == 'yes'` or `… > 0`",
            )

    return bool(await decide(rule, frame, path, attempt=attempt, check=check))


async def decide_items(
    rule: Logic, frame: Frame, path: StepPath, ranges: Recorded, *, what: str
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield the items of a key that holds a list, each with its index, except those of recorded ranges.

    For a pure expression only the number of items is recorded, because it has the same value again. A
    callable's list is one decision. Each item of an iterator is a decision, recorded before the item's work
    starts. A resumed run calls an unfinished iterator again: it must yield the same items in the same order.

    Raises:
        ExpressionFailed: the value is not a list.
        JournalConflict: there is another number of items than before, or another item.
    """
    items = await items_of(rule, frame, path, what)
    if isinstance(items, Stream):
        given = _one_by_one(items, frame, path, ranges)
    else:
        given = listed(frame, path, ranges, items)
    async with aclosing(given) as numbered:
        async for index, item in numbered:
            yield index, item


async def items_of(rule: Logic, frame: Frame, path: StepPath, what: str) -> list[Any] | int | Stream:
    """Return the items, or their number when each of them is recorded."""
    if not isinstance(rule, CallableRef):
        listed = _list(frame.evaluate(rule), what)
        _keep(frame, path, 1, len(listed), rule.source)
        return listed
    decided = frame.run.journal.decision(path)
    if decided is not None:
        known: list[Any] | int = canonical.decode(decided.output or b"null")
        return known
    given = await _answer(rule, frame)
    if isinstance(given, AsyncIterable):
        return Stream(rule, frame, path, given)
    listed = _list(_json(rule, given), what)
    await frame.run.journal.record(decision(frame, path, 1, listed))
    return listed


async def listed(
    frame: Frame, path: StepPath, ranges: Recorded, items: list[Any] | int, *, start: int = 0
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield the items of a list, or as many recorded items; `start` is the number of the first one."""
    end = start + (items if isinstance(items, int) else len(items))
    for beginning in range(start - start % ranges.length, end, ranges.length):
        first, after = max(beginning, start), min(beginning + ranges.length, end)
        if ranges.covers(beginning):
            ranges.take(beginning, None if isinstance(items, int) else items[first - start : after - start])
            continue
        await ranges.enter(first, after - first)
        for index in range(first, after):
            place = indexed(path, index)
            yield index, _item(frame, place) if isinstance(items, int) else items[index - start]


async def _one_by_one(
    given: Stream, frame: Frame, path: StepPath, ranges: Recorded
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield the items of an iterator after recording each; the number of items is recorded at the end."""
    index = 0
    async with aclosing(given) as stream:
        while True:
            while ranges.covers(index):
                ranges.take(index, await stream.exactly(ranges.length))
                index += ranges.length
            if index % ranges.length == 0:
                await ranges.enter(index, ranges.length)
            ahead = min(ranges.ahead, ranges.length - index % ranges.length)
            taken = await stream.take(ahead)
            if not taken:
                _require_all(given.rule, frame, path, index, ranges)
                break
            first, index = index, index + len(taken)
            items = [
                _compared(given.rule, frame, indexed(path, number), item)
                for number, item in enumerate(taken, first)
            ]
            await frame.run.journal.flush()
            for number, item in enumerate(items, first):
                yield number, item
        frame.run.journal.append_deferred(decision(frame, path, 1, index))


def _require_all(rule: CallableRef, frame: Frame, path: StepPath, count: int, ranges: Recorded) -> None:
    """Refuse an iterator that ends after `count` items although the journal has more."""
    here = indexed(path, count)
    if frame.run.journal.decision(here) is not None or ranges.go_on(count):
        raise JournalConflict(
            f"`{rule.target}` yielded only {count} items, and more before this run was resumed",
            hint=_SAME_ITEMS,
            path=here,
        )


SKIPPED_AT_ONCE = 1000
"""How many items of an iterator are read at once and dropped."""


class Stream:
    """The items of a callable's iterator."""

    def __init__(self, rule: CallableRef, frame: Frame, path: StepPath, given: AsyncIterable[Any]) -> None:
        self.rule, self._frame, self._path = rule, frame, path
        self._source = aiter(given)

    async def exactly(self, count: int) -> list[Any]:
        """Return the next items: `count` of them, or fewer at the end."""
        items: list[Any] = []
        while len(items) < count and (taken := await self.take(count - len(items))):
            items += taken
        return items

    async def skip(self, count: int) -> int:
        """Read the next items and drop them; return how many there were, `count` at most."""
        left = count
        while left and (taken := await self.take(min(left, SKIPPED_AT_ONCE))):
            left -= len(taken)
        return count - left

    async def take(self, count: int) -> list[Any]:
        """Return the next items: at least one, unless the iterator has ended, and `count` at most."""
        with foreign(self.rule):
            self._frame.require_going()
            return await self._frame.call(self._path, _taken(self._source, count))

    async def aclose(self) -> None:
        """Close the iterator, if it can be closed; generators can."""
        close = getattr(self._source, "aclose", None)
        if close is not None:
            with foreign(self.rule):
                async with asyncio.timeout(GRACE_S) as limit:
                    await self._frame.call(self._path, _closed(close), limit)


async def _taken(source: AsyncIterator[Any], count: int) -> list[Any]:
    if isinstance(source, BatchedItems):
        return await source.take(count)
    item = await anext(source, _END)
    return [] if item is _END else [item]


async def _closed(close: Callable[[], Awaitable[object]]) -> None:
    await close()


def _compared(rule: CallableRef, frame: Frame, here: StepPath, item: Any) -> Any:
    """Return an item of an iterator after appending it to the journal, or after comparing it.

    Raises:
        JournalConflict: the journal has another item there.
    """
    output = canonical.encode(item, what=f"`{rule.target}`")
    known = frame.run.journal.decision(here)
    if known is None:
        frame.run.journal.append_deferred(decision(frame, here, 1, canonical.decode(output)))
    elif known.output != output:
        raise JournalConflict(
            f"`{rule.target}` yielded another item number {last_count(here)} than before this run was "
            "resumed",
            hint=_SAME_ITEMS,
            path=here,
        )
    return canonical.decode(output)


def decision(frame: Frame, path: StepPath, attempt: int, value: Any) -> Entry:
    """Return the entry of a decision."""
    now = frame.run.clock.now()
    return Entry(
        path=path,
        kind=EntryKind.DECISION,
        attempt=attempt,
        output=canonical.encode(value),
        started_at=now,
        ended_at=now,
    )


def _keep(frame: Frame, path: StepPath, attempt: int, value: Any, expression: str) -> Any:
    """Record the value of an expression, or return the recorded one, which must be the same.

    Raises:
        JournalConflict: they differ.
    """
    recorded = frame.run.journal.decision(path, attempt)
    if recorded is None:
        frame.run.journal.append_deferred(decision(frame, path, attempt, value))
        return value
    before, now = recorded.output or b"null", canonical.encode(value)
    if not canonical.is_same(before, now):
        frame.run.journal.differs(
            JournalConflict(
                f"the decision at `{shown(path)}` is recorded as `{_short(before)}`, but its expression is "
                f"now `{_short(now)}`",
                hint="restore the expression that this run was started with, then "
                "`flujo resume RUN --retry-failed --accept-changes`; or start a new run",
                path=path,
                recorded=canonical.decode(before),
                now=value,
                expression=expression,
            )
        )
    return canonical.decode(before)


def _short(value: bytes) -> str:
    return short(value.decode(), _SHOWN)


async def _answer(rule: CallableRef, frame: Frame) -> Any:
    agent = frame.run.binding.agent(rule)
    context = frame.scope.view() if agent.wants_context else None
    data = canonical.normalise(frame.previous)
    with foreign(rule):
        ask = Ask(data=data, context=context, resources=frame.run.resources)
        reply = await frame.ask(frame.path, rule, ask)
    return reply.output


@contextmanager
def foreign(rule: CallableRef) -> Iterator[None]:
    """Wrap an exception of a callable in a `StepFailed` that names it."""
    try:
        yield
    except (FlujoError, ControlSignal):
        raise
    except Exception as error:
        raise StepFailed(f"`{rule.target}` raised {described(error)}") from error


def _json(rule: CallableRef, value: Any) -> Any:
    return canonical.normalise(value, what=f"`{rule.target}`")


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ExpressionFailed(
            f"{what} is {_KINDS.get(type(value), 'a number')}, not a list",
            hint="use an expression whose value is a list, or write one: `[a, b]`",
        )
    return value


def _item(frame: Frame, path: StepPath) -> Any:
    known = frame.run.journal.decision(path)
    return None if known is None else canonical.decode(known.output or b"null")
